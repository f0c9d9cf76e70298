"""The log of a file system, followed in the captured writes to its volume, in the order in which the kernel submitted them.

Only writes to the log, and to what tells where the log is, are looked at; all others cost one search per batch. Nothing
raises, whatever is written: a log that cannot be followed has a ``problem``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import cast

import numpy as np

from pydbt.core.blocks.runs import Integers
from pydbt.core.tracking.capture_record import Operation, RecordFlag, RecordKind, Records
from pydbt.core.transactions.captured_blocks import CapturedBlocks, Payload
from pydbt.core.transactions.jbd2_log import Jbd2Log
from pydbt.core.transactions.log_place import LogPlace
from pydbt.core.transactions.transaction import JournalTransaction
from pydbt.core.transactions.whole_transactions import EndedAt
from pydbt.core.transactions.xfs_batch import MAX_ROOM_BYTES, KeptForBatches, LogRuns, WholeRecords
from pydbt.core.transactions.xfs_log import XfsLog
from pydbt.core.units import MIB, SECTOR_BYTES, Buffer

NO_FOOTING = "the log was joined in its middle: it is understood behind its next commit"
_AT_ONCE = 2048
"""Writes to the log. A batch may have eight times as many, and what is made for each would take more room than what is kept."""
_WORTH_AT_ONCE = 10
"""Records of XFS: of fewer one after the other is as quick."""
_MUCH_KEPT_BYTES = MIB
"""With more than that of records that have come in part or wait for others, there is no room for more of them at once."""
_UNSEEN = "its journal's superblock was perhaps written unseen, and is read again"
_NO_DATA = "writes to the log came without their data"


@dataclass(slots=True)  # not frozen, which would make it three times as slow to make; nobody changes one
class EndedTransaction:
    """A transaction that ended with the record at ``index`` of its batch, which is a write.

    ``runs``: what it consists of, (offset, length) in bytes of the volume, as many as the log has pieces there.
    ``ordinal``: counts all that ended in a run.
    """

    index: int
    transaction: JournalTransaction
    runs: tuple[tuple[int, int], ...]
    ordinal: int = 0


@dataclass(frozen=True, slots=True)
class ReadTransaction:
    """The newest whole transaction of the log, read from the disk before the end of a batch. ``log``: runs (offset, length) of
    the volume in bytes, where the log is. ``submitted_at``: when its commit was, by the monotonic clock; None where the log does
    not tell. ``ordinal``: of the last one told before that is not later than it; 0 for none."""

    transaction: JournalTransaction
    log: tuple[tuple[int, int], ...]
    submitted_at: float | None
    ordinal: int


class FollowedLog:
    """One log at its place. ``moved``: what tells the place was changed; it has to be found again. ``unseen``: a superblock of
    the journal was written, perhaps, and not seen: nothing is told before it was read from the disk. ``renewed_from``: the
    ordinal from which on they are of another log than those before; their numbers may begin again. ``goes_on``: it is the log
    that was followed before it."""

    def __init__(self, place: LogPlace, next_ordinal: int = 1, before: FollowedLog | None = None) -> None:
        """``before``: what was followed until now, perhaps the same log. NotUnderstood when it cannot be read from its place."""
        self.place, self.next_ordinal = place, next_ordinal
        self.moved = self.unseen = False
        goes_on = self.goes_on = before is not None and before._leads_to(place)
        self._parser: Jbd2Log | XfsLog = before._parser if before is not None and goes_on else place.parser()
        self.renewed_from: int = before.renewed_from if before is not None and goes_on else next_ordinal
        self._kept = KeptForBatches()
        self._layouts_before = self._parser.layouts
        # The log's extents and what is watched, in sectors and by their place on the volume; -1: watched, else offset in the log.
        regions, start = [], 0
        for offset, length in place.extents:
            regions.append((offset // SECTOR_BYTES, (offset + length) // SECTOR_BYTES, start))
            start += length
        sectors = {
            sector
            for offset, content in place.watched
            for sector in range(offset // SECTOR_BYTES, (offset + len(content) - 1) // SECTOR_BYTES + 1)
        }
        regions += [(sector, sector + 1, -1) for sector in sectors]
        regions.sort()
        self._regions = regions
        self._firsts = np.array([first for first, _, _ in regions], np.int64)
        self._ends = np.array([end for _, end, _ in regions], np.int64)

    @property
    def logs_begun(self) -> int:
        """Counts the logs that its parser has seen begin: one in the place of another one among them."""
        return self._parser.layouts

    def _leads_to(self, place: LogPlace) -> bool:
        """Whether its parser may go on at this place. A file system that was made since, with a journal of the same layout, it
        has seen begin in the stream, or not at all."""
        seen = place.made_at == self.place.made_at or self._parser.layouts != self._layouts_before
        return self.place.is_same_log(place) and seen and not self.is_behind(place)

    @property
    def problem(self) -> str:
        """Why no transaction can be told now, as the end of a sentence; empty when they can."""
        if self.unseen:
            return _UNSEEN
        if self._parser.problem:
            return self._parser.problem
        return "" if self._parser.has_footing else NO_FOOTING

    def lost(self, reason: str) -> list[JournalTransaction]:
        """Writes that may have gone to the log were not captured: the transactions that are abandoned by it."""
        self.moved = True
        self._note_unseen()
        return self._parser.lost(reason)

    def _note_unseen(self) -> None:
        if isinstance(self._parser, Jbd2Log):
            self.unseen = self.moved = True

    def is_behind(self, place: LogPlace) -> bool:
        """Whether this has to be begun anew with what was found at the same place."""
        return self.unseen or (isinstance(self._parser, Jbd2Log) and self._parser.is_behind(place.head))

    def captured(self, records: Records, payload: Payload) -> list[EndedTransaction]:
        """A batch of capture records: the transactions that ended in it."""
        places, regions = self._touching(records)
        ended: list[EndedTransaction] = []
        if not len(places):
            return ended
        for first, end in pairwise(_cuts(places)):
            ended += self._captured(records, places[first:end], regions[first:end], payload)
        return ended

    def _captured(
        self, records: Records, places: Integers, regions: Integers, payload: Payload
    ) -> list[EndedTransaction]:
        touching = records.take(places)  # as ``records[places]``, which copies structures field by field
        carries = (touching["data"] != 0) & (touching["flags"] & RecordFlag.NO_PAYLOAD == 0)
        carries &= touching["op"] == Operation.WRITE
        if carries.all() and not self.unseen:
            is_xfs = isinstance(self._parser, XfsLog)
            quick = self._records if is_xfs and len(places) >= _WORTH_AT_ONCE else self._plain
            if (ended := quick(touching, places, regions, payload)) is not None:
                return ended
        pieces = iter(payload(touching.compress(carries)))
        ended = []
        columns = (touching["sector"], touching["sectors"], carries, places, regions)
        for sector, sectors, has_data, index, region in zip(*(one.tolist() for one in columns), strict=True):
            whole = _whole(pieces, sectors * SECTOR_BYTES) if has_data else None
            first, layouts = self.next_ordinal, self._parser.layouts
            ended += [self._ended(index, one) for one in self._take(sector, sector + sectors, whole, region)]
            if self._parser.layouts != layouts:
                self.renewed_from = first
        return ended

    def _ended(self, index: int, transaction: JournalTransaction) -> EndedTransaction:
        ordinal = self.next_ordinal
        self.next_ordinal = ordinal + 1
        return EndedTransaction(index, transaction, self._runs(transaction), ordinal)

    def _ended_at(self, places: Integers, found: list[EndedAt]) -> list[EndedTransaction]:
        """As ``_ended`` of each, all in one step."""
        if not found:
            return []
        at, transactions, runs = zip(*found, strict=True)
        return self._ended_together(places, at, transactions, runs)

    def _ended_together(
        self,
        places: Integers,
        at: Sequence[int],
        transactions: Sequence[JournalTransaction],
        runs: Sequence[LogRuns | None],
    ) -> list[EndedTransaction]:
        first, self.next_ordinal = self.next_ordinal, self.next_ordinal + len(at)
        if None in runs:
            runs = [one or self._runs(of) for one, of in zip(runs, transactions, strict=True)]
        known = cast(Sequence[LogRuns], runs)
        return list(map(EndedTransaction, places.take(at).tolist(), transactions, known, count(first)))

    def _plain(
        self, touching: Records, places: Integers, regions: Integers, payload: Payload
    ) -> list[EndedTransaction] | None:
        """The quick way for what a journal of ext4 mostly is: whole blocks in one extent. None when it is anything else.

        jbd2 waits for the copies before it submits a commit, and for that before anything else. So the control blocks are where
        something else stands before in the batch, most likely: a completion.
        """
        region = int(regions[0])
        first, stop, log_offset = self._regions[region]
        if not isinstance(self._parser, Jbd2Log) or log_offset < 0 or (regions != region).any():
            return None
        block_bytes, count = self._parser.plain_blocks
        if (
            not block_bytes
            or (touching["sectors"] != block_bytes // SECTOR_BYTES).any()
            or (touching["pieces"] > 1).any()
        ):
            return None
        sectors = touching["sector"].astype(np.int64)
        begin_bytes = first * SECTOR_BYTES - log_offset
        indices, rest = np.divmod(sectors * SECTOR_BYTES - begin_bytes, block_bytes)
        if (
            rest.any()
            or indices.min() < 1
            or indices.max() >= count
            or sectors.max() + block_bytes // SECTOR_BYTES > stop
        ):
            return None
        blocks = CapturedBlocks(touching, payload, block_bytes)
        likely = np.append(0, np.flatnonzero(np.diff(places) != 1) + 1)
        ended = self._ended_at(places, self._parser.blocks_written(indices, likely, blocks, begin_bytes))
        if blocks.missing:
            ended += [self._ended(int(places[-1]), one) for one in self._parser.lost(_NO_DATA)]
        return ended

    def _records(
        self, touching: Records, places: Integers, regions: Integers, payload: Payload
    ) -> list[EndedTransaction] | None:
        """The quick way for what a log of XFS mostly is: whole records in one write each. None for writes beyond the log."""
        parser, region = self._parser, int(regions[0])
        first, stop, log_offset = self._regions[region]
        sectors, counts = touching["sector"].astype(np.int64), touching["sectors"].astype(np.int64)
        if not isinstance(parser, XfsLog) or log_offset or (regions != region).any() or sectors.min() < first:
            return None
        if (sectors + counts > stop).any():
            return None
        if parser.kept_bytes > _MUCH_KEPT_BYTES:
            self._kept.clear()
            return None
        pieces = payload(touching)
        lengths = (counts * SECTOR_BYTES).tolist()
        if list(map(len, pieces)) == lengths:
            writes: list[Buffer] = list(pieces)
        else:
            left = iter(pieces)
            found = [_whole(left, length) for length in lengths]
            writes = [one for one in found if one is not None]
            if len(writes) < len(found):
                return None
        ended: list[EndedTransaction] = []
        begin_bytes = first * SECTOR_BYTES
        for low, high in pairwise(_near(counts)):
            records = WholeRecords(
                parser.volume, sectors[low:high] - first, counts[low:high], writes[low:high], self._kept
            )
            place, count = 0, high - low
            while place < count:
                behind, told = parser.records_written(records, place, begin_bytes)
                if told.places:
                    ended += self._ended_together(places[low:high], told.places, told.transactions, told.runs)
                if behind == place:
                    at, ordinal, layouts = low + place, self.next_ordinal, parser.layouts
                    found_here = parser.written(int(sectors[at] - first) * SECTOR_BYTES, writes[at])
                    ended += [self._ended(int(places[at]), one) for one in found_here]
                    if parser.layouts != layouts:
                        self.renewed_from = ordinal
                    behind += 1
                place = behind
        return ended

    def _touching(self, records: Records) -> tuple[Integers, Integers]:
        """Which records write to a region, and the first region that each writes to."""
        submitted = np.flatnonzero((records["kind"] == RecordKind.SUBMIT) & (records["sectors"] > 0))
        sectors = records["sector"].take(submitted).astype(np.int64)
        ends = sectors + records["sectors"].take(submitted)
        region = np.searchsorted(self._ends, sectors, side="right")
        inside = region < len(self._firsts)
        inside &= self._firsts.take(region, mode="clip") < ends
        return submitted[inside], region[inside]

    def _take(self, sector: int, end: int, data: Buffer | None, region: int) -> list[JournalTransaction]:
        """One write, in every region that it touches."""
        ended: list[JournalTransaction] = []
        while region < len(self._regions):
            first, stop, log_offset = self._regions[region]
            if first >= end:
                break
            low, high = max(first, sector), min(stop, end)
            if log_offset < 0:
                self._look(sector, end, data)
            elif data is None:
                ended += self._parser.lost(_NO_DATA)
                if log_offset == 0 and low == first:
                    self._note_unseen()
            elif self.unseen:
                pass
            else:
                part = data if (low, high) == (sector, end) else _part(data, low - sector, high - sector)
                ended += self._parser.written(log_offset + (low - first) * SECTOR_BYTES, part)
            region += 1
        return ended

    def _look(self, sector: int, end: int, data: Buffer | None) -> None:
        """Whether a write changes what tells where the log is."""
        low, high = sector * SECTOR_BYTES, end * SECTOR_BYTES
        for offset, content in self.place.watched:
            first, last = max(low, offset), min(high, offset + len(content))
            if first < last and (
                data is None
                or bytes(memoryview(data)[first - low : last - low]) != content[first - offset : last - offset]
            ):
                self.moved = True
                return

    def _runs(self, transaction: JournalTransaction) -> tuple[tuple[int, int], ...]:
        extents = self.place.extents
        if len(extents) == 1:
            return self._parser.runs_of(transaction, extents[0][0])
        parts = (self.place.on_volume(*run) for run in self._parser.runs_of(transaction))
        return tuple(one for part in parts for one in part)


def _cuts(places: Integers) -> list[int]:
    """Where to cut records at these places of a batch, so that no part is above ``_AT_ONCE``: where jbd2 has waited, if it has.

    It waits before each commit and behind it, so that every second place at which it has is most likely between transactions."""
    cuts, count = [0], len(places)
    if count > _AT_ONCE:
        waited = np.flatnonzero(np.diff(places) != 1) + 1
        while count - cuts[-1] > _AT_ONCE:
            near = waited[(waited > cuts[-1]) & (waited <= cuts[-1] + _AT_ONCE)]
            cuts.append(int(near[1::2][-1]) if len(near) > 1 else cuts[-1] + _AT_ONCE)
    return [*cuts, count]


def _near(counts: Integers) -> list[int]:
    """Where to cut writes of these lengths in sectors, so that no part is above ``MAX_ROOM_BYTES``, unless it is one write."""
    ends, cuts = np.cumsum(counts), [0]
    while cuts[-1] < len(counts):
        before = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(
            max(cuts[-1] + 1, int(np.searchsorted(ends, before + MAX_ROOM_BYTES // SECTOR_BYTES, side="right")))
        )
    return cuts


def _part(data: Buffer, first: int, end: int) -> memoryview:
    return memoryview(data)[first * SECTOR_BYTES : end * SECTOR_BYTES]


def _whole(pieces: Iterator[memoryview], length_bytes: int) -> Buffer | None:
    """The data of one write, of as many pieces as it has; None when they do not make it up."""
    found: list[memoryview] = []
    left = length_bytes
    for piece in pieces:
        found.append(piece)
        left -= len(piece)
        if left <= 0:
            break
    if left:
        return None
    return found[0] if len(found) == 1 else b"".join(found)
