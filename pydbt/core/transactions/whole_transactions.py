"""Transactions of a jbd2 journal that stand whole in a batch of its blocks, found all at once: the quick way of ``Jbd2Log``.

Each has one descriptor block, whose tags are of version 3 as the kernel writes them, and its blocks and its commit stand behind
it. The copies need not be looked at: how many there are is in the descriptor block. What is anything else is left to the way that
looks at block after block; both tell the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat

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
from pydbt.core.transactions.transaction import (
    NOTHING_NAMED,
    JournalTransaction,
    RunsOfTags,
    TransactionState,
    Words,
)

NUMBERS = 1 << 32
NO_TIME_BEFORE = 1 << 62
"""A commit time beyond it is none."""
_ALL_ONES = 0xFFFFFFFF
_NANOSECONDS = 1_000_000_000
_HEAD_BYTES = 64
_WORD = 4
_SUM_WORD, _TIME_WORD = COMMIT_SUM_OFFSET // _WORD, COMMIT_TIME_OFFSET // _WORD
# Where the flags of the first tag are, those of the second, and those of the one behind it.
_FIRST_FLAGS_WORD, _FLAGS_WORD, _WORDS_PER_TAG = (
    HEADER_BYTES // _WORD + 1,
    FIRST_TAG_END // _WORD + 1,
    TAG_BYTES // _WORD,
)
_TAIL = struct.Struct(">I")

EndedAt = tuple[int, JournalTransaction, tuple[tuple[int, int], ...] | None]
"""A transaction with the place of the block that ended it, and the runs (offset, length) of the volume that it consists of where
they are known."""


class WholeTransactions:
    """Of blocks at these ``places`` of the journal, in the order in which they were written.

    ``at``: where in that order those are that may be control blocks, and ``blocks`` is what these are.
    """

    def __init__(self, layout: JournalSuperblock, places: Integers, at: Integers, blocks: Sequence[memoryview]) -> None:
        self._layout = layout
        self._at: dict[int, int] = {}  # place of a descriptor block -> which one it is
        if not blocks:
            return
        heads = np.frombuffer(b"".join([block[:_HEAD_BYTES] for block in blocks]), ">u4")
        heads = heads.reshape(-1, _HEAD_BYTES // _WORD)
        control = np.flatnonzero(heads[:, 0] == JBD2_MAGIC)
        kinds = heads[control, 1]
        pairs = np.flatnonzero((kinds[:-1] == DESCRIPTOR) & (kinds[1:] == COMMIT))
        rows, rows_last = control[pairs], control[pairs + 1]
        copies = at[rows_last] - at[rows] - 1
        breaks = np.append(0, np.cumsum(places[1:] != places[:-1] + 1))
        good = (copies >= 1) & (copies <= _most_tags(layout)) & (heads[rows, 2] == heads[rows_last, 2])
        good &= breaks[at[rows]] == breaks[at[rows_last]]
        rows, rows_last, copies = rows[good], rows_last[good], copies[good]
        if not rows.size:
            return
        first, last, numbers = at[rows], at[rows_last], heads[rows, 2].astype(np.int64)
        descriptors, commits = ([blocks[row] for row in of.tolist()] for of in (rows, rows_last))
        sums = heads[rows_last, _SUM_WORD].astype(np.uint32)
        good = self._tags_are_usual(descriptors, copies) & self._sums_are_right(descriptors, commits, sums)
        self._columns = (last, numbers, places[first], copies, _times_ns(heads[rows_last, _TIME_WORD : _TIME_WORD + 3]))
        self._good = good
        self._chain_ends = np.append(np.flatnonzero(~self._follow(first, good)), len(first) - 1)
        self._at = {place: pair for pair, place in enumerate(first.tolist())}

    def from_here(self, place: int, number: int, index: int, begin_bytes: int) -> list[EndedAt]:
        """Those from this place of the batch on, if the one with this number begins there, at this block of the journal, which
        begins at ``begin_bytes`` of the volume."""
        pair = self._at.get(place)
        if pair is None or not self._good[pair] or (self._columns[1][pair], self._columns[2][pair]) != (number, index):
            return []
        behind = int(self._chain_ends[np.searchsorted(self._chain_ends, pair)]) + 1
        last, numbers, indices, copies, times = [column[pair:behind] for column in self._columns]
        each, first, counts = numbers.tolist(), indices.tolist(), copies + 2
        size, wide = self._layout.block_bytes, bool(self._layout.incompat & WIDE)
        named = map(RunsOfTags, self._tags[pair:behind], copies.tolist(), repeat(wide), repeat(size))
        found = map(
            JournalTransaction, map(str, each), each, repeat(TransactionState.COMMITTED),
            [time_ns or None for time_ns in times.tolist()], first, counts.tolist(), each, named, repeat(NOTHING_NAMED),
        )  # fmt: skip
        runs = zip(zip((indices * size + begin_bytes).tolist(), (counts * size).tolist(), strict=True))
        return list(zip(last.tolist(), found, runs, strict=True))

    def _tags_are_usual(self, descriptors: list[memoryview], copies: Integers) -> Mask:
        """Whether a descriptor names as many blocks as stand behind it, in tags as ``JournalSuperblock.tags`` finds quickly."""
        ends = FIRST_TAG_END + TAG_BYTES * (copies - 1)
        self._tags = [block[:end].tobytes() for block, end in zip(descriptors, ends.tolist(), strict=True)]
        words = np.frombuffer(b"".join(self._tags), ">u4")
        starts = (np.cumsum(ends) - ends) // _WORD
        flags = words[starts + _FIRST_FLAGS_WORD]
        # All tags but the first of each, one descriptor behind the other: of which it is, and which of its tags.
        whose = np.repeat(np.arange(len(copies)), copies - 1)
        of_tag = np.arange(len(whose)) - np.repeat(np.cumsum(copies - 1) - (copies - 1), copies - 1)
        others = words[starts[whose] + _FLAGS_WORD + of_tag * _WORDS_PER_TAG] & (SAME_UUID | LAST_TAG)
        expected = np.where(of_tag == copies[whose] - 2, SAME_UUID | LAST_TAG, SAME_UUID)
        usual = np.bincount(whose[others != expected], minlength=len(copies)) == 0
        right: Mask = usual & (flags & SAME_UUID == 0) & ((flags & LAST_TAG != 0) == (copies == 1))
        return right

    def _sums_are_right(self, descriptors: list[memoryview], commits: list[memoryview], sums: Words) -> Mask:
        """Whether descriptor and commit have their checksums, in which the checksum itself counts as 0."""
        size, seed = self._layout.block_bytes, self._layout.seed ^ _ALL_ONES
        tail = size - TAIL_BYTES
        tails = np.array([_TAIL.unpack_from(block, tail)[0] for block in descriptors], np.uint32)
        of_first = np.array([library.crc32c(block, seed) for block in descriptors], np.uint32)
        of_last = np.array([library.crc32c(block, seed) for block in commits], np.uint32)
        right = tails ^ _share(tails, size, tail) == of_first ^ np.uint32(_ALL_ONES)
        both: Mask = right & (sums ^ _share(sums, size, COMMIT_SUM_OFFSET) == of_last ^ np.uint32(_ALL_ONES))
        return both

    def _follow(self, first: Integers, good: Mask) -> Mask:
        """Of each but the last, whether the next one is the one behind it."""
        last, numbers, indices, copies, _ = self._columns
        start, size = self._layout.first_block, self._layout.last_block - self._layout.first_block
        behind = start + (indices - start + copies + 2) % size
        is_due = (indices[1:] == behind[:-1]) & (numbers[1:] == (numbers[:-1] + 1) % NUMBERS)
        follows: Mask = (first[1:] == last[:-1] + 1) & is_due & good[:-1] & good[1:]
        return follows


def _most_tags(layout: JournalSuperblock) -> int:
    return (layout.block_bytes - TAIL_BYTES - FIRST_TAG_END) // TAG_BYTES + 1


def _times_ns(words: npt.NDArray[np.uint32]) -> Integers:
    """Of commits, by the halves of their seconds and their nanoseconds; 0 for none."""
    seconds = words[:, 0].astype(np.uint64) << np.uint64(32) | words[:, 1]
    near = np.minimum(seconds, NO_TIME_BEFORE // _NANOSECONDS).astype(np.int64)
    times = near * _NANOSECONDS + words[:, 2]
    return np.where((seconds == near.astype(np.uint64)) & (times < NO_TIME_BEFORE), times, 0)


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
