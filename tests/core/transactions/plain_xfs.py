"""A plain reading of the XFS log, operation after operation: what ``XfsLog`` tells has to be the same.

It is as slow as it is simple: no arrays over several records, no names that are taken apart later.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pydbt.core.transactions.crc import crc32c
from pydbt.core.transactions.transaction import (
    NOTHING_NAMED,
    JournalTransaction,
    RunsOfTransaction,
    TransactionState,
)
from pydbt.core.transactions.xfs_log import name_of_lsn
from pydbt.core.transactions.xfs_volume import XfsVolume
from pydbt.core.units import KIB, MIB, SECTOR_BYTES, Buffer

RECORD_MAGIC = 0xFEEDBABE
_HEADER = struct.Struct(">IIIIQQ4sII")
_HEADER_CYCLES_OFFSET = 44
_FORMAT_OFFSET, _UUID_OFFSET, _SIZE_OFFSET = 300, 304, 320
_SUM_OFFSET = 32
_HEADER_SUMMED_BYTES, _HEADER_SUMMED_BYTES_I386 = 328, 324
_MORE_CYCLES_OFFSET, _MORE_SUMMED_BYTES = 4, 260
_CYCLES_PER_HEADER = 64
_HEADER_COVERS_BYTES = 32 * KIB
_MAX_RECORD_BYTES = 256 * KIB
_OLD_RECORD_BYTES = 32 * KIB
_FORMATS = {1: "<", 2: ">"}
_MAX_KEPT_BYTES = 5 * MIB // 2  # the kernel has 8 buffers of 256 KiB at most; each has its headers
_MAX_KEPT = 16
_ALL_ONES = 0xFFFFFFFF


@dataclass(slots=True)
class PlainXfsRecord:
    """A record of which all sectors have come. ``problem`` tells why it does not count, as the end of a sentence.

    ``lsn`` is its log sequence number: the cycle, and in the lower 32 bits the sector of the log. ``operations`` is how many
    operations its ``data`` has; ``order`` the byte order of what the file system logged, for ``struct``.
    """

    lsn: int
    tail_lsn: int
    sector_count: int
    operations: int
    order: str
    data: bytearray
    problem: str = ""


@dataclass(slots=True)
class _Partial:
    first_sector: int
    sector_count: int
    header_count: int
    content: bytearray = field(repr=False)
    missing: int
    seen: bytearray = field(repr=False)


class PlainXfsRecords:
    """Feed it writes; it gives each record as soon as all its sectors have come. The latest 2.5 MiB are kept."""

    def __init__(self, log_bytes: int, uuid: bytes) -> None:
        self._sectors = log_bytes // SECTOR_BYTES
        self._uuid = uuid
        self._partial: list[_Partial] = []

    def written(self, offset_bytes: int, data: Buffer) -> Iterator[PlainXfsRecord]:
        """The records that this write completes. Bytes outside of the log, and sectors that are not whole, are left out."""
        view = memoryview(data).cast("B")
        skip = max(0, -offset_bytes)
        skip += -(offset_bytes + skip) % SECTOR_BYTES
        sector = (offset_bytes + skip) // SECTOR_BYTES
        count = min((len(view) - skip) // SECTOR_BYTES, self._sectors - sector)
        if count <= 0:
            return
        content = view[skip : skip + count * SECTOR_BYTES]
        headers = np.flatnonzero(np.frombuffer(content, ">u4")[:: SECTOR_BYTES // 4] == RECORD_MAGIC).tolist()
        position = 0
        for header in [*headers, count]:
            yield from self._fill(sector + position, content[position * SECTOR_BYTES : header * SECTOR_BYTES])
            position = header
            if header < count:
                self._begin(sector + header, content[header * SECTOR_BYTES : (header + 1) * SECTOR_BYTES])

    def clear(self) -> None:
        """Writes are missing: what has come in part will not be whole."""
        self._partial.clear()

    def _begin(self, sector: int, header: memoryview) -> None:
        """A header was written: what it overwrites will not be complete. The sector itself is filled in with those behind it."""
        self._partial = [
            one for one in self._partial if (sector - one.first_sector) % self._sectors >= one.sector_count
        ]
        _, cycle, version, length, lsn, *_ = _HEADER.unpack_from(header)
        (size,) = struct.unpack_from(">I", header, _SIZE_OFFSET)
        wide = version & 2
        size = min(size, _MAX_RECORD_BYTES) if wide and size else _OLD_RECORD_BYTES
        # A header of the file system's own, of this place. Recovery writes headers without data behind the log's head.
        if lsn != cycle << 32 | sector or not 0 < length <= _MAX_RECORD_BYTES or version not in (1, 2, 3):
            return
        if bytes(header[_UUID_OFFSET : _UUID_OFFSET + 16]) != self._uuid:
            return
        headers = -(-size // _HEADER_COVERS_BYTES) if wide else 1
        count = headers + -(-length // SECTOR_BYTES)
        if length > headers * _HEADER_COVERS_BYTES or count > self._sectors:
            return
        kept_bytes = sum(len(one.content) for one in self._partial) + count * SECTOR_BYTES
        while self._partial and (len(self._partial) >= _MAX_KEPT or kept_bytes > _MAX_KEPT_BYTES):
            kept_bytes -= len(self._partial.pop(0).content)
        self._partial.append(_Partial(sector, count, headers, bytearray(count * SECTOR_BYTES), count, bytearray(count)))

    def _fill(self, sector: int, content: memoryview) -> Iterator[PlainXfsRecord]:
        while len(content):
            count = len(content) // SECTOR_BYTES
            for one in self._partial:
                place = (sector - one.first_sector) % self._sectors
                if place < one.sector_count:
                    break
            else:
                # No record is known here: go on where one begins, if that is within this write.
                ahead = [(one.first_sector - sector) % self._sectors for one in self._partial]
                skip = min([step for step in ahead if 0 < step < count], default=count)
                sector, content = sector + skip, content[skip * SECTOR_BYTES :]
                continue
            count = min(count, one.sector_count - place)
            one.content[place * SECTOR_BYTES : (place + count) * SECTOR_BYTES] = content[: count * SECTOR_BYTES]
            one.missing -= count - sum(one.seen[place : place + count])
            one.seen[place : place + count] = b"\1" * count
            if not one.missing:
                self._partial.remove(one)
                yield self._whole(one)
            sector, content = sector + count, content[count * SECTOR_BYTES :]

    def _whole(self, one: _Partial) -> PlainXfsRecord:
        _, cycle, _, length, lsn, tail, wanted, _, operations = _HEADER.unpack_from(one.content)
        (kind,) = struct.unpack_from(">I", one.content, _FORMAT_OFFSET)
        problem = "" if kind in _FORMATS else "its byte order is unknown"
        if wanted != bytes(4) and not self._sum_is_right(one, wanted):
            problem = "its checksum is wrong"
        data = one.content[one.header_count * SECTOR_BYTES :]
        words = np.frombuffer(data, ">u4").reshape(-1, SECTOR_BYTES // 4)[:, 0]
        sectors = one.first_sector + one.header_count + np.arange(len(words))
        if bool(np.any(words != cycle + (sectors >= self._sectors))):
            problem = problem or "parts of it are of another cycle of the log"
        words[:] = self._kept_words(one)[: len(words)]
        del words
        del data[length:]
        return PlainXfsRecord(lsn, tail, one.sector_count, operations, _FORMATS.get(kind, "<"), data, problem)

    @staticmethod
    def _kept_words(one: _Partial) -> NDArray[np.uint32]:
        """The first words of all sectors of data, out of the headers."""
        parts = [np.frombuffer(one.content, ">u4", _CYCLES_PER_HEADER, _HEADER_CYCLES_OFFSET)]
        parts += [
            np.frombuffer(one.content, ">u4", _CYCLES_PER_HEADER, index * SECTOR_BYTES + _MORE_CYCLES_OFFSET)
            for index in range(1, one.header_count)
        ]
        return np.concatenate(parts)

    @staticmethod
    def _sum_is_right(one: _Partial, wanted: bytes) -> bool:
        """The header without its checksum, the parts in use of the other headers, then the data with the cycle numbers."""
        view = memoryview(one.content)
        for summed in (_HEADER_SUMMED_BYTES, _HEADER_SUMMED_BYTES_I386):
            header = bytearray(view[:summed])
            header[_SUM_OFFSET : _SUM_OFFSET + 4] = bytes(4)
            total = crc32c(_ALL_ONES, header)
            (length,) = struct.unpack_from(">I", view, 12)
            for index in range(1, max(1, -(-length // _HEADER_COVERS_BYTES))):
                total = crc32c(total, view[index * SECTOR_BYTES :][:_MORE_SUMMED_BYTES])
            total = crc32c(total, view[one.header_count * SECTOR_BYTES :][:length])
            if (total ^ _ALL_ONES).to_bytes(4, "little") == wanted:
                return True
        return False


_OPERATION = struct.Struct(">IIBB2x")
_START, _COMMIT, _CONTINUED, _UNMOUNT = 0x01, 0x02, 0x08, 0x20
_TRANSACTION_MAGIC = 0x5452414E
_HEADER_BYTES = 16  # struct xfs_trans_header
_INODE, _BUFFER, _DQUOT, _NEW_INODES = 0x123B, 0x123C, 0x123D, 0x123F
_CANCELLED = 0x2  # XFS_BLF_CANCEL
_FORMAT_BYTES = 56  # struct xfs_inode_log_format, the longest of those that name blocks by what is read here
_INODE_32_BYTES = 52
_MAX_OPEN = 64  # the kernel has a few checkpoints at once
_MAX_WAITING = 16  # the kernel has 8 buffers
_MAX_WAITING_BYTES = 5 << 18
_MAX_GAPS = 64
_MAX_UNREAD_BYTES = 4 << 20  # twice what 8 buffers of 256 KiB have
_NO_RECORD = "no record of this file system is whole in it"
_MAX_SECTOR = 1 << 53
_FIRST_LSN = 1 << 32  # XLOG_INIT_CYCLE, sector 0: mkfs writes it
_MAX_APART_SECTORS = 8192  # twice what 8 buffers of 256 KiB have


@dataclass(slots=True)
class _Checkpoint:
    """One that was started: the part of the item that is being read, and what was named."""

    lsn: int
    last_lsn: int
    first_lsn: int  # of what it consists of: its start, or an earlier record that ended no checkpoint
    sectors: int
    header: bytearray = field(default_factory=bytearray)
    format: bytearray = field(default_factory=bytearray)  # the first bytes of the first region of the item
    regions_left: int = 0
    in_format: bool = False
    named: RunsOfTransaction = field(default_factory=RunsOfTransaction)
    revoked: RunsOfTransaction = NOTHING_NAMED
    damage: str = ""


class PlainXfsLog:
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
        self._volume = volume
        self._sectors = volume.log_bytes // SECTOR_BYTES
        self._records = PlainXfsRecords(volume.log_bytes, volume.uuid)
        self._unread_bytes, self._why = 0, _NO_RECORD
        self._next: int | None = None  # the log sequence number of the next record
        self._told_behind: int | None = None  # where the record behind the last one that ended a checkpoint begins
        self._newest = 0  # that of the newest one which counted
        self._waiting: dict[int, PlainXfsRecord] = {}
        self._open: dict[int, _Checkpoint] = {}

    @property
    def problem(self) -> str:
        """Why the log is not understood, as the end of a sentence: as much was written as all buffers hold, and no record of that
        counts. Empty otherwise."""
        return (
            f"what is written to its log is not understood: {self._why}"
            if self._unread_bytes > _MAX_UNREAD_BYTES
            else ""
        )

    @property
    def open(self) -> list[JournalTransaction]:
        """The checkpoints whose commit has not come."""
        return [self._ended(one, one.last_lsn, TransactionState.OPEN) for one in self._open.values()]

    def written(self, offset_bytes: int, data: Buffer) -> list[JournalTransaction]:
        """A write of ``data`` at ``offset_bytes`` of the log: the checkpoints that are complete or abandoned by it."""
        ended: list[JournalTransaction] = []
        self._unread_bytes += len(data)
        for record in self._records.written(offset_bytes, data):
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

    def _begins_again(self, record: PlainXfsRecord) -> bool:
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

    def _behind(self, record: PlainXfsRecord) -> int:
        cycle, sector = record.lsn >> 32, (record.lsn & 0xFFFFFFFF) + record.sector_count
        wraps, sector = divmod(sector, self._sectors)
        return (cycle + wraps) << 32 | sector

    # --- the operations of a record ---------------------------------------------------------------------------
    def _take(self, record: PlainXfsRecord) -> list[JournalTransaction]:
        ended: list[JournalTransaction] = []
        data, position = memoryview(record.data), 0
        for _ in range(min(record.operations, len(data) // _OPERATION.size)):
            if position + _OPERATION.size > len(data):
                return [*ended, *self._abandon(f"record {name_of_lsn(record.lsn)} of the log is cut off")]
            number, length, _, flags = _OPERATION.unpack_from(data, position)
            position += _OPERATION.size
            region = data[position : position + length]
            if len(region) < length:
                return [*ended, *self._abandon(f"record {name_of_lsn(record.lsn)} of the log is cut off")]
            position += length
            if flags & _UNMOUNT:
                self.unmounted = True
                ended += self._abandon("the file system was unmounted")
            elif flags & _START:
                ended += self._start(number, record)
            elif number in self._open:
                one = self._open[number]
                if one.last_lsn != record.lsn:
                    one.last_lsn = record.lsn
                    one.sectors = self._distance(one.lsn, record.lsn) + record.sector_count
                if flags & _COMMIT:
                    self._end_region(one, record.order)
                    del self._open[number]
                    state = TransactionState.ABANDONED if one.damage else TransactionState.COMMITTED
                    if not one.damage:
                        self._reach_back(one, record)
                    ended.append(self._ended(one, record.lsn, state))
                else:
                    self._region(one, region, flags, record.order)
        return ended

    def _reach_back(self, one: _Checkpoint, record: PlainXfsRecord) -> None:
        """Recovery reaches a checkpoint only when all records before it have come to the disk, too: in a stream it needs those
        behind the last record that ended one, which belong to none that is told."""
        behind, self._told_behind = self._told_behind, self._behind(record)
        if self._follows_stream and behind is not None and behind < one.lsn:
            one.first_lsn = behind
            one.sectors = self._distance(behind, record.lsn) + record.sector_count

    def _start(self, number: int, record: PlainXfsRecord) -> list[JournalTransaction]:
        ended: list[JournalTransaction] = []
        before = self._open.pop(number, None)
        if before is None and len(self._open) >= _MAX_OPEN:
            before = self._open.pop(next(iter(self._open)))
        if before is not None:
            before.damage = "another one was started in its place"
            ended = [self._ended(before, before.last_lsn, TransactionState.ABANDONED)]
        self._open[number] = _Checkpoint(record.lsn, record.lsn, record.lsn, record.sector_count)
        return ended

    def _region(self, one: _Checkpoint, region: memoryview, flags: int, order: str) -> None:
        """A region, or a part of one: ``_CONTINUED`` marks all parts but the first."""
        if not flags & _CONTINUED:
            self._end_region(one, order)
            if len(one.header) == _HEADER_BYTES:
                one.in_format = one.regions_left == 0
                one.regions_left = max(0, one.regions_left - 1)
        if len(one.header) < _HEADER_BYTES:
            one.header += region[: _HEADER_BYTES - len(one.header)]
            if len(one.header) == _HEADER_BYTES and one.header[:4] != struct.pack(f"{order}I", _TRANSACTION_MAGIC):
                one.damage = "it does not begin with the header of a transaction"
        elif one.in_format:
            one.format += region[: _FORMAT_BYTES - len(one.format)]

    def _end_region(self, one: _Checkpoint, order: str) -> None:
        """The first region of an item is complete: it tells how many follow, and which blocks the item changes."""
        if not one.in_format:
            return
        content, one.format, one.in_format = bytes(one.format), bytearray(), False
        if len(content) < 4:
            one.damage = "an item of it is cut off"
            return
        kind, regions = struct.unpack_from(f"{order}HH", content)
        if regions == 0:
            one.damage = "an item of it has no regions"
            return
        one.regions_left = regions - 1
        run, cancelled = self._run_of(kind, content, order)
        if run is None:
            return
        if cancelled and one.revoked is NOTHING_NAMED:
            one.revoked = RunsOfTransaction()
        (one.revoked if cancelled else one.named).add_run(*run)

    def _run_of(self, kind: int, content: bytes, order: str) -> tuple[tuple[int, int] | None, bool]:
        """The run that an item changes, and whether it is cancelled by it; None for items that name no blocks."""
        sector = length = -1
        cancelled = False
        if kind == _BUFFER and len(content) >= 16:
            flags, length, sector = struct.unpack_from(f"{order}HHq", content, 4)
            cancelled = bool(flags & _CANCELLED)
        elif kind == _INODE and len(content) >= _INODE_32_BYTES:
            place = 40 if len(content) == _FORMAT_BYTES else 36
            sector, length = struct.unpack_from(f"{order}qi", content, place)
        elif kind == _DQUOT and len(content) >= 20:
            sector, length = struct.unpack_from(f"{order}qi", content, 8)
        elif kind == _NEW_INODES and len(content) >= 24:
            group, block, _, _, blocks = struct.unpack_from(">5I", content, 4)  # big-endian on every machine
            per_block = self._volume.block_bytes // SECTOR_BYTES
            sector, length = (group * self._volume.group_blocks + block) * per_block, blocks * per_block
        if not 0 <= sector < _MAX_SECTOR or not 0 < length < _MAX_SECTOR:
            return None, False
        return (sector * SECTOR_BYTES, length * SECTOR_BYTES), cancelled

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
            one.named, one.revoked, one.damage,
        )  # fmt: skip
