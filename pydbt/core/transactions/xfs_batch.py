"""Records of an XFS log that stand whole in one write each, read all at once: the quick way of ``XfsLog``.

Headers, cycle numbers and operations are looked at by arrays over all records of a batch; of each record there is one checksum.
Most checkpoints lie in one record that has nothing else: these are found here, too. What is anything else is left to the way that
puts records together from sectors; both tell the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import crc32c as library
import numpy as np
from numpy.typing import NDArray

from pydbt.core.blocks.runs import Integers, Mask
from pydbt.core.transactions.transaction import (
    NOTHING_NAMED,
    JournalTransaction,
    TransactionState,
)
from pydbt.core.transactions.xfs_items import (
    BUFFER_BYTES,
    BUFFER_KIND,
    CANCELLED,
    FIRST_KIND,
    FORMAT_BYTES,
    LAST_KIND,
    Rows,
    RunsOfRows,
)
from pydbt.core.transactions.xfs_operations import (
    COMMIT,
    OPERATION_BYTES,
    OPERATION_MARK,
    START,
    TRANSACTION_HEADER_BYTES,
    TRANSACTION_MAGIC,
    Operations,
    operations_of,
)
from pydbt.core.transactions.xfs_records import (
    CYCLES_OFFSET,
    CYCLES_PER_HEADER,
    FORMAT_OFFSET,
    HEADER_COVERS_BYTES,
    HEADER_SUMMED_BYTES,
    MAX_RECORD_BYTES,
    MORE_CYCLES_OFFSET,
    MORE_SUMMED_BYTES,
    RECORD_MAGIC,
    SIZE_OFFSET,
    SUM_OFFSET,
    UUID_OFFSET,
    XfsRecord,
)
from pydbt.core.transactions.xfs_volume import XfsVolume
from pydbt.core.units import SECTOR_BYTES, Buffer

Words = NDArray[np.uint32]
_WORD = 4
_SECTOR_WORDS = SECTOR_BYTES // _WORD
# Of a header: magic, cycle, version, length, the log sequence numbers of record and tail, operations, byte order, size, identity.
_COLUMNS = np.array(
    [0, 1, 2, 3, 4, 5, 6, 7, 10, FORMAT_OFFSET // _WORD, SIZE_OFFSET // _WORD]
    + [UUID_OFFSET // _WORD + word for word in range(4)]
)
_SUM_WORD = SUM_OFFSET // _WORD
_CYCLES_WORD, _MORE_CYCLES_WORD = CYCLES_OFFSET // _WORD, MORE_CYCLES_OFFSET // _WORD
_LITTLE_ENDIAN = 1  # XLOG_FMT_LINUX_LE
_MARK_MASK = np.uint32(0xFFFF00FF)  # of the third word of an operation: all but its flags
_OPERATION_WORDS, _FORMAT_WORDS = OPERATION_BYTES // _WORD, FORMAT_BYTES // _WORD


class WholeRecords:
    """Writes to a log, each at a sector and of a number of sectors, in their order. ``good``: of each, whether it is a record as
    the kernel writes them, with the right checksum."""

    def __init__(self, volume: XfsVolume, firsts: Integers, counts: Integers, writes: Sequence[Buffer]) -> None:
        self._volume, self.firsts, self.counts = volume, firsts, counts
        self._content = bytearray().join(writes)
        self._words = words = np.frombuffer(self._content, "<u4")
        self._starts = np.cumsum(counts) - counts  # in sectors of the content
        self._owners = np.repeat(np.arange(len(counts)), counts)  # of each sector, the write that it is of
        heads = words.take(self._starts[:, None] * _SECTOR_WORDS + _COLUMNS)
        magic, cycle, version, length, high, low, tail_high, tail_low, count, order, size = (
            heads[:, :11].byteswap().astype(np.int64).T
        )
        self._lengths, self._operation_counts = length, count
        size = np.where(size == 0, HEADER_COVERS_BYTES, np.minimum(size, MAX_RECORD_BYTES))
        self._headers = -(-size // HEADER_COVERS_BYTES)
        self.lsns = high << 32 | low
        self.tails = tail_high << 32 | tail_low
        good = (magic == RECORD_MAGIC) & (high == cycle) & (low == firsts) & (cycle != RECORD_MAGIC)
        good &= ((version == 2) | (version == 3)) & (order == _LITTLE_ENDIAN)
        good &= (length > 0) & (length % SECTOR_BYTES == 0) & (length <= self._headers * HEADER_COVERS_BYTES)
        good &= self._headers + length // SECTOR_BYTES == counts
        good &= (heads[:, 11:] == np.frombuffer(volume.uuid, "<u4")).all(axis=1)
        wrong = words[::_SECTOR_WORDS] != np.repeat(heads[:, 1], counts)
        wrong[self._starts] = False
        good &= ~np.logical_or.reduceat(wrong, self._starts)
        self.good: Mask = good
        self._compare_sums()
        self._put_back()
        self._follow()
        self._find_operations()
        self._find_checkpoints()

    # --- records ----------------------------------------------------------------------------------------------
    def _compare_sums(self) -> None:
        """Of the header, in which the checksum itself counts as 0, and the data. Where the sum is that of another machine the
        other way decides."""
        content, rows = memoryview(self._content), np.flatnonzero(self.good)
        places = self._starts[rows] * SECTOR_BYTES
        at = places // _WORD + _SUM_WORD
        wanted = self._words.take(at)
        self._words[at] = 0
        begins, ends = places + self._headers[rows] * SECTOR_BYTES, places + self.counts[rows] * SECTOR_BYTES
        sum_of = library.crc32c
        heads = [sum_of(content[place : place + HEADER_SUMMED_BYTES]) for place in places.tolist()]
        for long in np.flatnonzero(self._lengths[rows] > HEADER_COVERS_BYTES).tolist():
            for header in range(1, -(-int(self._lengths[rows[long]]) // HEADER_COVERS_BYTES)):
                more = int(places[long]) + header * SECTOR_BYTES
                heads[long] = sum_of(content[more : more + MORE_SUMMED_BYTES], heads[long])
        found = [
            sum_of(content[begin:end], head)
            for head, begin, end in zip(heads, begins.tolist(), ends.tolist(), strict=True)
        ]
        self.good[rows[(wanted != np.array(found, np.uint32)) & (wanted != 0)]] = False

    def _put_back(self) -> None:
        """The first words of all sectors of data, out of the headers."""
        sectors = np.flatnonzero(self.good[self._owners])
        owners = self._owners[sectors]
        at = sectors - (self._starts + self._headers)[owners]  # which sector of the data
        sectors, owners, at = sectors[at >= 0], owners[at >= 0], at[at >= 0]
        header, within = np.divmod(at, CYCLES_PER_HEADER)
        first = np.where(header == 0, _CYCLES_WORD, _MORE_CYCLES_WORD)
        begin = self._starts[owners] + header
        self._words[sectors * _SECTOR_WORDS] = self._words.take(begin * _SECTOR_WORDS + first + within)

    def _follow(self) -> None:
        """Which records follow one another: each begins where the one before it ends."""
        log_sectors = self._volume.log_bytes // SECTOR_BYTES
        ends = self.firsts + self.counts
        self.behind = np.where(ends == log_sectors, (self.lsns >> 32) + 1 << 32, self.lsns + self.counts)
        follows = (self.behind[:-1] == self.lsns[1:]) & self.good[:-1] & self.good[1:]
        self._chain_ends = np.append(np.flatnonzero(~follows), len(follows)) + 1

    def chain_end(self, place: int) -> int:
        """The place behind the last of the good records that follow this one."""
        return int(self._chain_ends[np.searchsorted(self._chain_ends, place, side="right")])

    def record(self, place: int) -> XfsRecord:
        """One of the good ones."""
        begin = int(self._starts[place] + self._headers[place]) * SECTOR_BYTES
        return XfsRecord(
            int(self.lsns[place]), int(self.tails[place]), int(self.counts[place]), int(self._operation_counts[place]),
            "<", self._content[begin : begin + int(self._lengths[place])],
        )  # fmt: skip

    # --- operations -------------------------------------------------------------------------------------------
    def _find_operations(self) -> None:
        """Of records that have one checkpoint alone: each word that looks like the last one of an operation, with the number of
        the checkpoint before it. They are the operations when each is where the one before it ends, and there are as many."""
        words, count = self._words, len(self.good)
        begin = (self._starts + self._headers) * _SECTOR_WORDS
        end = begin + self._lengths // _WORD
        masked = words & _MARK_MASK
        at = np.flatnonzero(masked == OPERATION_MARK)
        del masked
        at = at[at >= _OPERATION_WORDS - 1] - (_OPERATION_WORDS - 1)
        owner = self._owners.take(at // _SECTOR_WORDS)
        first = np.minimum(begin, len(words) - 1)
        mine = self.good[owner] & (at >= begin[owner]) & (words.take(at) == words.take(first)[owner])
        self._at, owner = at[mine], owner[mine]
        self._lengths_of = words.take(self._at + 1).byteswap().astype(np.int64)
        self._flags = words.take(self._at + 2) >> 8 & 0xFF
        ends = self._at + _OPERATION_WORDS + self._lengths_of // _WORD
        following = np.append(self._at[1:], len(words))
        is_last = np.append(owner[1:] != owner[:-1], True)[: len(owner)]
        linked = np.where(is_last, ends <= end[owner], ends == following) & (self._lengths_of % _WORD == 0)
        self._owner = owner
        self._counts = np.bincount(owner, minlength=count)
        self._firsts_of = np.cumsum(self._counts) - self._counts
        known = self.good & (self._counts == self._operation_counts) & (self._counts > 0)
        known &= np.bincount(owner[~linked], minlength=count) == 0
        known[known] = self._at[self._firsts_of[known]] == begin[known]
        self._known: Mask = known

    def operations(self, place: int) -> Operations:
        """Of one of the good ones."""
        if not self._known[place]:
            record = self.record(place)
            return operations_of(record.data, record.operations)
        first = int(self._firsts_of[place])
        end = first + int(self._counts[place])
        at, flags = self._at[first:end], self._flags[first:end]
        begin = int(self._starts[place] + self._headers[place]) * SECTOR_BYTES
        changes = np.flatnonzero((flags[1:] != 0) | (flags[:-1] != 0)) + 1
        number = int(self._words[at[0]].byteswap())
        return Operations(
            [number] * (end - first), (at * _WORD + (OPERATION_BYTES - begin)).tolist(),
            self._lengths_of[first:end].tolist(), flags.tolist(), [0, *changes.tolist(), end - first],
        )  # fmt: skip

    # --- checkpoints ------------------------------------------------------------------------------------------
    def _find_checkpoints(self) -> None:
        """Which records have one whole checkpoint and nothing else, and the formats of its items."""
        words, owner, flags = self._words, self._owner, self._flags
        first, last = self._firsts_of, self._firsts_of + self._counts - 1
        whole = self._known & (self._counts > 2)
        most = max(0, len(owner) - 1)
        second = np.minimum(first + 1, most)
        if len(owner):
            whole &= (flags.take(first, mode="clip") == START) & (flags.take(last, mode="clip") == COMMIT)
            whole &= np.bincount(owner[flags != 0], minlength=len(whole)) == 2
            whole &= self._lengths_of[second] >= TRANSACTION_HEADER_BYTES
            whole &= words.take(self._at[second] + _OPERATION_WORDS, mode="clip") == TRANSACTION_MAGIC
        # The first region of each item tells the number of its regions, the first of which is the format of the next item.
        heads = words.take(self._at + _OPERATION_WORDS, mode="clip")
        kinds = heads & 0xFFFF
        index = np.arange(len(owner))
        formats = np.flatnonzero(
            whole[owner] & (kinds >= FIRST_KIND) & (kinds <= LAST_KIND) & (self._lengths_of >= _WORD)
            & (index > second[owner]) & (index < last[owner])
        )  # fmt: skip
        of = owner[formats]
        behind = formats + (heads[formats] >> 16)
        following = np.append(formats[1:], 0)[: len(formats)]
        is_last = np.append(of[1:] != of[:-1], True)[: len(of)]
        chained = np.where(is_last, behind >= last[of], behind == following) & (behind > formats)
        counts = np.bincount(of, minlength=len(whole))
        firsts = np.cumsum(counts) - counts
        whole &= np.bincount(of[~chained], minlength=len(whole)) == 0
        begins = np.where(counts > 0, formats.take(firsts, mode="clip") if len(formats) else 0, last)
        whole &= begins == first + 2
        self.is_checkpoint: Mask = whole
        self._keep_items(formats[whole[of]], np.where(whole, counts, 0))

    def _keep_items(self, formats: Integers, counts: Integers) -> None:
        rows: Rows = np.empty((len(formats), 1 + _FORMAT_WORDS), np.uint32)
        rows[:, 0] = np.minimum(self._lengths_of[formats], FORMAT_BYTES)
        begins = self._at[formats] + _OPERATION_WORDS
        rows[:, 1:] = self._words.take(begins[:, None] + np.arange(_FORMAT_WORDS), mode="clip")
        self._rows, self._rows_ends = rows, np.cumsum(counts)
        cancels = (rows[:, 1] & 0xFFFF == BUFFER_KIND) & (rows[:, 2] & CANCELLED != 0) & (rows[:, 0] >= BUFFER_BYTES)
        self._revokes = set(np.searchsorted(self._rows_ends, np.flatnonzero(cancels), side="right").tolist())

    def checkpoints_end(self, place: int, end: int) -> int:
        """The place behind the last of the checkpoints that follow one another from here on, and are before ``end``."""
        others = np.flatnonzero(~self.is_checkpoint[place:end])
        return place + int(others[0]) if len(others) else end

    def numbers(self, place: int, end: int) -> list[int]:
        """What the log calls these checkpoints, in its operations."""
        return self._words.take(self._at[self._firsts_of[place:end]]).byteswap().tolist()

    def transactions(self, place: int, end: int, begin_bytes: int) -> list[tuple[int, JournalTransaction, Any]]:
        """The checkpoints from one place to another, each with its place and its runs. The log begins at ``begin_bytes``."""
        chosen = slice(place, end)
        lsns, firsts, counts = self.lsns[chosen].tolist(), self.firsts[chosen].tolist(), self.counts[chosen].tolist()
        cycles = (self.lsns[chosen] >> 32).tolist()
        ends = self._rows_ends[chosen].tolist()
        before = [int(self._rows_ends[place - 1]) if place else 0, *ends]
        names = [f"{cycle}:{first}" for cycle, first in zip(cycles, firsts, strict=True)]
        named = map(RunsOfRows, repeat(self._rows), repeat(self._volume), before, ends)
        fields = zip(
            names, lsns, repeat(TransactionState.COMMITTED), repeat(None), firsts, counts, lsns, named,
            repeat(NOTHING_NAMED), repeat(""),
        )  # fmt: skip
        made = list(map(tuple.__new__, repeat(JournalTransaction), fields))
        for one in self._revokes:
            if place <= one < end:
                at = one - place
                revoked = RunsOfRows(self._rows, self._volume, before[at], ends[at], revoked=True)
                made[at] = made[at]._replace(revoked_parts=revoked)
        offsets = (begin_bytes + self.firsts[chosen] * SECTOR_BYTES).tolist()
        runs = zip(zip(offsets, (self.counts[chosen] * SECTOR_BYTES).tolist(), strict=True))
        return list(zip(range(place, end), made, runs, strict=True))
