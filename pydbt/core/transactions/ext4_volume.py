"""Where an ext4 has its journal: the block map of the journal's inode, read from the volume.

Sources: fs/ext4/ext4.h (struct ext4_super_block, ext4_group_desc, ext4_inode), fs/ext4/ext4_extents.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pydbt.core.transactions.jbd2_blocks import NotUnderstood
from pydbt.core.units import KIB

Read = Callable[[int, int], bytes]
"""Reads (offset, length) in bytes of the volume; it raises when the volume fails."""

SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES = 1 * KIB, 1 * KIB
_MAGIC, _MAGIC_OFFSET = 0xEF53, 0x38
_COMPAT_JOURNAL, _INCOMPAT_JOURNAL_DEVICE, _INCOMPAT_WIDE = 0x4, 0x8, 0x80
_EXTENTS_FLAG = 0x80000
_EXTENT_MAGIC = 0xF30A
_MAX_DEPTH = 5  # EXT4_MAX_EXTENT_DEPTH
_MAX_EXTENTS = 32_768  # a journal has a few; this is for a damaged tree
_MAX_READS = 16_384
_MAX_WATCHED_NODES = 64
"""Blocks of the block map outside of the inode: a journal has one, if any."""
_UNWRITTEN = 32_768  # EXT_INIT_MAX_LEN: longer ones are not written yet, which a journal never is
_DIRECT_BLOCKS = 12

LogExtents = list[tuple[int, int]]
"""Runs (offset, length) in bytes of the volume, in the order of the log."""
WatchedPiece = tuple[int, bytes]
"""Offset in bytes of the volume, and what stands there: the log may be elsewhere when that changes."""
# Of the superblock: size and shape, magic, revision and size of inodes, features, identity, the journal's inode, time of making.
_SUPERBLOCK_PIECES = (
    (0x4, 4), (0x18, 4), (0x28, 4), (0x38, 2), (0x4C, 4), (0x58, 2), (0x5C, 8), (0x68, 16), (0xE0, 8), (0xFE, 2), (0x108, 4)
)  # fmt: skip
# Of the inode: size, flags, block map. Its times change with every mount.
_INODE_PIECES = ((0x4, 4), (0x20, 4), (0x28, 60), (0x6C, 4))


@dataclass(frozen=True, slots=True)
class Ext4Journal:
    """Where the journal is, and what of the superblock and of its inode tells that. ``made_at``: when the file system was made,
    by the clock of then in seconds (s_mkfs_time)."""

    extents: LogExtents
    watched: tuple[WatchedPiece, ...]
    made_at: int


class Ext4Sizes(NamedTuple):
    """In bytes."""

    block_bytes: int
    inode_bytes: int


def read_ext4_sizes(read: Read) -> Ext4Sizes:
    """Of a volume that has a journal which was found."""
    block = read(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)
    (scale,), (revision,) = struct.unpack_from("<I", block, 0x18), struct.unpack_from("<I", block, 0x4C)
    return Ext4Sizes(KIB << scale, struct.unpack_from("<H", block, 0x58)[0] if revision else 128)


def is_ext4_superblock(block: bytes) -> bool:
    """Whether these bytes, from byte 1,024 of a volume, are a superblock of ext2, ext3 or ext4."""
    return len(block) >= SUPERBLOCK_BYTES and struct.unpack_from("<H", block, _MAGIC_OFFSET)[0] == _MAGIC


def find_ext4_journal(read: Read) -> Ext4Journal:
    """The journal on the volume. NotUnderstood when it has none, or none that is on it."""
    block = read(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)
    compat, incompat = struct.unpack_from("<II", block, 0x5C)
    (journal_inode,) = struct.unpack_from("<I", block, 0xE0)
    (journal_device,) = struct.unpack_from("<I", block, 0xE4)
    if incompat & _INCOMPAT_JOURNAL_DEVICE:
        raise NotUnderstood("it is the external journal of another file system")
    if not compat & _COMPAT_JOURNAL:
        raise NotUnderstood("it has no journal")
    if journal_inode == 0:
        raise NotUnderstood(f"its journal is on another device ({journal_device >> 8}:{journal_device & 0xFF})")
    volume = _Volume(read, block, bool(incompat & _INCOMPAT_WIDE))
    extents = volume.extents_of(journal_inode)
    (made_at,) = struct.unpack_from("<I", block, 0x108)
    watched = _pieces(SUPERBLOCK_OFFSET, block, _SUPERBLOCK_PIECES) + volume.inode_pieces + tuple(volume.map_pieces)
    return Ext4Journal(extents, watched, made_at)


def _pieces(offset_bytes: int, content: bytes, places: tuple[tuple[int, int], ...]) -> tuple[WatchedPiece, ...]:
    return tuple((offset_bytes + first, content[first : first + length]) for first, length in places)


class _Volume:
    def __init__(self, read: Read, block: bytes, wide: bool) -> None:
        (scale,) = struct.unpack_from("<I", block, 0x18)
        if scale > 6:
            raise NotUnderstood("its superblock has an impossible block size")
        self._read = read
        self._block_bytes = KIB << scale
        (self._inodes_per_group,) = struct.unpack_from("<I", block, 0x28)
        (revision,) = struct.unpack_from("<I", block, 0x4C)
        self._inode_bytes = struct.unpack_from("<H", block, 0x58)[0] if revision else 128
        self._long_descriptors = wide and struct.unpack_from("<H", block, 0xFE)[0] >= 64
        low, high = struct.unpack_from("<I", block, 0x4)[0], struct.unpack_from("<I", block, 0x150)[0] if wide else 0
        self._size_blocks = low | high << 32
        self._reads = 0
        self.inode_pieces: tuple[WatchedPiece, ...] = ()
        self.map_pieces: list[WatchedPiece] = []
        whole = self._inode_bytes & (self._inode_bytes - 1) == 0  # none lies in two blocks
        if (
            not self._inodes_per_group
            or not 128 <= self._inode_bytes <= self._block_bytes
            or not whole
            or not self._size_blocks
        ):
            raise NotUnderstood("its superblock has impossible numbers")

    def extents_of(self, inode: int) -> LogExtents:
        raw = self._inode(inode)
        (size_low, flags, size_high) = (struct.unpack_from("<I", raw, at)[0] for at in (0x4, 0x20, 0x6C))
        size_bytes = size_low | size_high << 32
        blocks = size_bytes // self._block_bytes
        if not 0 < blocks <= self._size_blocks:
            raise NotUnderstood("the inode of its journal has an impossible size")
        map_ = raw[0x28:0x64]
        runs = self._of_tree(map_, _MAX_DEPTH) if flags & _EXTENTS_FLAG else self._of_old_map(map_, blocks)
        return self._joined(runs, blocks)

    def _joined(self, runs: Iterator[tuple[int, int, int]], blocks: int) -> LogExtents:
        """The whole log in order. A hole, or a block outside of the volume, is none that a journal has."""
        found: list[list[int]] = []
        place = 0
        for logical, physical, count in runs:
            count = min(count, blocks - place)
            if count <= 0:
                break
            if logical != place or physical == 0 or physical + count > self._size_blocks:
                raise NotUnderstood("the block map of its journal is damaged")
            if found and found[-1][0] + found[-1][1] == physical:
                found[-1][1] += count
            else:
                found.append([physical, count])
            place += count
            if len(found) > _MAX_EXTENTS:
                raise NotUnderstood("its journal is in too many pieces")
        if place != blocks:
            raise NotUnderstood("the block map of its journal is damaged")
        return [(first * self._block_bytes, count * self._block_bytes) for first, count in found]

    def _block(self, number: int) -> bytes:
        self._reads += 1
        if not 0 < number < self._size_blocks or self._reads > _MAX_READS:
            raise NotUnderstood("the block map of its journal is damaged")
        return self._read(number * self._block_bytes, self._block_bytes)

    def _node(self, number: int, of_tree: bool) -> bytes:
        """A block of the block map, which is watched as far as it is used."""
        block = self._block(number)
        used = 12 * (struct.unpack_from("<H", block, 2)[0] + 1) if of_tree else len(block)
        if len(self.map_pieces) < _MAX_WATCHED_NODES:
            self.map_pieces.append((number * self._block_bytes, block[:used]))
        return block

    def _inode(self, number: int) -> bytes:
        if number > self._inodes_per_group:
            raise NotUnderstood(f"the inode of its journal is not in the first group ({number})")
        # The descriptor of the first group stands behind the superblock, whatever the layout of the others.
        descriptor = self._block(2 if self._block_bytes == KIB else 1)
        (low,) = struct.unpack_from("<I", descriptor, 0x8)
        high = struct.unpack_from("<I", descriptor, 0x28)[0] if self._long_descriptors else 0
        block, offset = divmod((number - 1) * self._inode_bytes, self._block_bytes)
        place = (low | high << 32) + block
        found = self._block(place)[offset : offset + self._inode_bytes]
        self.inode_pieces = _pieces(place * self._block_bytes + offset, found, _INODE_PIECES)
        return found

    def _of_tree(self, node: bytes, depth_max: int) -> Iterator[tuple[int, int, int]]:
        magic, entries, _, depth = struct.unpack_from("<4H", node)
        if magic != _EXTENT_MAGIC or depth > depth_max or 12 * (entries + 1) > len(node):
            raise NotUnderstood("the block map of its journal is damaged")
        for at in range(12, 12 * (entries + 1), 12):
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, at)
                yield from self._of_tree(self._node(low | high << 32, of_tree=True), depth - 1)
            else:
                logical, count, high, low = struct.unpack_from("<IHHI", node, at)
                if count > _UNWRITTEN:
                    raise NotUnderstood("the block map of its journal is damaged")
                yield logical, low | high << 32, count

    def _of_old_map(self, map_: bytes, blocks: int) -> Iterator[tuple[int, int, int]]:
        """The map of ext2 and ext3: 12 blocks, then blocks with numbers of blocks, in up to three steps."""
        numbers = struct.unpack("<15I", map_)
        logical = 0
        for number in numbers[:_DIRECT_BLOCKS]:
            yield logical, number, 1
            logical += 1
        for steps, number in enumerate(numbers[_DIRECT_BLOCKS:], start=1):
            if logical >= blocks:
                return
            for physical in self._leaves(number, steps):
                yield logical, physical, 1
                logical += 1

    def _leaves(self, number: int, steps: int) -> Iterator[int]:
        block = self._node(number, of_tree=False)
        for entry in struct.unpack(f"<{len(block) // 4}I", block):
            if steps == 1:
                yield entry
            else:
                yield from self._leaves(entry, steps - 1)
