"""The secondary's decisions: which primary is served, when its frames are processed, and the state of the replica.

Nothing of the stream is acknowledged before ``keeper`` has it durable. Frames that arrive while something has to end first
(a Barrier) are deferred, and taken up in their order afterwards.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

import numpy as np

from pydbt.core.blocks.runs import BlockNumbers, Runs, distinct
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.completed import Completed
from pydbt.core.protocol.heartbeat import HEARTBEAT_S
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.protocol.recent import Recall
from pydbt.core.protocol.role import ASKS_ROLE
from pydbt.core.protocol.standing import Standing
from pydbt.core.protocol.transaction import Transaction
from pydbt.core.secondary import events as e
from pydbt.core.secondary.bad_blocks import BAD_BLOCK_BYTES, bad_words
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.handshake import refusal, trouble_refusal, welcome_of
from pydbt.core.secondary.journal import JournalEntry
from pydbt.core.secondary.keeper import Keeper
from pydbt.core.secondary.primary_watch import PrimaryWatch
from pydbt.core.secondary.promotion import Position
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import ReplicaRecord, ReplicaState
from pydbt.core.secondary.rival import boot_of, rival_refusal
from pydbt.core.secondary.role_answer import told_to_a_gate
from pydbt.core.secondary.session import (
    Comparison,
    Deferred,
    Direct,
    ProtocolError,
    Returned,
    Session,
    Staging,
    Streaming,
)  # fmt: skip
from pydbt.core.secondary.status import ReplicaStatus, status_of
from pydbt.core.secondary.takeover import why_not_take_over

ACK_INTERVAL_S = 1.5 * HEARTBEAT_S
"""A secondary that is busy with its disk still sends an ACK this often, so that it is not taken for dead. With a primary that
asks once per second, each goes out with the answer: one wakeup for both, on either side."""


class Secondary:
    """The secondary's brain: feed it events, carry out the effects it returns, in order.

    After a Restart effect it does nothing more; another one takes its place.
    """

    def __init__(
        self,
        config: SecondaryConfig,
        record: ReplicaRecord,
        recovery: Recovery,
        staged: StagedBlocks,
        now: float,
        watch: PrimaryWatch | None = None,
        trouble: str = "",
        kept: Runs | None = None,
    ) -> None:
        """``watch``: what was heard of the primary before, by an earlier brain.

        ``trouble``: why the target could not be written. Until it has everything that is in the journal, the replica is not
        consistent, and no primary is welcome: what it would bring could not reach the target either.
        ``kept``: blocks that the target does not take, and that are kept aside. Everything else goes on.
        """
        self.trouble = trouble
        self.kept = kept or Runs.none()
        self.config = config
        self._effects: list[e.Effect] = []
        self.keeper = Keeper(self, self._effects, config, record, recovery, staged)
        # Nobody; a primary that has to wait until it is known where the image stands; or one that was welcomed.
        self._primary: e.Connected | Session | None = None
        self.watch = watch or PrimaryWatch()
        self._room_bytes = 0
        self._ack_due = now
        self._ended = False

    # --- the brain's interface ----------------------------------------------------------------------------
    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        """Take one event; the effects are to be carried out in order before the next event is given."""
        if not self._ended:
            self._dispatch(event, now)
        if not self._ended:
            self._advance(now)
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    def deadline(self) -> float | None:
        """When ``handle(Tick(), now)`` is due."""
        due = [self.keeper.deadline(), self._ack_due if self.session is not None else None]
        return min((time for time in due if time is not None), default=None)

    @property
    def session(self) -> Session | None:
        """The conversation with the welcomed primary."""
        return self._primary if isinstance(self._primary, Session) else None

    @property
    def peer(self) -> int | None:
        """The connection of the welcomed primary."""
        return self._primary.connection if isinstance(self._primary, Session) else None

    @property
    def record(self) -> ReplicaRecord:
        """The content of the state file."""
        return self.keeper.record

    @property
    def drained(self) -> bool:
        """Is everything that may be applied applied, and durable on the target?"""
        return self.keeper.drained

    @property
    def problem(self) -> str:
        """Why the target lacks something that it could not be written, in words; empty when it does not."""
        return self.trouble or bad_words(self.kept)

    @property
    def replica_state(self) -> ReplicaState:
        """The state of the replica: never more than is known."""
        session = self.session
        if not self.record.consistent or self.problem:
            return ReplicaState.INCONSISTENT
        staging = session is not None and isinstance(session.state, Staging)
        if staging or self.keeper.stage_from is not None:
            # Between two snapshots the replica is an image of one moment by design.
            meant = session is not None and session.by_snapshots
            return ReplicaState.CONSISTENT if meant else ReplicaState.OUTDATED
        streaming = session is not None and isinstance(session.state, Streaming)
        return ReplicaState.UP_TO_DATE if streaming else ReplicaState.CONSISTENT

    def status(self, now: float) -> ReplicaStatus:
        """The replica's part of the report of the service. Up to date is what was so a moment ago, by a heartbeat."""
        return status_of(self.keeper, self.session, self.replica_state, self.problem, self.kept, now)

    # --- events -------------------------------------------------------------------------------------------
    def _dispatch(self, event: e.Event, now: float) -> None:
        match event:
            case e.FrameReceived(connection, frame, at):
                if isinstance(self._primary, Session) and connection == self._primary.connection:
                    self._received(self._primary, frame, now if at is None else at)
            case e.JournalDurable():
                self.keeper.journal_durable(event)
            case e.JournalRefused():
                self.keeper.journal_refused(event)
            case e.Applied(point):
                self.keeper.applied(point, now)
            case e.Written(ticket):
                self.keeper.written(ticket)
            case e.Synced(ticket, point):
                self.keeper.synced(ticket, point, now)
            case e.Compared(ticket, differing):
                self._compared(ticket, differing, now)
            case e.TargetFailed(error):
                self.trouble = error
                self.failed(f.TARGET_ERROR, f"the secondary's target failed: {error}")
            case e.KeptAside(blocks):
                self._kept_aside(blocks)
            case e.RoomMeasured(free_bytes):
                self._room_bytes = free_bytes
            case e.Connected():
                self._connected(event, now)
            case e.Disconnected(connection):
                if self._primary is not None and connection == self._primary.connection:
                    self._leave()
            case e.Tick():
                pass
            case _:
                assert_never(event)

    def _advance(self, now: float) -> None:
        """Process the frames that had to wait, until one has to wait again."""
        self.keeper.advance(now, self.peer)
        if self.trouble and self.keeper.drained:
            self.trouble = ""
            lacks = f", but for {self.kept.total() * BAD_BLOCK_BYTES} bytes" if self.problem else ""
            self._do(e.Log("info", f"everything that the target lacked is written{lacks}: primaries are welcome again"))
        while (session := self.session) is not None and session.has_waiting and self.keeper.barrier is None:
            match session.next_waiting():
                case Returned(entry):
                    self._store(session, entry)
                case Deferred(frame):
                    self._frame(session, frame)
            self.keeper.advance(now, self.peer)
        if isinstance(self._primary, e.Connected) and self.keeper.position_known:
            waiting, self._primary = self._primary, None
            self._welcome(waiting, now)
            if self.session is not None:
                self.watch.welcomed(boot_of(waiting.hello), now)
        if self.record.consistent:
            self.watch.reached(self.keeper.epoch, self.keeper.sequence)
        self._acknowledge(now)

    def _kept_aside(self, blocks: Runs) -> None:
        """The target does not take these blocks, or takes some again."""
        more, self.kept = blocks.total() > self.kept.total(), blocks
        self.keeper.keep_aside(blocks.total() > 0)
        if blocks.total():
            self._do(e.Log("error" if more else "info", self.problem))
        else:
            self._do(e.Log("info", "TARGET has taken everything that it could not be written before"))
        session = self.session
        if session is not None and session.asks_unwritable:
            self._tell_kept(session)
        elif session is not None and blocks.total():
            self._refuse(session, f.TARGET_ERROR, trouble_refusal(self.problem).message)

    def _tell_kept(self, session: Session) -> None:
        self._do(e.Send(session.connection, f.Unwritable(self.kept, BAD_BLOCK_BYTES)))

    # --- coming and going ---------------------------------------------------------------------------------
    def _connected(self, event: e.Connected, now: float) -> None:
        if ASKS_ROLE in event.hello.features:
            self._tell_role(event, now)
            return
        if self._unusable_for(event.hello):
            if not self._turned_away(event):  # it would be welcomed, so that it may know
                self._turn_away(replace(event, proven=True), trouble_refusal(self.problem))
            return
        if isinstance(self._primary, Session) and self._turned_away(event):
            return  # a primary that may not write to this replica disturbs none that does
        if self._is_rival(event, now):
            return
        if self._primary is not None:
            self._do(e.CloseConnection(self._primary.connection, "the primary connected anew"))
        self._leave()
        self._primary = event

    def _tell_role(self, event: e.Connected, now: float) -> None:
        """To a primary that asks before it mounts. It disturbs nobody, and is told what any primary would be against."""
        if not self._turned_away(event) and not self._is_rival(event, now):
            self._effects += told_to_a_gate(event.connection, self.record, self.keeper.epoch, self.keeper.sequence)

    def _is_rival(self, event: e.Connected, now: float) -> bool:
        """Whether this primary was told to wait for another one to fall silent."""
        waiting = self._primary.hello if isinstance(self._primary, e.Connected) else None
        refuse = rival_refusal(event.hello, self.watch, now, event.other_heard_at, waiting)
        if refuse is None or refusal(event.hello, self.record, self.config) is not None:
            return False
        self._turn_away(event, refuse)
        if (boot := boot_of(event.hello)) not in self.watch.rivals:
            self.watch.rivals.add(boot)
            self._do(e.Log("error", f"refused a second primary: {refuse.message}"))
        return True

    def _leave(self) -> None:
        """No primary any more. Work under way ends by itself; deferred frames were never acknowledged."""
        self._primary = None
        self.keeper.leave()

    def _unusable_for(self, hello: f.Hello) -> bool:
        """Whether no write of that primary may come now. One that cannot be told of single blocks is told that none can be."""
        return bool(self.trouble) or (self.kept.total() > 0 and f.UNWRITABLE not in hello.features)

    def _turned_away(self, event: e.Connected) -> bool:
        """Whether this primary was refused."""
        refuse = refusal(event.hello, self.record, self.config)
        if refuse is not None:
            self._turn_away(event, refuse)
        return refuse is not None

    def _turn_away(self, event: e.Connected, refuse: f.Refuse) -> None:
        # A stranger learns no more than the code: the evidence names what it would need to be welcomed.
        self._do(e.Send(event.connection, refuse if event.proven else f.Refuse(refuse.code, "")))
        self._do(e.CloseConnection(event.connection, refuse.message))

    def _welcome(self, event: e.Connected, now: float) -> None:
        if self._unusable_for(event.hello):
            self._connected(event, now)  # since it came
            return
        if self._turned_away(event):
            return
        session = self._primary = Session(event.connection, event.hello, self.keeper.sequence, event.digest_key, now)
        welcome = welcome_of(
            event.hello, self.keeper, self.config, whole=not self.problem, digest_key=session.digest_key
        )
        self._do(e.Send(event.connection, welcome))
        if session.asks_unwritable and self.kept.total():
            self._tell_kept(session)

    # --- frames -------------------------------------------------------------------------------------------
    def _received(self, session: Session, frame: f.Frame, at: float) -> None:
        """Everything that is not about the moment waits for its turn."""
        session.heard_at = at
        if self.watch.heard(at):
            self._do(e.KeepGateQuestion(open=False))
        if self.watch.handover.ends(session.connection, frame, at):
            self.keeper.forget_handover()
        if isinstance(frame, f.Bye):
            self.watch.said_goodbye(at)
        if isinstance(frame, f.Ping):
            session.beat(frame, at)
            self._do(e.Send(session.connection, f.Pong(frame.token)))
            if at >= self._ack_due - HEARTBEAT_S:
                self._ack_due = at
        elif isinstance(frame, Standing | Transaction):
            self.watch.told(frame, session.hello.epoch, at)
        elif isinstance(frame, Recall):
            self._do(e.Send(session.connection, self.watch.recent.told(frame, session.hello.size_bytes)))
        elif self.keeper.barrier is not None or session.has_waiting:
            session.defer(frame)
        else:
            self._frame(session, frame)

    def _frame(self, session: Session, frame: f.Frame) -> None:
        try:
            match frame:
                case f.Stream():
                    if session.accept_stream(frame, continues=self.keeper.continues(session.hello.epoch)):
                        self.watch.recent.written(frame.extents)
                        self._store(session, frame)
                case NamedMark() | Completed():
                    if session.accept_in_order(frame):
                        self._store(session, frame)
                case f.Blocks():
                    session.accept_blocks(frame)
                    self._store(session, frame)
                case f.Digests():
                    self._digests(session, frame)
                case f.Begin():
                    self._begin(session, frame)
                case f.Generation():
                    self._generation(session, frame)
                case f.Commit():
                    self._store(session, (frame, session.accept_commit(frame)))
                case f.Handover():
                    self._handed_over(session, frame)
                case f.Bye(reason):
                    self._close(session, f"the primary said goodbye: {reason}")
                case _:
                    raise ProtocolError(f"a {type(frame).__name__.upper()} frame is not for a secondary")
        except ProtocolError as error:
            self._refuse(session, "protocol", f"the primary broke the protocol: {error}")

    def _handed_over(self, session: Session, frame: f.Handover) -> None:
        """The primary asks whether this side could take its place; or it has given it up, and this side takes it."""
        if not self.keeper.position_known:
            self.keeper.wait_for_appends()
            session.defer_first(frame)
            return
        refusal = why_not_take_over(
            frame, session.hello, self.record, Position(self.keeper.epoch, self.keeper.sequence),
            staged=self.keeper.stage_from is not None, config=replace(self.config, unable=self.config.unable or self.problem),
        )  # fmt: skip
        if frame.final and not refusal:
            self._do(e.TakeOver(session.connection, frame.listen))
            self._leave()  # whatever comes behind it counts for nothing
        else:
            for effect in self.watch.handover.answer(session, frame, refusal):
                self._do(effect)

    def _generation(self, session: Session, frame: f.Generation) -> None:
        """For the next COMMIT. In a stream it names all later updates, and is taken over behind all earlier ones."""
        streaming = isinstance(session.state, Streaming)
        if streaming and self.keeper.streaming:
            session.defer_first(frame)
            self.keeper.wait_for_stream()
            return
        session.generations = frame.generations
        if streaming:
            self.keeper.take_generations(frame.generations)

    def _begin(self, session: Session, frame: f.Begin) -> None:
        if not self.keeper.position_known:
            self.keeper.wait_for_appends()
            session.defer_first(frame)
            return
        needed = frame.total_bytes + frame.total_bytes // 10 + self.config.stage_margin_bytes
        if self.record.consistent and self.config.stage and self._room_bytes >= needed:
            session.begin(Staging(frame))
            self.keeper.append(frame, session.connection, geometry=session.small_blocks)
        else:
            session.begin(Direct(frame))
            self.keeper.go_direct(session.hello, session.connection)

    def _digests(self, session: Session, frame: f.Digests) -> None:
        """Compare behind all earlier updates: an older content of a block may look equal, and be replaced then.

        A primary without the key of the connection is asked for all of it.
        """
        if self.keeper.streaming:
            session.defer_first(frame)
            self.keeper.wait_for_stream()
            return
        units = session.accept_digests(frame)
        if session.digest is None:  # of an older primary: equal digests prove nothing, see pydbt.core.protocol.digests
            self._do(e.Send(session.connection, f.Want(frame.batch, Runs.of_blocks(distinct(frame.units.blocks())))))
            session.batch_ended(frame.batch)
            return
        staged = self.keeper.staged_units_of(frame.units, frame.unit_bytes)
        comparison = Comparison(self.keeper.ticket(), frame, staged)
        session.compare(comparison)
        self._do(e.Compare(comparison.ticket, frame, units, session.digest))

    def _compared(self, ticket: int, differing: BlockNumbers, now: float) -> None:
        session = self.session
        comparison = session.compared(ticket) if session is not None else None
        if session is None or comparison is None:
            return  # of an earlier connection
        frame = comparison.frame
        wanted = distinct(np.append(differing, comparison.staged_units))
        # If a direct write made a unit equal, the write is acknowledged before the unit is called equal.
        if len(wanted) < frame.units.total() and self.keeper.compared(ticket):
            self._acknowledge(now)
        self._do(e.Send(session.connection, f.Want(frame.batch, Runs.of_blocks(wanted))))
        session.batch_ended(frame.batch)

    def _store(self, session: Session, entry: JournalEntry) -> None:
        """Hand an accepted entry to the keeper: to be journalled, staged, or written directly."""
        match session.state:
            case Direct():
                self.keeper.write(entry, session.connection)
            case Staging():
                self.keeper.append(entry, session.connection, geometry=session.small_blocks)
            case _:
                self.keeper.append(entry, session.connection)

    # --- reports of the keeper ----------------------------------------------------------------------------
    def batch_ended(self, connection: int, batch: int) -> None:
        """A batch of BLOCKS is durable."""
        session = self.session
        if session is not None and connection == session.connection:
            session.batch_ended(batch)

    def committed(self, connection: int, commit: f.Commit) -> None:
        """A resync's COMMIT is durable."""
        session = self.session
        mine = session is not None and connection == session.connection
        # From snapshot to snapshot one follows another for ever: the first of a connection is news.
        routine = session is not None and mine and session.by_snapshots and session.committed
        self._do(e.Log("debug" if routine else "info", f"consistent at sequence {commit.sequence}"))
        if session is not None and mine:
            session.commit_durable(commit)
            self.keeper.take_generations(session.generations)  # before the ACK of the COMMIT

    def journal_full(self, refused: list[JournalEntry], error: str) -> None:
        """Entries came back for want of room. In a resync they go directly; a stream waits, if that can help."""
        session = self.session
        if session is None:
            return
        session.take_back(refused)
        if isinstance(session.state, Staging):
            self._do(e.Log("warning", "no room to stage the resync: the replica becomes inconsistent"))
            session.state = Direct(session.state.begin)
            self.keeper.go_direct(session.hello, session.connection)
        elif self.keeper.can_free:
            self.keeper.wait_for_room()
        else:
            self._refuse(session, "disk-full", f"the secondary has no room for its journal: {error}")

    def failed(self, code: str, message: str) -> None:
        """Something under this replica failed: tell the primary, and start again from the state on disk."""
        if self._primary is not None:
            self._do(e.Send(self._primary.connection, f.Refuse(code, message)))
            self._do(e.CloseConnection(self._primary.connection, message))
        self._do(e.Log("error", message))
        self._do(e.Restart(message, self.keeper.tail))
        self._ended = True

    # --- answers ------------------------------------------------------------------------------------------
    def _do(self, effect: e.Effect) -> None:
        self._effects.append(effect)

    def _acknowledge(self, now: float) -> None:
        session = self.session
        if session is None:
            return
        ack = f.Ack(
            sequence=self.keeper.sequence,
            batch=session.ended_batches,
            resync_committed=session.committed,
            applied_sequence=self.keeper.applied_to.sequence,
            staged_bytes=self.keeper.staged_bytes,
            replica_state=self.replica_state.code,
            progress=self.keeper.progress if session.asks_progress else 0,
        )
        if now >= self._ack_due or session.is_news(ack):
            self._ack_due = now + ACK_INTERVAL_S
            self._do(e.Send(session.connection, ack))

    def _refuse(self, session: Session, code: str, message: str) -> None:
        self._do(e.Send(session.connection, f.Refuse(code, message)))
        self._do(e.Log("error", message))
        self._close(session, message)

    def _close(self, session: Session, reason: str) -> None:
        self._do(e.CloseConnection(session.connection, reason))
        self._leave()
