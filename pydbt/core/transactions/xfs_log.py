"""The transactions of an XFS log (checkpoints), from the writes to it in the order in which the kernel submitted them.

A record counts when all before it are there: records may be submitted out of order, and recovery stops at the first hole. A
checkpoint lies in one record or in several and may share them with others; it is complete when its commit operation is in a
record that counts, and its start operation was seen. XFS logs no time. A log that is joined in the middle begins with the
first whole record; what began before is left out.

Any bytes may come; nothing raises, and what is kept has a bound. Sources: fs/xfs/libxfs/xfs_log_format.h,
fs/xfs/xfs_log_recover.c (xlog_recover_process_data and what it calls), fs/xfs/xfs_log_cil.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import pairwise

from pydbt.core.transactions.transaction import (
    JournalTransaction,
    TransactionState,
)
from pydbt.core.transactions.xfs_batch import WholeRecords
from pydbt.core.transactions.xfs_items import FORMAT_BYTES, LoggedItems, RunsOfLoggedItems
from pydbt.core.transactions.xfs_operations import (
    COMMIT,
    CONTINUED,
    START,
    TRANSACTION_HEADER_BYTES,
    TRANSACTION_MAGIC,
    UNMOUNT,
    Operations,
    operations_of,
)
from pydbt.core.transactions.xfs_records import XfsRecord, XfsRecords
from pydbt.core.transactions.xfs_volume import XfsVolume
from pydbt.core.units import SECTOR_BYTES, Buffer

_MAX_OPEN = 64  # the kernel has a few checkpoints at once
_MAX_WAITING = 16  # the kernel has 8 buffers
_MAX_WAITING_BYTES = 5 << 18
_MAX_GAPS = 64
_MAX_UNREAD_BYTES = 4 << 20  # twice what 8 buffers of 256 KiB have
_NO_RECORD = "no record of this file system is whole in it"
_FIRST_LSN = 1 << 32  # XLOG_INIT_CYCLE, sector 0: mkfs writes it
_MAX_APART_SECTORS = 8192  # twice what 8 buffers of 256 KiB have


@dataclass(slots=True)
class _Checkpoint:
    """One that was started: the part of the item that is being read, and what was named."""

    lsn: int
    last_lsn: int
    first_lsn: int  # of what it consists of: its start, or an earlier record that ended no checkpoint
    sectors: int
    items: LoggedItems
    header: bytes = b""
    format: bytes = b""  # the first bytes of the first region of the item
    regions_left: int = 0
    in_format: bool = False
    damage: str = ""


_MAGIC = {order: struct.pack(f"{order}I", TRANSACTION_MAGIC) for order in "<>"}


@dataclass(slots=True)
class EndedInBatch:
    """Transactions, with the place of the write that ended each, and the runs (offset, length) of the volume that it consists
    of where they are known."""

    places: list[int] = field(default_factory=list)
    transactions: list[JournalTransaction] = field(default_factory=list)
    runs: list[tuple[tuple[int, int], ...] | None] = field(default_factory=list)

    def add(self, place: int, one: JournalTransaction) -> None:
        self.places.append(place)
        self.transactions.append(one)
        self.runs.append(None)


class XfsLog:
    """Feed it ``written`` with every write to the log; it returns the checkpoints that ended with it.

    ``tail_lsn`` is that of the newest record that counts: recovery begins there. ``unmounted`` tells whether the newest record
    is that of an unmount, behind which nothing needs to be replayed. ``gaps``: the log sequence numbers of the first damaged
    or missing records, in their order. ``follows_stream``: what comes is written now, each record once; so one that goes back
    begins another log, in the place of one with the same identity. ``layouts`` counts the logs that were begun.
    """

    def __init__(self, volume: XfsVolume, *, follows_stream: bool = False) -> None:
        self.layouts = 0
        self._follows_stream = follows_stream
        self.tail_lsn = 0
        self.unmounted = False
        self.gaps: list[int] = []
        self.volume = volume
        self._sectors = volume.log_bytes // SECTOR_BYTES
        self._records = XfsRecords(volume.log_bytes, volume.uuid)
        self._unread_bytes, self._why = 0, _NO_RECORD
        self._next: int | None = None  # the log sequence number of the next record
        self._told_behind: int | None = None  # where the record behind the last one that ended a checkpoint begins
        self._newest = 0  # that of the newest one which counted
        self._waiting: dict[int, XfsRecord] = {}
        self._open: dict[int, _Checkpoint] = {}

    @property
    def problem(self) -> str:
        """Why the log is not understood, as the end of a sentence: as much was written as all buffers hold, and no record of that
        counts. Empty otherwise."""
        return (
            f"the writes to its log are not understood: {self._why}" if self._unread_bytes > _MAX_UNREAD_BYTES else ""
        )

    @property
    def open(self) -> list[JournalTransaction]:
        """The checkpoints whose commit has not come."""
        return [self._ended(one, one.last_lsn, TransactionState.OPEN) for one in self._open.values()]

    def written(self, offset_bytes: int, data: Buffer) -> list[JournalTransaction]:
        """A write of ``data`` at ``offset_bytes`` of the log: the checkpoints that are complete or abandoned by it."""
        ended: list[JournalTransaction] = []
        self._unread_bytes += len(data)
        whole = self._records.at_once(offset_bytes, data)
        for record in (whole,) if whole is not None else self._records.written(offset_bytes, data):
            self._why = record.problem or _NO_RECORD
            if not record.problem:
                self._unread_bytes = 0
            if self._begins_again(record):
                ended += self._begin_again()
            if self._next is None:
                self._next = record.lsn
            if record.lsn < self._next:
                continue  # it is read again, or left over
            self._waiting[record.lsn] = record
            ended += self._take_in_order()
            if len(self._waiting) > _MAX_WAITING or self._waiting_bytes() > _MAX_WAITING_BYTES:
                self._add_gap(self._next)
                ended += self._abandon("writes of the log before later ones did not come")
                self._next = min(self._waiting)
                ended += self._take_in_order()
        return ended

    def records_written(self, records: WholeRecords, place: int, begin_bytes: int = 0) -> tuple[int, EndedInBatch]:
        """Whole records of a batch from a place on, as far as the quick way understands them: the place behind the last of
        them, and the transactions that ended. What stands there has to be ``written`` where the place is the same.

        The log begins at ``begin_bytes`` of the volume.
        """
        ended = EndedInBatch()
        if self._waiting or not records.good[place] or records.lsns[place] != self._next:
            return place, ended
        end = records.chain_end(place)
        sector, count = int(records.firsts[place]), int(records.counts[place:end].sum())
        if self._records.is_awaited(sector, count):
            return place, ended
        self._unread_bytes, self._why = 0, _NO_RECORD
        while place < end:
            stop = records.checkpoints_end(place, end)
            if stop > place and not self._meets_open(records.numbers(place, stop)):
                self.unmounted = False
                self._checkpoints(records, place, stop, begin_bytes, ended)
            else:
                stop, record = place + 1, records.record(place)
                self.tail_lsn, self.unmounted = record.tail_lsn, False
                for one in self._take(record, records.operations(place)):
                    ended.add(place, one)
            place = stop
        self.tail_lsn, self._newest = int(records.tails[end - 1]), int(records.lsns[end - 1])
        self._next = int(records.behind[end - 1])
        return end, ended

    def _meets_open(self, numbers: list[int]) -> bool:
        """Whether the start of one of these checkpoints ends one that is open."""
        return len(self._open) >= _MAX_OPEN or not self._open.keys().isdisjoint(numbers)

    def _checkpoints(self, records: WholeRecords, place: int, end: int, begin_bytes: int, ended: EndedInBatch) -> None:
        """Checkpoints that lie in one record each, and follow one another."""
        found, runs = records.transactions(place, end, begin_bytes)
        behind, self._told_behind = self._told_behind, int(records.behind[end - 1])
        first = found[0]
        reached = self._reached_back(behind, first.number, first.number, first.block_count)
        ended.places += range(place, end)
        ended.runs += runs
        if reached is not None:
            lsn, sectors = reached
            found[0] = first._replace(first_block=lsn & 0xFFFFFFFF, block_count=sectors)
            ended.runs[-len(found)] = None
        ended.transactions += found

    def _begins_again(self, record: XfsRecord) -> bool:
        """Log sequence numbers only rise in one log, also when xfs_repair empties it. Which of them is the first of all
        (libxfs_log_clear) is known; and the kernel's buffers are never farther apart than this."""
        if not self._follows_stream or record.problem or record.lsn >= self._newest:
            return False
        return record.lsn == _FIRST_LSN or self._distance(record.lsn, self._newest) > _MAX_APART_SECTORS

    def _begin_again(self) -> list[JournalTransaction]:
        self._waiting.clear()
        self._next, self._newest, self._told_behind = None, 0, None
        self.layouts += 1
        return self._abandon("the log was made anew")

    def lost(self, reason: str) -> list[JournalTransaction]:
        """Writes to the log did not come: what is open will not be complete, and the next whole record is the first."""
        self._records.clear()
        self._waiting.clear()
        self._next = self._told_behind = None
        self._unread_bytes, self._why = 0, _NO_RECORD
        return self._abandon(reason)

    @property
    def has_footing(self) -> bool:
        """Whether it is known where the next record is to begin."""
        return self._next is not None

    def runs_of(self, ended: JournalTransaction, begin_bytes: int = 0) -> tuple[tuple[int, int], ...]:
        """The runs (offset, length) of the log, in bytes, from a checkpoint's start to its end, with what lies between; in a
        stream from behind the record that ended the checkpoint before it, if that is earlier.

        The log begins at ``begin_bytes``.
        """
        if not ended.block_count:
            return ()
        first, count = ended.first_block % self._sectors, min(ended.block_count, self._sectors)
        inside = min(count, self._sectors - first)
        head = begin_bytes + first * SECTOR_BYTES, inside * SECTOR_BYTES
        return (head,) if count == inside else (head, (begin_bytes, (count - inside) * SECTOR_BYTES))

    def _add_gap(self, lsn: int) -> None:
        if len(self.gaps) < _MAX_GAPS:
            self.gaps.append(lsn)

    @property
    def kept_bytes(self) -> int:
        """Of records that have come in part, or wait for those before them."""
        return self._records.kept_bytes + (self._waiting_bytes() if self._waiting else 0)

    def _waiting_bytes(self) -> int:
        return sum(len(record.data) for record in self._waiting.values())

    def _take_in_order(self) -> list[JournalTransaction]:
        ended: list[JournalTransaction] = []
        while self._next is not None and self._next in self._waiting:
            record = self._waiting.pop(self._next)
            self._newest = record.lsn
            if record.problem:
                self._add_gap(record.lsn)
                ended += self._abandon(record.problem)
            else:
                self.tail_lsn, self.unmounted = record.tail_lsn, False
                ended += self._take(record)
            self._next = self._behind(record)
        return ended

    def _distance(self, lsn: int, later: int) -> int:
        """Sectors of the log from one record to another."""
        cycles = (later >> 32) - (lsn >> 32)
        return min(cycles * self._sectors + (later & 0xFFFFFFFF) - (lsn & 0xFFFFFFFF), self._sectors)

    def _behind(self, record: XfsRecord) -> int:
        cycle, sector = record.lsn >> 32, (record.lsn & 0xFFFFFFFF) + record.sector_count
        wraps, sector = divmod(sector, self._sectors)
        return (cycle + wraps) << 32 | sector

    # --- the operations of a record ---------------------------------------------------------------------------
    def _take(self, record: XfsRecord, operations: Operations | None = None) -> list[JournalTransaction]:
        ended: list[JournalTransaction] = []
        data = memoryview(record.data)
        found = operations_of(data, record.operations) if operations is None else operations
        for first, end in pairwise(found.bounds):
            flags, number = found.flags[first], found.numbers[first]
            if flags & UNMOUNT:
                self.unmounted = True
                ended += self._abandon("the file system was unmounted")
            elif flags & START:
                ended += self._start(number, record)
            elif number in self._open:
                one = self._open[number]
                if one.last_lsn != record.lsn:
                    one.last_lsn = record.lsn
                    one.sectors = self._distance(one.lsn, record.lsn) + record.sector_count
                if flags & COMMIT:
                    ended.append(self._commit(number, record))
                elif flags:
                    place = found.places[first]
                    self._region(one, data[place : place + found.lengths[first]], flags, record.order)
                else:
                    self._regions(one, record, found, first, end)
        if found.cut_off:
            ended += self._abandon(f"record {name_of_lsn(record.lsn)} of the log is cut off")
        return ended

    def _commit(self, number: int, record: XfsRecord) -> JournalTransaction:
        one = self._open.pop(number)
        self._end_region(one, record.order)
        if one.damage:
            return self._ended(one, record.lsn, TransactionState.ABANDONED)
        self._reach_back(one, record)
        return self._ended(one, record.lsn, TransactionState.COMMITTED)

    def _reach_back(self, one: _Checkpoint, record: XfsRecord) -> None:
        behind, self._told_behind = self._told_behind, self._behind(record)
        reached = self._reached_back(behind, one.lsn, record.lsn, record.sector_count)
        if reached is not None:
            one.first_lsn, one.sectors = reached

    def _reached_back(self, behind: int | None, start: int, last: int, sector_count: int) -> tuple[int, int] | None:
        """Recovery reaches a checkpoint only when all records before it have come to the disk, too: in a stream it needs those
        behind the last record that ended one, which belong to none that is told. Where these begin, and how many sectors there
        are from there on; None where there are none."""
        if not self._follows_stream or behind is None or behind >= start:
            return None
        return behind, self._distance(behind, last) + sector_count

    def _start(self, number: int, record: XfsRecord) -> list[JournalTransaction]:
        ended: list[JournalTransaction] = []
        before = self._open.pop(number, None)
        if before is None and len(self._open) >= _MAX_OPEN:
            before = self._open.pop(next(iter(self._open)))
        if before is not None:
            before.damage = "another one was started in its place"
            ended = [self._ended(before, before.last_lsn, TransactionState.ABANDONED)]
        self._open[number] = _Checkpoint(
            record.lsn, record.lsn, record.lsn, record.sector_count, LoggedItems(self.volume)
        )  # fmt: skip
        return ended

    def _regions(self, one: _Checkpoint, record: XfsRecord, found: Operations, first: int, end: int) -> None:
        """Regions of one checkpoint, each from its beginning on."""
        data, order, places, lengths = record.data, record.order, found.places, found.lengths
        while first < end and len(one.header) < TRANSACTION_HEADER_BYTES:
            place = places[first]
            self._region(one, data[place : place + min(lengths[first], TRANSACTION_HEADER_BYTES)], 0, order)
            first += 1
        if first == end:
            return
        self._end_region(one, order)
        at = first + one.regions_left
        while at < end:
            place, length = places[at], lengths[at]
            content = bytes(data[place : place + (length if length < FORMAT_BYTES else FORMAT_BYTES)])
            if at == end - 1:  # it may be continued
                one.format, one.in_format, at = content, True, end
                break
            at += self._item(one, content, order) or 1
        one.regions_left = max(0, at - end)

    def _region(self, one: _Checkpoint, region: Buffer, flags: int, order: str) -> None:
        """A region, or a part of one: ``CONTINUED`` marks all parts but the first."""
        if not flags & CONTINUED:
            self._end_region(one, order)
            if len(one.header) == TRANSACTION_HEADER_BYTES:
                one.in_format = one.regions_left == 0
                one.regions_left = max(0, one.regions_left - 1)
        if len(one.header) < TRANSACTION_HEADER_BYTES:
            one.header += bytes(region[: TRANSACTION_HEADER_BYTES - len(one.header)])
            if len(one.header) == TRANSACTION_HEADER_BYTES and one.header[:4] != _MAGIC[order]:
                one.damage = "it does not begin with the header of a transaction"
        elif one.in_format:
            one.format += bytes(region[: FORMAT_BYTES - len(one.format)])

    def _end_region(self, one: _Checkpoint, order: str) -> None:
        """The first region of an item is complete, if that was it."""
        if one.in_format:
            content, one.format, one.in_format = one.format, b"", False
            regions = self._item(one, content, order)
            if regions:
                one.regions_left = regions - 1

    @staticmethod
    def _item(one: _Checkpoint, content: bytes, order: str) -> int:
        """An item with this format: how many regions it has; 0 where it is damaged."""
        if len(content) < 4:
            one.damage = "an item of it is cut off"
            return 0
        regions = content[2] | content[3] << 8 if order == "<" else content[2] << 8 | content[3]
        if regions == 0:
            one.damage = "an item of it has no regions"
            return 0
        one.items.add(order, content)
        return regions

    def _abandon(self, reason: str) -> list[JournalTransaction]:
        ended = []
        for one in self._open.values():
            one.damage = one.damage or reason
            ended.append(self._ended(one, one.last_lsn, TransactionState.ABANDONED))
        self._open.clear()
        return ended

    @staticmethod
    def _ended(one: _Checkpoint, lsn: int, state: TransactionState) -> JournalTransaction:
        return JournalTransaction(
            name_of_lsn(lsn), lsn, state, None, one.first_lsn & 0xFFFFFFFF, one.sectors, one.lsn,
            RunsOfLoggedItems(one.items, revoked=False), RunsOfLoggedItems(one.items, revoked=True), one.damage,
        )  # fmt: skip


def name_of_lsn(lsn: int) -> str:
    """A log sequence number as people and ``xfs_logprint`` write it: cycle and sector of the log."""
    return f"{lsn >> 32}:{lsn & 0xFFFFFFFF}"
