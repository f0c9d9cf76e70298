"""The secondary's brain with its workers, built from the state on disk, and replaced after a failure."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import assert_never

import pydbt
from pydbt.controller.control import read_saved_status
from pydbt.controller.log_limit import LogLimit
from pydbt.controller.options import SecondaryOptions
from pydbt.controller.roles import JOURNAL_FOLDER, another_target, promoted
from pydbt.controller.secondary.connections import Connections
from pydbt.controller.secondary.kept_target import KeptTarget
from pydbt.controller.secondary.target_guard import TargetGuard
from pydbt.controller.secondary.workers import Applier, JournalWorker
from pydbt.core.blocks.sector_table import EXTENT_BYTES, SectorTable
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.errors import PydbtError, StateError, UsageError
from pydbt.core.protocol.frames import Begin, Frame, Refuse
from pydbt.core.protocol.role import Role
from pydbt.core.secondary import events as e
from pydbt.core.secondary.bad_blocks import BadBlocks
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.held_marks import HeldMarks
from pydbt.core.secondary.journal import SEGMENT_BYTES, JournalRecordKind, record_epoch, record_extents, record_mark
from pydbt.core.secondary.open_handover import HandoverStage, OpenHandover
from pydbt.core.secondary.primary_watch import PrimaryReport, PrimaryWatch
from pydbt.core.secondary.recent_writes import RecentWrites
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.secondary.role_answer import answer_in_trouble
from pydbt.core.secondary.target_identity import NAMELESS, Likeness, likeness
from pydbt.core.secondary.target_watch import TargetLook
from pydbt.core.units import KIB, MIB, Geometry
from pydbt.device.target import Target, may_be_copy
from pydbt.posix.ownership import open_own
from pydbt.store.bad_blocks_file import forget_bad_blocks, load_bad_blocks, save_bad_blocks
from pydbt.store.gate_question_file import forget_gate_question, load_gate_question, save_gate_question
from pydbt.store.journal_files import JournalFiles
from pydbt.store.marks_file import load_marks, save_marks
from pydbt.store.open_handover_file import as_of_now, forget_open_handover, load_open_handover, save_open_handover
from pydbt.store.reached import Reached
from pydbt.store.replica_state import load_record, save_record
from pydbt.store.target_names import forget_target_names, load_target_names, save_target_names

SMALLEST_SEGMENT_BYTES = 16 * MIB
RESERVE_NAME = "reserve"
STATE_RESERVE_BYTES = 256 * KIB
"""Room that is held for the state file, so that it can be written although others have filled the disk."""

_log = logging.getLogger(__name__)
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class PersistFailed(Exception):
    """The state file could not be written: the effects that depend on it must not be carried out."""


class Engine:
    """Brain, journal and workers over an open target. Raises StateError when the state is torn or foreign, DeviceError when
    what could not be written cannot be written now.

    ``report(engine, event)`` is called from the workers' threads. ``trusted`` bounds how far the journal is read;
    ``watch`` is what was heard of the primary before; ``trouble`` why the target could not be written.
    """

    def __init__(
        self,
        options: SecondaryOptions,
        target: Target,
        fresh: bool,
        report: Callable[[Engine, e.Event | BaseException], None],
        trusted: int | None = None,
        watch: PrimaryWatch | None = None,
        trouble: str = "",
    ) -> None:
        self._state_dir = Path(options.state_dir)
        self._options = options
        self.restart: e.Restart | None = None
        self._lines = LogLimit(_log)
        self._incarnation = 0  # of the record on disk
        self.takeover: e.TakeOver | None = None
        known = load_record(self._state_dir)
        reached = Reached(self._state_dir)
        # Within one run of the service the journal may be longer than ``trusted``: its end is no loss then.
        must_find = (reached.load() or 0) if known is not None and trusted is None else 0
        self._guard = TargetGuard(self._state_dir, target)
        record = self._checked_record(known, target, fresh)
        if known is not None and known.replica == record.replica and known.target == record.target:
            record = self._untouched_record(record, target)
        _require_size(record, options, target)
        kept = load_bad_blocks(self._state_dir, target.size_bytes, known)
        folder = self._state_dir / JOURNAL_FOLDER
        self.journal = JournalFiles(folder, segment_bytes=record.segment_bytes, limit_bytes=options.journal_limit_bytes)
        watch = watch or PrimaryWatch()
        # An earlier brain of this process has told what lies in the journal.
        self._recent = watch.recent if trusted is None else RecentWrites()
        record, recovery, staged = self._recovered(record, trusted, must_find)
        if not len(kept) and not record.kept_aside:
            forget_bad_blocks(self._state_dir)
        record = replace(record, incarnation=record.incarnation + 1, kept_aside=len(kept) > 0)
        self._save(record)
        save_target_names(self._state_dir, record.target, target.names)
        self._guard.begin(record.incarnation)
        kept_target = KeptTarget(target, kept, self._save_kept)
        record = self._tried_again(record, kept_target, trouble)
        reached.save(recovery.tail, durable=True)
        self.journal.start(record.checkpoint, recovery.tail, record.incarnation)
        self.brain = Secondary(
            _config(options, target), record, recovery, staged, time.monotonic(), watch, trouble, kept.runs()
        )
        to_service = self._reporter(report)
        self._journal_worker = JournalWorker(self.journal, reached, to_service, to_service)
        must_reach = max(record.must_reach, recovery.committed_at)
        self._applier = Applier(
            self.journal, kept_target, self.brain.keeper.applied_to, must_reach, self._guard, to_service, to_service
        )

    def _checked_record(self, record: ReplicaRecord | None, target: Target, fresh: bool) -> ReplicaRecord:
        """The record, or a new one where there is none. Raises when it is not that of this target, or of no replica."""
        options = self._options
        if record is None:
            folder = self._state_dir / JOURNAL_FOLDER
            if folder.is_dir() and any(folder.iterdir()):
                raise StateError(
                    f"{folder} holds a journal whose state file is missing: restore it or use a new directory"
                )
            return _new_record(options, target, fresh)
        if record.promoted:
            raise UsageError(
                f"{options.target} was promoted at {record.promoted} and is a volume of its own: nothing may overwrite it "
                "(to make it a replica again, 'controller demote' it)"
            )
        if self._is_its_target(record, target):
            return record
        if options.accept_target:
            _log.warning(
                "the state directory %s goes with %s from now on, as was asked", self._state_dir, options.target
            )
            forget_target_names(self._state_dir)
            return record.kept_for(target.identity, secrets.token_hex(16), copied=options.replay_only)
        if options.replay_only and not options.promote and may_be_copy(record.target, target.identity):
            _log.warning(
                "%s is not the file that this state was kept for; it is taken for a copy, and the state is kept for it "
                "from now on",
                options.target,
            )
            # The journal will have been applied to the copy alone: the first file would lack it later.
            return replace(record, target=target.identity)
        raise StateError(another_target(self._state_dir, options.target))

    def _is_its_target(self, record: ReplicaRecord, target: Target) -> bool:
        kept = load_target_names(self._state_dir, record.target)
        match likeness(record.target, kept, target.identity, target.names):
            case Likeness.SAME:
                return True
            case Likeness.OTHER:
                return False
            case Likeness.UNKNOWN:
                return not self._guard.may_be_another(record.incarnation)

    def _tried_again(self, record: ReplicaRecord, kept_target: KeptTarget, trouble: str) -> ReplicaRecord:
        """The record, after what could not be written was tried once more, if all depends on that.

        DeviceError when the block that could not be written still cannot be; then this engine is none.
        """
        try:
            if trouble:
                with self._guard.writing():
                    kept_target.try_what_failed()
            if not record.kept_aside or not self._options.replay_only:
                return record  # the applier tries them beside its other work
            with self._guard.writing():
                kept_target.try_again()
            if (kept := kept_target.news()) is not None and not kept.total():
                record = replace(record, kept_aside=False)
                self._save(record)
            return record
        except PydbtError:
            self._guard.end()
            self.journal.close()
            raise

    def start(self, connections: Connections | None) -> None:
        """Begin to work: the journal is applied. StateError, with everything ended, when no thread can be started."""
        try:
            self._journal_worker.start()
            self._applier.start()
        except RuntimeError as error:  # no memory for a thread, or too many of them: it is tried again
            self.stop()
            raise StateError(f"the replica cannot work now: {error}") from None
        self.handle(e.Tick(), connections)

    def stop(self) -> None:
        """End the workers after their present item. The rest stays on disk, as after a crash."""
        self._journal_worker.stop()
        self._applier.stop()
        self._guard.end()
        self.journal.close()

    def handle(self, event: e.Event, connections: Connections | None) -> None:
        """Give the brain an event and carry out its effects. Raises PersistFailed."""
        if isinstance(event, e.FrameReceived) and isinstance(event.frame, Begin):
            room = self.journal.room_bytes() if self._options.stage else 0
            self._carry_out(self.brain.handle(e.RoomMeasured(room), time.monotonic()), connections)
        self._carry_out(self.brain.handle(event, time.monotonic()), connections)

    def _carry_out(self, effects: list[e.Effect], connections: Connections | None) -> None:
        for effect in effects:
            match effect:
                case e.Append() | e.Resume():
                    self._journal_worker.put(effect)
                case e.Apply() | e.Write() | e.Sync() | e.Compare() | e.SetApplied():
                    self._applier.put(effect)
                case e.Persist(record):
                    self._persist(record)
                case e.KeepMarks(marks):
                    self._keep_marks(marks)
                case e.FreeJournal(position):
                    self.journal.free(position)
                case e.Send(connection, frame):
                    if connections is not None:
                        connections.send(connection, frame)
                case e.CloseConnection(connection, reason):
                    if connections is not None:
                        connections.close(connection, reason)
                case e.Log(level, message):
                    self._lines.log(_LEVELS[level], message)
                case e.Restart():
                    self.restart = effect
                case e.KeepHandover(found):
                    self._keep_handover(found)
                case e.KeepGateQuestion(is_open):
                    self.keep_gate_question(is_open)
                case e.TakeOver():
                    self.takeover = effect
                case _:
                    assert_never(effect)

    def _persist(self, record: ReplicaRecord) -> None:
        try:
            self._save(record)
        except StateError as error:
            raise PersistFailed(str(error)) from None

    def _keep_marks(self, marks: HeldMarks) -> None:
        try:
            self._in_reserve(lambda: save_marks(self._state_dir, marks))
        except StateError as error:
            raise PersistFailed(str(error)) from None

    def _keep_handover(self, found: OpenHandover | None) -> None:
        try:
            if found is not None:
                found = as_of_now(found)
                self._in_reserve(partial(save_open_handover, self._state_dir, found))
            else:
                forget_open_handover(self._state_dir)
        except StateError as error:
            if found is not None:
                raise PersistFailed(str(error)) from None
            _log.warning("%s; the next start takes it for open, until its primary is heard", error)
        self.brain.watch.note_handover(found)

    def answer_in_trouble(self, event: e.Connected, trouble: Refuse) -> Frame:
        """The one frame for a primary while this engine takes no write, for the reason ``trouble``."""
        brain = self.brain
        answer = answer_in_trouble(event.hello, brain.record, brain.config, trouble, proven=event.proven)
        if isinstance(answer, Role):
            with contextlib.suppress(PersistFailed):  # this process knows it
                self.keep_gate_question(is_open=True)
        return answer

    def keep_gate_question(self, is_open: bool) -> None:
        """As the effect. PersistFailed: it could not be written down, and must not be answered."""
        moment = datetime.now(UTC).isoformat(timespec="seconds") if is_open else ""
        self.brain.watch.note_gate_question(moment)  # before: this process knows it also where it cannot be written
        try:
            if is_open:
                self._in_reserve(partial(save_gate_question, self._state_dir, moment))
            else:
                forget_gate_question(self._state_dir)
        except StateError as error:
            if is_open:
                raise PersistFailed(str(error)) from None
            _log.warning("%s; until it can be, a promotion after the next start takes force", error)

    def stay_replica(self, takeover: e.TakeOver, why: str) -> None:
        """It was told to take its primary's place, and does not. Written down before anybody hears of it, if that is possible."""
        self.takeover = None
        found = as_of_now(OpenHandover(HandoverStage.REFUSED, takeover.listen, why=why))
        self.brain.watch.note_handover(found)
        with contextlib.suppress(PersistFailed):  # this process tells it, and so does the old primary
            self._keep_handover(found)

    def _save(self, record: ReplicaRecord) -> None:
        """Write the state file."""
        self._in_reserve(lambda: save_record(self._state_dir, record))
        self._incarnation = record.incarnation

    def _in_reserve(self, write: Callable[[], None]) -> None:
        """Write something small, if need be in the room that is held for it. StateError when even that fails."""
        reserve = self._state_dir / RESERVE_NAME
        try:
            write()
        except StateError:
            self.journal.give_back_spares()
            with contextlib.suppress(OSError):  # a disk that became read-only: the next line names the error
                reserve.unlink(missing_ok=True)
            write()
        _hold_reserve(reserve)

    def _save_kept(self, blocks: BadBlocks) -> None:
        """From the applier's thread: what is kept goes with the record that is on disk."""
        save_bad_blocks(self._state_dir, blocks, self._incarnation)

    def _untouched_record(self, record: ReplicaRecord, target: Target) -> ReplicaRecord:
        """The record; distrusted, and written down so, when others changed the target since it was written."""
        changed = self._guard.away(record.incarnation)
        if not changed and record.target != NAMELESS:
            changed = TargetLook(target.size_bytes).change_since(TargetLook(record.size_bytes))
        if not changed or (record.volume is None and not record.fresh):
            return record
        if target.size_bytes >= record.size_bytes:  # else the start ends with a sentence on it
            place = self._options.target
            _log.error("TARGET %s %s: it is not taken for a replica before all of it was compared", place, changed)
        record = record.distrusted(secrets.token_hex(16))
        self._save(record)
        return record

    def _recovered(
        self, record: ReplicaRecord, trusted: int | None, must_find: int
    ) -> tuple[ReplicaRecord, Recovery, StagedBlocks]:
        """The content of the journal, and the record that follows from it. ``must_find``: it was durable up to there."""
        recovery, staged = self._recover(record, trusted)
        lost_bytes = max(must_find - recovery.tail, 0)
        if lost_bytes:
            _log.error(
                "the journal is damaged: it ends at position %d, and %d bytes behind that had been acknowledged",
                recovery.tail,
                lost_bytes,
            )
            record = record.renamed(secrets.token_hex(16))  # no primary has a map for the replica as it is now
        if record.consistent and (lost_bytes or not recovery.whole):
            # Lost records may be on the target already, in part.
            _log.error("the journal ends before the image is whole: the replica is inconsistent")
            record = replace(record, consistent=False, must_reach=0)
            self._save(record)
            recovery, staged = self._recover(record, trusted)
        return record, recovery, staged

    def _recover(self, record: ReplicaRecord, trusted: int | None) -> tuple[Recovery, StagedBlocks]:
        recovery, staged = Recovery(record, load_marks(self._state_dir)), StagedBlocks()
        for header, body in self.journal.recover(record.checkpoint, record.incarnation, trusted):
            recovery.add(header, record_epoch(header, body), record_mark(header, body))
            if header.kind is JournalRecordKind.STREAM:
                self._recent.written(SectorTable.from_bytes(body[: header.extent_count * EXTENT_BYTES]))
            if header.kind is JournalRecordKind.COMMIT:
                staged.clear()
            elif recovery.stage_from is not None and header.kind in (
                JournalRecordKind.STREAM,
                JournalRecordKind.BLOCKS,
            ):
                staged.add(record_extents(header, body)[0], Geometry(record.size_bytes, record.block_bytes).compared)
        return recovery, staged

    def promote(self, as_of: str) -> None:
        """From here on the target is a volume of its own. Everything that belongs to its image must be on it.

        ``as_of``: the moment of the primary whose image that is; empty when it is not known.
        """
        self._save(promoted(self.brain.record, self._options.target, self._state_dir, as_of))
        if self.brain.watch.gate_asked:
            self.keep_gate_question(is_open=False)

    def _reporter(
        self, report: Callable[[Engine, e.Event | BaseException], None]
    ) -> Callable[[e.Event | BaseException], None]:
        return lambda event: report(self, event)


