"""The secondary's two disk workers: one makes the journal durable, the other fills the target.

Each does its items in order, and reports through ``report``. Neither decides anything.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from pydbt.controller.secondary.kept_target import KeptTarget
from pydbt.controller.secondary.target_guard import TargetGuard
from pydbt.core.blocks.apply_plan import plan, sources_of
from pydbt.core.blocks.runs import BlockNumbers, distinct
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.errors import MediumError, PydbtError, StateError
from pydbt.core.protocol import frames
from pydbt.core.protocol.digests import DIGEST_BYTES, UnitDigest
from pydbt.core.secondary import events as e
from pydbt.core.secondary.journal import (
    RECORD_HEADER_BYTES,
    JournalRecordKind,
    RecordHeader,
    decode_record_header,
    entry_bytes,
    record_epoch,
    record_extents,
    record_is_whole,
)
from pydbt.core.secondary.replica import AppliedPoint
from pydbt.core.units import MIB, Geometry
from pydbt.device.block import aligned_buffer
from pydbt.store.journal_files import JournalFiles, JournalFull
from pydbt.store.reached import Reached

GROUP_BYTES = 32 * MIB
"""One group commit: half of the bytes that may be on their way. The network fills one half while the disk takes the other."""
APPLY_BYTES = 16 * MIB
COMPARE_BYTES = 4 * MIB
WRITEBACK_BYTES = 32 * MIB

_log = logging.getLogger(__name__)

Report = Callable[[e.Event], None]
Work = TypeVar("Work")
_ANY_INCARNATION = (0, (1 << 64) - 1)


class Worker(Generic[Work]):
    """A thread with a queue. ``stop`` ends it after its present item; ``failed`` reports a bug.

    ``idle_s``: after this time without an item it looks around.
    """

    idle_s: float | None = None

    def __init__(self, name: str, report: Report, failed: Callable[[BaseException], None]) -> None:
        self._items: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._report = report
        self._failed = failed
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, item: Work) -> None:
        self._items.put(item)

    def stop(self) -> None:
        self._stopping = True
        self._items.put(None)
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    item = self._items.get(timeout=self.idle_s)
                except queue.Empty:
                    self._look_around()
                    continue
                if item is None:
                    return
                self._do(item)
                del item  # the memory of its frame must not wait for the next one
        except BaseException as error:
            self._failed(error)

    def _look_around(self) -> None: ...

    def _do(self, item: Work) -> None:
        raise NotImplementedError


class JournalWorker(Worker[e.JournalWork]):
    """Appends in groups: all entries that arrived while the disk was busy become durable with one sync."""

    def __init__(
        self, journal: JournalFiles, reached: Reached, report: Report, failed: Callable[[BaseException], None]
    ) -> None:
        super().__init__("journal", report, failed)
        self._journal, self._reached = journal, reached
        self._refusing = False
        self._durable = journal.tail

    def _do(self, item: e.JournalWork) -> None:
        group: list[e.Append] = []
        size = 0
        following: e.JournalWork | None = item
        while following is not None:
            match following:
                case e.Resume(incarnation):
                    self._commit(group)
                    group, size = [], 0
                    self._journal.resume(self._durable, incarnation)
                    self._refusing = False
                case e.Append(entry=entry):
                    group.append(following)
                    size += entry_bytes(entry)
                case _:
                    assert_never(following)
            following = self._at_hand() if size < GROUP_BYTES else None
        self._commit(group)

    def _at_hand(self) -> e.JournalWork | None:
        """The next item if there is one right now."""
        try:
            item = self._items.get_nowait()
        except queue.Empty:
            return None
        if item is None:
            self._stopping = True
        return item

    def _commit(self, group: list[e.Append]) -> None:
        if self._refusing or not group:
            return
        ends: list[int] = []
        refusal: PydbtError | None = None
        try:
            unlimited = any(append.unlimited for append in group)
            ends = self._journal.append([append.entry for append in group], unlimited=unlimited)
            self._journal.sync()
        except PydbtError as error:
            ends, refusal = ends if isinstance(error, JournalFull) else [], error
        if ends:
            self._durable = ends[-1]
            with contextlib.suppress(StateError):  # a lower number is true as well
                self._reached.save(self._durable)
            self._report(e.JournalDurable(tuple(append.ticket for append in group[: len(ends)]), tuple(ends)))
        rest = group[len(ends) :]
        if not rest:
            return
        if refusal is None:
            self._commit(rest)
            return
        self._refusing = True
        full = isinstance(refusal, JournalFull)
        try:
            self._journal.cut(self._durable)
        except PydbtError as error:
            full, refusal = False, error
        self._report(e.JournalRefused(rest[0].ticket, self._durable, full, str(refusal)))


class Applier(Worker[e.ApplierWork]):
    """Brings the journal onto the target, or writes to it directly; compares, and syncs.

    ``guard`` watches the target: it is looked at before each item, around each write, and every second without an item.
    """

    idle_s = 1.0

    def __init__(
        self,
        journal: JournalFiles,
        target: KeptTarget,
        applied_to: AppliedPoint,
        must_reach: int,
        guard: TargetGuard,
        report: Report,
        failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__("applier", report, failed)
        self._journal = journal
        self._target = target
        self._guard = guard
        self._applied_to = applied_to
        self._in_stage = applied_to.position < must_reach
        self._buffer = aligned_buffer(APPLY_BYTES)  # its pages are made when they are used first
        self._broken = False
        self._unsynced = True  # an earlier process may have left pages that are not on the disk
        self._unstarted_bytes = 0

    def _do(self, item: e.ApplierWork) -> None:
        if self._broken:
            return
        try:
            self._guard.check()
            self._try_kept_again()
            match item:
                case e.Apply(limit):
                    self._apply(limit)
                case e.Write(ticket, frame):
                    self._write_frame(frame)
                    self._report(e.Written(ticket))
                case e.Sync(ticket):
                    self._sync()
                    self._report(e.Synced(ticket, self._applied_to))
                case e.Compare(ticket, frame, units, digest):
                    self._sync()
                    self._report(e.Compared(ticket, self._compare(frame, units, digest)))
                case e.SetApplied(point):
                    self._applied_to, self._in_stage = point, False
                case _:
                    assert_never(item)
        except PydbtError as error:
            self._broken = True
            self._report(e.TargetFailed(str(error)))

    def _look_around(self) -> None:
        if self._broken:
            return
        try:
            self._guard.check()
            self._try_kept_again()
        except PydbtError as error:
            self._broken = True
            self._report(e.TargetFailed(str(error)))

    def _try_kept_again(self) -> None:
        if self._target.is_due:
            self._sync()
            with self._guard.writing():
                self._target.try_again()
            self._tell_kept()

    def _tell_kept(self) -> None:
        """Ahead of the report on the work that changed it."""
        if (kept := self._target.news()) is not None:
            self._report(e.KeptAside(kept))

    def _sync(self) -> None:
        if self._unsynced:
            self._target.sync()
            self._unsynced = False
            self._unstarted_bytes = 0

    # --- the journal onto the target ----------------------------------------------------------------------
    def _apply(self, limit: int) -> None:
        while self._applied_to.position < limit and not self._stopping:
            position = self._applied_to.position
            length = self._journal.read_into(position, self._buffer[: limit - position])
            self._apply_piece(self._buffer[:length], position)
            self._report(e.Applied(self._applied_to))

    def _apply_piece(self, piece: memoryview, position: int) -> None:
        """Apply the whole records of a piece of a segment, as one batch of writes."""
        tables, sources, offset = [], [], 0
        point = self._applied_to
        while (record := self._record(piece, position, offset)) is not None:
            header, body = record
            if header.kind in (JournalRecordKind.STREAM, JournalRecordKind.BLOCKS):
                extents, payload = self._extents(header, body)
                tables.append(extents)
                sources.append(sources_of(extents, offset + RECORD_HEADER_BYTES + len(body) - len(payload)))
            point = self._passed(point, header, body)
            offset = header.end - position
            if header.kind is JournalRecordKind.PAD:
                break
        if offset == 0:
            raise PydbtError(f"the journal is damaged at position {position}: its record there is not whole")
        if tables:
            self._write(SectorTable.joined(tables), np.concatenate(sources), piece)
        self._applied_to = point

    def _extents(self, header: RecordHeader, body: memoryview) -> tuple[SectorTable, memoryview]:
        try:
            return record_extents(header, body)
        except ValueError as error:
            raise PydbtError(f"the journal cannot be applied at position {header.position}: {error}") from None

    def _record(self, piece: memoryview, position: int, offset: int) -> tuple[RecordHeader, memoryview] | None:
        # The rest of the segment is not known here; it was checked when the record was written or recovered.
        rest = piece[offset:]
        if len(rest) < RECORD_HEADER_BYTES:
            return None
        header = decode_record_header(rest, position + offset, None, _ANY_INCARNATION)
        if header is None:
            return None
        length = 0 if header.kind is JournalRecordKind.PAD else header.length
        body = rest[RECORD_HEADER_BYTES : RECORD_HEADER_BYTES + length]
        return (header, body) if len(body) == length and record_is_whole(header, body) else None

    def _passed(self, point: AppliedPoint, header: RecordHeader, body: memoryview) -> AppliedPoint:
        """The point behind a record. Inside of a stage the sequence is not the image's."""
        epoch, sequence = point.epoch, point.sequence
        match header.kind:
            case JournalRecordKind.BEGIN:
                self._in_stage = True
            case JournalRecordKind.COMMIT:
                self._in_stage = False
                epoch, sequence = record_epoch(header, body), header.last
            case JournalRecordKind.STREAM | JournalRecordKind.MARK if not self._in_stage:
                sequence = header.last
        return AppliedPoint(header.end, epoch, sequence)

    # --- direct -------------------------------------------------------------------------------------------
    def _write_frame(self, frame: frames.Blocks | frames.Stream) -> None:
        assert len(frame.payload) <= 1, "received payload is one piece"
        payload = memoryview(frame.payload[0]) if frame.payload else memoryview(b"")
        self._write(frame.extents, sources_of(frame.extents, 0), payload)

    def _write(self, extents: SectorTable, sources: npt.NDArray[np.int64], buffer: memoryview) -> None:
        self._unsynced = True
        with self._guard.writing():
            for writes in plan(extents, sources):
                self._target.write_runs(writes, buffer)
        self._tell_kept()
        self._unstarted_bytes += extents.payload_bytes
        if self._unstarted_bytes >= WRITEBACK_BYTES:
            self._target.start_writeback()
            self._unstarted_bytes = 0

    # --- digests ------------------------------------------------------------------------------------------
    def _compare(self, frame: frames.Digests, geometry: Geometry, digest: UnitDigest) -> BlockNumbers:
        """Numbers of the units whose content on the target has another digest, or cannot be read.

        A unit that cannot be read is sent anew: most disks put another sector in the place of a bad one when it is written.
        """
        units = frame.units.blocks()
        theirs = np.frombuffer(frame.digests, dtype="<u8").reshape(-1, 2)
        ours, unread = bytearray(), np.zeros(len(units), bool)
        for first, count in zip(frame.units.firsts.tolist(), frame.units.counts.tolist(), strict=True):
            offset, length = geometry.bytes_of_blocks(first, count)
            end = offset + length
            while offset < end:
                view = self._buffer[: min(COMPARE_BYTES, end - offset)]
                bad = self._read_units(offset, view, geometry.block_bytes)
                unread[[len(ours) // DIGEST_BYTES + index for index in bad]] = True
                ours += digest.of_each(view, geometry.block_bytes)
                offset += len(view)
        assert len(ours) == len(units) * DIGEST_BYTES
        differs = (np.frombuffer(ours, dtype="<u8").reshape(-1, 2) != theirs).any(axis=1)
        return distinct(units[differs | unread])

    def _read_units(self, offset: int, view: memoryview, unit_bytes: int) -> list[int]:
        """Fill ``view``; the indexes of the units in it that cannot be read."""
        try:
            self._target.read_into(offset, view)
            return []
        except MediumError as error:
            _log.error("%s; blocks there that cannot be read count as different", error)
        bad = []
        for index, begin in enumerate(range(0, len(view), unit_bytes)):
            try:
                self._target.read_into(offset + begin, view[begin : begin + unit_bytes])
            except MediumError:
                bad.append(index)
        return bad
