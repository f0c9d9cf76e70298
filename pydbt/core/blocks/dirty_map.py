"""Which blocks differ: the dirty block map of Fig. 3 (US 7,039,661 ¶57-58), as many small maps.

One bit per block, kept in chunks of 32,768 blocks (4 KiB of bits). A chunk of zeroes takes no memory and is
not written to disk (¶98, technique 5), so that the size of a map follows the dirty blocks, not the volume.

Invariants: a chunk that is present has at least one bit set; no bit at or beyond ``block_count`` is ever set; a chunk that two
maps share is never changed. So a copy costs next to nothing, and shows which chunks were changed since (¶98, technique 1).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import takewhile

import numpy as np
import numpy.typing as npt
from bitarray import bitarray
from bitarray.util import count_or, zeros

from pydbt.core.blocks.runs import BlockNumbers, Runs, changes

CHUNK_BLOCKS = 32_768
CHUNK_BYTES = CHUNK_BLOCKS // 8
CHUNK_WORDS = CHUNK_BYTES // 8

# From here on one slice assignment is cheaper than spelling every block of an extent out.
_SLICE_BLOCKS = 64
_BYTES_PER_CHUNK_SHIFT = 12


class _Chunk:
    """4 KiB of bits, seen as a bitarray and as bytes of the same memory; ``ones`` is -1 when not counted."""

    __slots__ = ("bits", "bytes", "ones")

    def __init__(self, bits: bitarray) -> None:
        self.bits = bits
        self.bytes = np.frombuffer(memoryview(bits), np.uint8)
        self.ones = -1

    def count(self) -> int:
        if self.ones < 0:
            self.ones = self.bits.count()
        return self.ones

    def runs(self, low: int) -> tuple[BlockNumbers, BlockNumbers]:
        """Firsts and ends of the runs at or after bit ``low``, counted from the start of the chunk."""
        if self.ones == CHUNK_BLOCKS:
            return np.array([low], np.int64), np.array([CHUNK_BLOCKS], np.int64)
        bits = np.zeros(CHUNK_BLOCKS + 2, np.uint8)
        bits[1:-1] = np.unpackbits(self.bytes, bitorder="little")
        bits[: low + 1] = 0
        edges = np.flatnonzero(bits[1:] != bits[:-1])
        return edges[0::2], edges[1::2]


class DirtyMap:
    """A set of block numbers below ``block_count`` (Fig. 3, 310). Out-of-range blocks raise ValueError.

    Arrays of blocks are int64, in any order, repeats allowed, and no method changes its arguments.
    """

    __slots__ = ("_chunks", "_order", "_shared", "block_count")

    def __init__(self, block_count: int) -> None:
        if block_count <= 0:
            raise ValueError(f"a map of {block_count} blocks is empty: a volume has at least one")
        self.block_count = block_count
        self._chunks: dict[int, _Chunk] = {}
        self._shared: set[int] = set()  # indices of chunks that a copy may have as well
        # Sorted indices of the chunks; may name chunks that are gone, never misses one. None: sort again.
        self._order: list[int] | None = []

    # Setting and clearing.

    def set_blocks(self, blocks: BlockNumbers) -> None:
        for index, bytes_, masks in self._grouped(blocks):
            chunk = self._open(index)
            chunk.bytes[bytes_] |= masks
            chunk.ones = -1

    def clear_blocks(self, blocks: BlockNumbers) -> None:
        for index, bytes_, masks in self._grouped(blocks):
            if index in self._chunks:
                chunk = self._open(index)
                chunk.bytes[bytes_] &= ~masks
                self._drop_if_zero(index, chunk)

    def set_range(self, first: int, count: int) -> None:
        self._check_range(first, count)
        for index, low, high in _pieces(first, count):
            chunk = self._open(index)
            chunk.bits[low:high] = 1
            chunk.ones = CHUNK_BLOCKS if high - low == CHUNK_BLOCKS else -1

    def clear_range(self, first: int, count: int) -> None:
        self._check_range(first, count)
        if count > CHUNK_BLOCKS * max(1, len(self._chunks)):
            self._clear_wide(first, first + count)
            return
        for index, low, high in _pieces(first, count):
            self._clear_piece(index, low, high)

    def set_extents(self, firsts: BlockNumbers, counts: BlockNumbers) -> None:
        for narrow_or_range in self._spelled(firsts, counts):
            if isinstance(narrow_or_range, tuple):
                self.set_range(*narrow_or_range)
            else:
                self.set_blocks(narrow_or_range)

    def clear_extents(self, firsts: BlockNumbers, counts: BlockNumbers) -> None:
        for narrow_or_range in self._spelled(firsts, counts):
            if isinstance(narrow_or_range, tuple):
                self.clear_range(*narrow_or_range)
            else:
                self.clear_blocks(narrow_or_range)

    def clear(self) -> None:
        self._chunks.clear()
        self._shared.clear()
        self._order = []

    def merge_words(self, words: npt.NDArray[np.uint64]) -> None:
        """OR a bitmap of the whole volume in: 64 blocks per word, the lowest bit first, as the kernel keeps it.

        Zeroes beyond ``block_count`` are padding; a one there raises ValueError and merges nothing.
        """
        words = np.ascontiguousarray(words, dtype="<u8")
        whole = words.size - words.size % CHUNK_WORDS
        rows = words[:whole].reshape(-1, CHUNK_WORDS)
        found = [(int(i), rows[i].view(np.uint8)) for i in np.flatnonzero(np.bitwise_or.reduce(rows, axis=1))]
        if words[whole:].any():
            tail = np.zeros(CHUNK_BYTES, np.uint8)
            tail[: (words.size - whole) * 8] = words[whole:].view(np.uint8)
            found.append((whole // CHUNK_WORDS, tail))
        for index, data in found[-1:]:
            self._check_chunk(index, data)
        for index, data in found:
            chunk = self._open(index)
            chunk.bytes |= data
            chunk.ones = -1

    def merge(self, other: DirtyMap) -> None:
        """Set every block that ``other``, a map of the same volume, has set."""
        self._check_same_volume(other)
        for index, theirs in other._chunks.items():
            chunk = self._open(index)
            chunk.bits |= theirs.bits
            chunk.ones = -1

    # Asking.

    def test_blocks(self, blocks: BlockNumbers) -> npt.NDArray[np.bool_]:
        """One truth value for each of ``blocks``, in their order."""
        self._check_blocks(blocks)
        answer = np.zeros(blocks.shape, np.bool_)
        order = np.argsort(blocks, kind="stable")
        ordered = blocks[order]
        for index, low, high in _groups(ordered // CHUNK_BLOCKS):
            chunk = self._chunks.get(index)
            if chunk is not None:
                within = ordered[low:high] % CHUNK_BLOCKS
                answer[order[low:high]] = (chunk.bytes[within >> 3] >> (within & 7).astype(np.uint8)) & 1
        return answer

    def meets(self, firsts: BlockNumbers, counts: BlockNumbers) -> bool:
        """Whether any block of these runs is set."""
        return any(
            self._meets_range(*blocks) if isinstance(blocks, tuple) else bool(self.test_blocks(blocks).any())
            for blocks in self._spelled(firsts, counts)
        )

    def _meets_range(self, first: int, count: int) -> bool:
        run = self.next_run(first, 1)
        return run is not None and run[0] < first + count

    def contains(self, block: int) -> bool:
        self._check_range(block, 1)
        chunk = self._chunks.get(block // CHUNK_BLOCKS)
        return chunk is not None and bool(chunk.bits[block % CHUNK_BLOCKS])

    def any(self) -> bool:
        return bool(self._chunks)

    def count(self) -> int:
        return sum(chunk.count() for chunk in self._chunks.values())

    def count_union(self, other: DirtyMap) -> int:
        """How many blocks are set here, in ``other``, or in both."""
        self._check_same_volume(other)
        total = self.count() + other.count()
        for index in self._chunks.keys() & other._chunks.keys():
            mine, theirs = self._chunks[index], other._chunks[index]
            total += count_or(mine.bits, theirs.bits) - mine.count() - theirs.count()
        return total

    def extents(self, from_block: int = 0, limit: int | None = None) -> Runs:
        """The maximal runs of set blocks at or after ``from_block``, in order; at most ``limit`` of them.

        Runs cross the borders of chunks. A run that ``from_block`` cuts begins there.
        """
        firsts: list[BlockNumbers] = []
        ends: list[BlockNumbers] = []
        runs, reach = 0, -1
        for index in self._indices_from(from_block // CHUNK_BLOCKS):
            if limit is not None and runs >= limit and reach != index * CHUNK_BLOCKS:
                break
            base = index * CHUNK_BLOCKS
            low, high = self._chunks[index].runs(max(0, from_block - base))
            if low.size:
                runs += low.size - (base + low[0] == reach)
                reach = base + int(high[-1])
                firsts.append(base + low)
                ends.append(base + high)
        if not firsts:
            return Runs.none()
        found = Runs.of_ranges(np.concatenate(firsts), np.concatenate(ends))
        return Runs(found.firsts[:limit], found.counts[:limit])

    def next_run(self, from_block: int, max_blocks: int) -> tuple[int, int] | None:
        """First block and length of the first run at or after ``from_block``, cut at ``max_blocks``."""
        low = from_block % CHUNK_BLOCKS
        for index in self._indices_from(from_block // CHUNK_BLOCKS):
            start = self._chunks[index].bits.find(1, low if index == from_block // CHUNK_BLOCKS else 0)
            if start >= 0:
                return index * CHUNK_BLOCKS + start, self._run_length(index, start, max_blocks)
        return None

    def take_run(self, from_block: int, max_blocks: int) -> tuple[int, int] | None:
        """``next_run``, and its blocks are cleared."""
        run = self.next_run(from_block, max_blocks)
        if run is not None:
            self.clear_range(*run)
        return run

    # Keeping.

    def copy(self) -> DirtyMap:
        """A map of its own, which another thread may read; it shares its chunks with this one until one of them changes."""
        twin = DirtyMap(self.block_count)
        twin._chunks = dict(self._chunks)
        twin._shared, self._shared = set(self._chunks), set(self._chunks)
        twin._order = None
        return twin

    def chunks_unlike(self, other: DirtyMap) -> list[int]:
        """The numbers of the small maps that are not the same in ``other``, in order; also of those that only one has."""
        self._check_same_volume(other)
        mine, theirs = self._chunks, other._chunks
        unlike = [index for index, chunk in mine.items() if not _alike(chunk, theirs.get(index))]
        return sorted([*unlike, *(theirs.keys() - mine.keys())])

    def chunk_bits(self, index: int) -> memoryview | None:
        """The 4096 bytes of one small map, lowest bit first; None when it holds nothing. Only until the map is changed."""
        chunk = self._chunks.get(index)
        return None if chunk is None else memoryview(chunk.bits)

    def chunk(self, index: int) -> bitarray | None:
        """The bits of one small map, lowest first; None when it holds nothing. For reading, and only until the map is changed."""
        chunk = self._chunks.get(index)
        return None if chunk is None else chunk.bits

    def chunk_indices(self, first: int = 0, end: int | None = None) -> list[int]:
        """The numbers of the small maps that hold anything, in order; of those that have a block from ``first`` to ``end``."""
        stop = self.block_count if end is None else end
        return list(takewhile(lambda index: index * CHUNK_BLOCKS < stop, self._indices_from(first // CHUNK_BLOCKS)))

    def chunk_extents(self, index: int) -> Runs:
        """The runs inside one small map, by volume block number."""
        chunk = self._chunks.get(index)
        if chunk is None:
            return Runs.none()
        firsts, ends = chunk.runs(0)
        return Runs(firsts + index * CHUNK_BLOCKS, ends - firsts)

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """(index, 4096 bytes of bits, lowest bit first) of each small map that holds anything, in order."""
        for index in self._indices_from(0):
            yield index, self._chunks[index].bits.tobytes()

    @classmethod
    def from_chunks(cls, block_count: int, chunks: Iterable[tuple[int, bytes]]) -> DirtyMap:
        """A map from what ``chunks()`` gave; ValueError on a wrong length, index or bit."""
        made = cls(block_count)
        for index, data in chunks:
            if len(data) != CHUNK_BYTES:
                raise ValueError(f"chunk {index} has {len(data)} bytes instead of {CHUNK_BYTES}")
            bytes_ = np.frombuffer(data, np.uint8)
            if bytes_.any():
                made._check_chunk(index, bytes_)
                made._open(index).bytes |= bytes_
        return made

    # Inside.

    def _open(self, index: int) -> _Chunk:
        """A chunk that may be changed: a new one, or one that no other map has."""
        chunk = self._chunks.get(index)
        if chunk is None:
            chunk = self._chunks[index] = _Chunk(zeros(CHUNK_BLOCKS, "little"))
            self._order = None
        elif index in self._shared:
            chunk = self._chunks[index] = _Chunk(chunk.bits.copy())
        self._shared.discard(index)
        return chunk

    def _drop_if_zero(self, index: int, chunk: _Chunk) -> None:
        chunk.ones = -1
        if not chunk.bits.any():
            del self._chunks[index]

    def _clear_piece(self, index: int, low: int, high: int) -> None:
        if index in self._chunks:
            chunk = self._open(index)
            chunk.bits[low:high] = 0
            self._drop_if_zero(index, chunk)

    def _clear_wide(self, first: int, end: int) -> None:
        for index in list(self._chunks):
            low, high = max(first - index * CHUNK_BLOCKS, 0), min(end - index * CHUNK_BLOCKS, CHUNK_BLOCKS)
            if low < high:
                self._clear_piece(index, low, high)

    def _run_length(self, index: int, start: int, max_blocks: int) -> int:
        length = -start
        while True:
            stop = self._chunks[index].bits.find(0, start)
            if stop >= 0 or length + CHUNK_BLOCKS >= max_blocks:
                return min(length + (stop if stop >= 0 else CHUNK_BLOCKS), max_blocks)
            length, start, index = length + CHUNK_BLOCKS, 0, index + 1
            if index not in self._chunks:
                return min(length, max_blocks)

    def _indices_from(self, index: int) -> Iterator[int]:
        if self._order is None:
            self._order = sorted(self._chunks)
        order = self._order
        for position in range(bisect_left(order, index), len(order)):
            if order[position] in self._chunks:
                yield order[position]

    def _grouped(self, blocks: BlockNumbers) -> Iterator[tuple[int, BlockNumbers, npt.NDArray[np.uint8]]]:
        """(chunk index, offsets of bytes in it, bits to change in each) for every chunk that blocks lie in."""
        self._check_blocks(blocks)
        if not blocks.size:
            return
        ordered = np.sort(blocks)
        masks = np.left_shift(np.uint8(1), (ordered & 7).astype(np.uint8))
        bytes_ = ordered >> 3
        heads = np.flatnonzero(changes(bytes_))
        masks = np.bitwise_or.reduceat(masks, heads)
        bytes_ = bytes_[heads]
        offsets = bytes_ & (CHUNK_BYTES - 1)
        for index, low, high in _groups(bytes_ >> _BYTES_PER_CHUNK_SHIFT):
            yield index, offsets[low:high], masks[low:high]

    def _spelled(self, firsts: BlockNumbers, counts: BlockNumbers) -> Iterator[BlockNumbers | tuple[int, int]]:
        """Runs as one array of the blocks of all short ones, then each long one as (first, count)."""
        if firsts.size and (counts.min() < 0 or firsts.min() < 0 or (firsts + counts).max() > self.block_count):
            raise ValueError(f"an extent lies outside the volume of {self.block_count} blocks")
        long = counts >= _SLICE_BLOCKS
        if not long.any():
            yield Runs(firsts, counts).blocks() if (counts != 1).any() else firsts
            return
        yield Runs(firsts[~long], counts[~long]).blocks()
        yield from zip(firsts[long].tolist(), counts[long].tolist(), strict=True)

    def _check_blocks(self, blocks: BlockNumbers) -> None:
        if blocks.size and (blocks.min() < 0 or blocks.max() >= self.block_count):
            raise ValueError(f"a block lies outside the volume of {self.block_count} blocks")

    def _check_range(self, first: int, count: int) -> None:
        if first < 0 or count < 0 or first + count > self.block_count:
            raise ValueError(f"blocks {first} to {first + count} lie outside the volume of {self.block_count} blocks")

    def _check_same_volume(self, other: DirtyMap) -> None:
        if other.block_count != self.block_count:
            raise ValueError(f"maps of different volumes: {self.block_count} and {other.block_count} blocks")

    def _check_chunk(self, index: int, data: npt.NDArray[np.uint8]) -> None:
        """``data`` is one chunk's bits, not all zero."""
        last = int(np.flatnonzero(data)[-1])
        highest = index * CHUNK_BLOCKS + last * 8 + int(data[last]).bit_length() - 1
        if index < 0 or highest >= self.block_count:
            raise ValueError(f"block {highest} lies outside the volume of {self.block_count} blocks")


def _alike(chunk: _Chunk, other: _Chunk | None) -> bool:
    return other is chunk or (other is not None and bool(other.bits == chunk.bits))


def _pieces(first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """(chunk index, first bit, end bit) for every chunk that a range of blocks touches."""
    end = first + count
    while first < end:
        index, low = divmod(first, CHUNK_BLOCKS)
        high = min(CHUNK_BLOCKS, low + end - first)
        yield index, low, high
        first += high - low


def _groups(keys: BlockNumbers) -> Iterator[tuple[int, int, int]]:
    """(key, low, high) for every run of equal values in an ordered array."""
    if not keys.size:
        return
    heads = np.flatnonzero(changes(keys))
    yield from zip(keys[heads].tolist(), heads.tolist(), np.append(heads[1:], keys.size).tolist(), strict=True)