def watch_of(state_dir: Path) -> PrimaryWatch:
    """What the last process has left of its primary. It lives longer than an engine."""
    known = (read_saved_status(state_dir) or {}).get("primary")
    return PrimaryWatch(
        PrimaryReport.from_values(known), load_open_handover(state_dir), gate_asked=load_gate_question(state_dir)
    )


def _config(options: SecondaryOptions, target: Target) -> SecondaryConfig:
    return SecondaryConfig(
        target_bytes=target.size_bytes,
        stage=options.stage,
        checkpoint_bytes=min(512 * MIB, options.journal_limit_bytes // 4),
        software=f"pydbt {getattr(pydbt, '__version__', '')}".strip(),
        unable=_why_no_primary(target),
        sector_bytes=target.sector_bytes,
        accept_sectors=options.accept_sectors,
    )


def _why_no_primary(target: Target) -> str:
    """Why this side could not take its primary's place; empty when it could."""
    if not target.is_block_device:
        return "its target is an image file, and a SOURCE is a block device (attach the file to a loop device, and name that)"
    return "" if os.geteuid() == 0 else "it does not run as root, and a primary must"


def _require_size(record: ReplicaRecord, options: SecondaryOptions, target: Target) -> None:
    if target.size_bytes < record.size_bytes:
        raise StateError(
            f"TARGET {options.target} has {target.size_bytes} bytes, less than the volume's {record.size_bytes}: "
            "give it its size again, and all of it is compared"
        )


def _new_record(options: SecondaryOptions, target: Target, fresh: bool) -> ReplicaRecord:
    segment = min(max(options.journal_limit_bytes // 8 // MIB * MIB, SMALLEST_SEGMENT_BYTES), SEGMENT_BYTES)
    return ReplicaRecord(replica=secrets.token_hex(16), target=target.identity, segment_bytes=segment, fresh=fresh)


def _hold_reserve(reserve: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if reserve.stat().st_size >= STATE_RESERVE_BYTES:
            return
    with contextlib.suppress(OSError):  # no room now: tried again at the next change
        descriptor = open_own(reserve, os.O_WRONLY | os.O_CREAT)
        try:
            os.posix_fallocate(descriptor, 0, STATE_RESERVE_BYTES)
        except OSError:
            reserve.unlink(missing_ok=True)  # an empty or short one holds no room
        finally:
            os.close(descriptor)
