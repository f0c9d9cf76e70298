"""Transactions of a jbd2 journal that stand whole in a batch of its blocks, found all at once: the quick way of ``Jbd2Log``.

Each has one descriptor block, whose tags are of version 3 as the kernel writes them, and its blocks and its commit stand behind
it. What is anything else is left to the way that looks at block after block; both tell the same.
"""

from __future__ import annotations

from functools import lru_cache

import crc32c as library
import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.runs import Integers, Mask
from pydbt.core.transactions.crc import crc32c
from pydbt.core.transactions.jbd2_blocks import (
    COMMIT,
    COMMIT_SUM_OFFSET,
    COMMIT_TIME_OFFSET,
    DESCRIPTOR,
    FIRST_TAG_END,
    HEADER_BYTES,
    JBD2_MAGIC,
    LAST_TAG,
    SAME_UUID,
    TAG_BYTES,
    TAIL_BYTES,
    WIDE,
    JournalSuperblock,
)
from pydbt.core.transactions.transaction import NOTHING_NAMED, JournalTransaction, RunsOfTags, TransactionState

NUMBERS = 1 << 32
NO_TIME_BEFORE = 1 << 62
"""A commit time beyond it is none."""
_HEAD_BYTES = 64
_WORD = 4
_ALL_ONES = 0xFFFFFFFF
_SUM_WORD, _TIME_WORD = COMMIT_SUM_OFFSET // _WORD, COMMIT_TIME_OFFSET // _WORD
# Of the tags behind the header: where the flags of the first one are, those of the second, and those of the one behind it.
_FIRST_FLAGS_WORD, _FLAGS_WORD, _WORDS_PER_TAG = 1, (FIRST_TAG_END - HEADER_BYTES) // _WORD + 1, TAG_BYTES // _WORD
_NANOSECONDS = 1_000_000_000

Words = npt.NDArray[np.uint32]


class WholeTransactions:
    """Of blocks at these ``places`` of the journal, in the order in which they were written."""

    def __init__(self, layout: JournalSuperblock, places: Integers, blocks: list[memoryview]) -> None:
        self._layout = layout
        heads = np.frombuffer(b"".join([block[:_HEAD_BYTES] for block in blocks]), ">u4")
        heads = heads.reshape(-1, _HEAD_BYTES // _WORD)
        control = np.flatnonzero(heads[:, 0] == JBD2_MAGIC)
        kinds = heads[control, 1]
        at = np.flatnonzero((kinds[:-1] == DESCRIPTOR) & (kinds[1:] == COMMIT))
        first, last = control[at], control[at + 1]
        copies = last - first - 1
        most = (layout.block_bytes - TAIL_BYTES - FIRST_TAG_END) // TAG_BYTES + 1
        breaks = np.append(0, np.cumsum(places[1:] != places[:-1] + 1))
        good = (copies >= 1) & (copies <= most) & (heads[first, 2] == heads[last, 2]) & (breaks[first] == breaks[last])
        first, last, copies = first[good], last[good], copies[good]
        self._at: dict[int, int] = {}
        if not first.size:
            return
        good = self._tags_are_usual(blocks, first, copies) & self._sums_are_right(blocks, first, last, heads)
        numbers, indices = heads[first, 2].astype(np.int64), places[first]
        self._columns = (
            first.tolist(), last.tolist(), numbers.tolist(), indices.tolist(), copies.tolist(),
            *heads[last, _TIME_WORD : _TIME_WORD + 3].T.tolist(),
        )  # fmt: skip
        ends = np.append(np.flatnonzero(~self._follow(first, last, numbers, indices, copies, good)), first.size - 1)
        self._chain_ends = ends[np.searchsorted(ends, np.arange(first.size))].tolist()
        self._at = {place: pair for pair, place in enumerate(self._columns[0]) if good[pair]}

    def from_here(self, place: int, number: int, index: int) -> list[tuple[int, JournalTransaction]]:
        """Those from this place of the batch on, if the one with this number begins there, at this block of the journal: each
        with the place of its commit."""
        pair = self._at.get(place)
        if pair is None or (self._columns[2][pair], self._columns[3][pair]) != (number, index):
            return []
        behind = self._chain_ends[pair] + 1
        columns = (column[pair:behind] for column in self._columns)
        size, wide = self._layout.block_bytes, bool(self._layout.incompat & WIDE)
        tags, length, usual = self._tags, self._tags_bytes, FIRST_TAG_END - HEADER_BYTES - TAG_BYTES
        found = []
        for row, (_, last, number, index, copies, high, low, nanoseconds) in enumerate(
            zip(*columns, strict=True), pair
        ):
            time_ns = (high << 32 | low) * _NANOSECONDS + nanoseconds
            start = row * length
            named = RunsOfTags(tags[start : start + usual + TAG_BYTES * copies], copies, wide, size)
            one = JournalTransaction(
                str(number), number, TransactionState.COMMITTED, time_ns if 0 < time_ns < NO_TIME_BEFORE else None,
                index, copies + 2, number, named, NOTHING_NAMED,
            )  # fmt: skip
            found.append((last, one))
        return found

    def _tags_are_usual(self, blocks: list[memoryview], first: Integers, copies: Integers) -> Mask:
        """Whether a descriptor names as many blocks as stand behind it, in tags as ``JournalSuperblock.tags`` finds quickly."""
        width = int(copies.max())
        end = FIRST_TAG_END + TAG_BYTES * (width - 1)
        self._tags_bytes = end - HEADER_BYTES
        self._tags = b"".join([blocks[place][HEADER_BYTES:end] for place in first.tolist()])
        words = np.frombuffer(self._tags, ">u4").reshape(len(first), -1)
        flags = words[:, _FIRST_FLAGS_WORD]
        others = words[:, _FLAGS_WORD::_WORDS_PER_TAG] & (SAME_UUID | LAST_TAG)
        of_tag, count = np.arange(1, width), copies[:, None]
        expected = np.where(of_tag == count - 1, SAME_UUID | LAST_TAG, SAME_UUID)
        usual = ((others == expected) | (of_tag >= count)).all(axis=1)
        right: Mask = usual & (flags & SAME_UUID == 0) & ((flags & LAST_TAG != 0) == (copies == 1))
        return right

    def _sums_are_right(
        self, blocks: list[memoryview], first: Integers, last: Integers, heads: npt.NDArray[np.uint32]
    ) -> Mask:
        """Whether descriptor and commit have their checksums, in which the checksum itself counts as 0."""
        size, seed = self._layout.block_bytes, self._layout.seed ^ _ALL_ONES
        tail = size - TAIL_BYTES
        tails = np.frombuffer(b"".join([blocks[place][tail:] for place in first.tolist()]), ">u4").astype(np.uint32)
        sums = heads[last, _SUM_WORD].astype(np.uint32)
        of_first = np.array([library.crc32c(blocks[place], seed) for place in first.tolist()], np.uint32)
        of_last = np.array([library.crc32c(blocks[place], seed) for place in last.tolist()], np.uint32)
        right = tails ^ _share(tails, size, tail) == of_first ^ np.uint32(_ALL_ONES)
        both: Mask = right & (sums ^ _share(sums, size, COMMIT_SUM_OFFSET) == of_last ^ np.uint32(_ALL_ONES))
        return both

    def _follow(
        self,
        first: Integers,
        last: Integers,
        numbers: Integers,
        indices: Integers,
        copies: Integers,
        good: Mask,
    ) -> Mask:
        """Of each but the last, whether the next one is the one behind it."""
        start, size = self._layout.first_block, self._layout.last_block - self._layout.first_block
        behind = start + (indices - start + copies + 2) % size
        is_due = (indices[1:] == behind[:-1]) & (numbers[1:] == (numbers[:-1] + 1) % NUMBERS)
        follows: Mask = (first[1:] == last[:-1] + 1) & is_due & good[:-1] & good[1:]
        return follows


def _share(sums: Words, block_bytes: int, place: int) -> Words:
    """The share of these checksums, at their place, in the checksum of a block: CRCs are linear, so that it can be taken out."""
    tables = _tables(block_bytes, place)
    share: Words = tables[0][sums >> np.uint32(24)]
    for byte in range(1, _WORD):
        share = share ^ tables[byte][sums >> np.uint32(24 - 8 * byte) & np.uint32(0xFF)]
    return share


@lru_cache
def _tables(block_bytes: int, place: int) -> list[Words]:
    """For each of four bytes at a place: the checksum, begun with 0, of a block of zeros with one value in that byte."""
    tables = []
    for byte in range(_WORD):
        zeros = bytes(block_bytes - place - byte - 1)
        bits = [crc32c(0, bytes((1 << bit,)) + zeros) for bit in range(8)]
        table = [0] * 256
        for value in range(256):
            for bit in range(8):
                table[value] ^= bits[bit] * (value >> bit & 1)
        tables.append(np.array(table, np.uint32))
    return tables
