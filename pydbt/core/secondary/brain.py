"""The secondary's decisions: the conversation with the primary, and what the replica may call itself.

Nothing of the stream is acknowledged before ``keeper`` has it durable. Frames that arrive while something must be
waited for (a Barrier) are deferred, and taken up in their order afterwards.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import NO_GENERATIONS
from pydbt.core.secondary import events as e
from pydbt.core.secondary.acknowledger import AckFilter, BatchOrder
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.handshake import refusal
from pydbt.core.secondary.journal import Entry
from pydbt.core.secondary.keeper import Job, Keeper
from pydbt.core.secondary.replica import Recovery, ReplicaRecord, ReplicaState
from pydbt.core.secondary.status import Phase, status_of
from pydbt.core.units import SECTOR_BYTES, Geometry

WORD_SECONDS = 4.0
"""A secondary that is busy with its disk still says something this often, so that it is not taken for dead."""


class ProtocolError(Exception):
    """The primary sent a legal frame where it may not."""


class Secondary:
    """The secondary's brain: feed it events, carry out the effects it returns, in order.

    After a Restart effect it does nothing more; another one takes its place.
    """

    def __init__(
        self, config: SecondaryConfig, record: ReplicaRecord, recovery: Recovery, staged: StagedBlocks, now: float
    ) -> None:
        self.config = config
        self.keeper = Keeper(self, config, record, recovery, staged)
        self.phase = Phase.OFFLINE
        self._peer: int | None = None
        self._hello: f.Hello | None = None
        self._waiting: e.Connected | None = None
        self._begin: f.Begin | None = None
        self._generations = NO_GENERATIONS
        self._committed = 0
        self._received: int | None = None
        self._room_bytes = 0
        self._compares: deque[Job] = deque()
        self._deferred: deque[tuple[Entry | f.Frame, bool]] = deque()
        self._batches = BatchOrder()
        self._acks = AckFilter()
        self._word_due = now
        self._broken = False

    # --- the brain's interface ----------------------------------------------------------------------------
    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        """Take one event; the effects are to be carried out in order before the next event is given."""
        if not self._broken:
            self._dispatch(event, now)
        if not self._broken:
            self._advance(now)
        effects, self.keeper.effects = self.keeper.effects, []
        return effects

    def deadline(self) -> float | None:
        """When ``handle(Tick(), now)`` is due."""
        due = [self.keeper.deadline(), self._word_due if self._peer is not None else None]
        return min((time for time in due if time is not None), default=None)

    @property
    def peer(self) -> int | None:
        """The connection of the welcomed primary."""
        return self._peer

    @property
    def record(self) -> ReplicaRecord:
        """What the state file says."""
        return self.keeper.record

    @property
    def drained(self) -> bool:
        """Is everything that may be applied applied, and durable on the target?"""
        return self.keeper.drained

    @property
    def replica_state(self) -> ReplicaState:
        """What the replica may call itself now."""
        if not self.record.consistent:
            return ReplicaState.INCONSISTENT
        if self.phase is Phase.STAGING or self.keeper.stage_from is not None:
            return ReplicaState.CONSISTENT if self._by_epochs else ReplicaState.OUTDATED
        return ReplicaState.UP_TO_DATE if self.phase is Phase.STREAMING else ReplicaState.CONSISTENT

    @property
    def _by_epochs(self) -> bool:
        """Whether the primary goes from one COMMIT to the next: the replica is an image of a moment, and meant to be."""
        return self._peer is not None and self._begin is not None and bool(self._begin.flags & f.BeginFlag.NO_STREAM)

    def status(self) -> dict[str, object]:
        """The replica's part of the report of the service."""
        return status_of(self.keeper, self.phase, self.replica_state, connected=self._peer is not None)

    # --- events -------------------------------------------------------------------------------------------
    def _dispatch(self, event: e.Event, now: float) -> None:
        match event:
            case e.FrameReceived(connection, frame) if connection == self._peer:
                self._received_frame(frame)
            case e.JournalDurable():
                self.keeper.journal_durable(event)
            case e.JournalRefused():
                self.keeper.journal_refused(event)
            case e.Applied(mark):
                self.keeper.applied(mark, now)
            case e.Written(ticket):
                self.keeper.written(ticket)
            case e.Synced(ticket, mark):
                self.keeper.synced(ticket, mark, now)
            case e.Compared(ticket, differing):
                self._compared(ticket, differing, now)
            case e.TargetFailed(error):
                self.failed("target-error", f"the secondary's target failed: {error}")
            case e.RoomMeasured(free_bytes):
                self._room_bytes = free_bytes
            case e.Connected():
                self._connected(event)
            case e.Disconnected(connection) if connection == self._peer:
                self._leave()
            case e.Disconnected(connection) if self._waiting and connection == self._waiting.connection:
                self._waiting = None
            case _:
                pass

    def _advance(self, now: float) -> None:
        """Take up what had to wait, until something has to wait again."""
        self.keeper.advance(now, self._peer)
        while self._deferred and self.keeper.barrier is None and self._peer is not None:
            entry, accepted = self._deferred.popleft()
            if accepted:
                self._store(entry)
            else:
                self._frame(entry)
            self.keeper.advance(now, self._peer)
        if self._waiting is not None and self.keeper.settled:
            waiting, self._waiting = self._waiting, None
            self._welcome(waiting)
        self._acknowledge(now)

    # --- coming and going ---------------------------------------------------------------------------------
    def _connected(self, event: e.Connected) -> None:
        if self._peer is not None and self._turned_away(event):
            return  # whoever may not write to this replica disturbs nobody who does
        for earlier in (self._peer, self._waiting.connection if self._waiting else None):
            if earlier is not None:
                self._do(e.CloseConnection(earlier, "the primary connected anew"))
        self._leave()
        self._waiting = event

    def _leave(self) -> None:
        """No peer any more. Work under way ends by itself; what was deferred was never acknowledged."""
        self._peer = None
        self.phase = Phase.OFFLINE
        self._deferred.clear()
        self.keeper.leave()

    def _turned_away(self, event: e.Connected) -> bool:
        """Whether this primary was refused."""
        refuse = refusal(event.hello, self.record, self.config.target_bytes)
        if refuse is not None:
            self._do(e.Send(event.connection, refuse))
            self._do(e.CloseConnection(event.connection, refuse.message))
            self._do(e.Log("warning", f"refused a primary: {refuse.message}"))
        return refuse is not None

    def _welcome(self, event: e.Connected) -> None:
        if self._turned_away(event):
            return
        self._peer, self._hello, self.phase = event.connection, event.hello, Phase.READY
        self._received, self._begin, self._committed = self.keeper.sequence, None, 0
        self._generations = event.hello.generations
        self._batches, self._acks = BatchOrder(), AckFilter()
        welcome = f.Welcome(
            volume=self.record.volume,
            state="consistent" if self.record.consistent else "inconsistent",
            epoch=self.keeper.epoch,
            sequence=self.keeper.sequence,
            staged=self.keeper.stage_from is not None,
            size_bytes=self.config.target_bytes,
            fresh=self.record.fresh,
            replica=self.record.replica,
            software=self.config.software,
            generations=self.record.generations,
            progress=self.keeper.progress if f.PROGRESS in event.hello.features else None,
        )
        self._do(e.Send(event.connection, welcome))

    # --- frames -------------------------------------------------------------------------------------------
    def _received_frame(self, frame: f.Frame) -> None:
        if isinstance(frame, f.Ping):
            self._do(e.Send(self._peer, f.Pong(frame.token)))
        elif self.keeper.barrier is not None or self._deferred:
            self._deferred.append((frame, False))
        else:
            self._frame(frame)

    def _frame(self, frame: f.Frame) -> None:
        try:
            match frame:
                case f.Stream():
                    self._stream(frame)
                case f.Blocks():
                    self._in_resync("BLOCKS", frame.batch)
                    self._check_bounds(frame)
                    self._store(frame)
                case f.Digests():
                    self._digests(frame)
                case f.Begin():
                    self._begun(frame)
                case f.Generation():
                    self._generation(frame)
                case f.Commit():
                    self._check_commit(frame)
                    self._store((frame, self._begin.epoch))
                case f.Bye(reason):
                    self._close(f"the primary said goodbye: {reason}")
                case _:
                    raise ProtocolError(f"a {type(frame).__name__.upper()} frame is not for a secondary")
        except ProtocolError as error:
            self._refuse("protocol", f"the primary broke the protocol: {error}")

    def _stream(self, frame: f.Stream) -> None:
        self._check_bounds(frame)
        if self.phase is Phase.READY:
            here = self.record.consistent and self.keeper.stage_from is None and self._hello.epoch == self.keeper.epoch
            if not here:
                raise ProtocolError("a STREAM frame came before a BEGIN, though the replica is not where it continues")
            self.phase = Phase.STREAMING
        if self._received is not None:
            if frame.last <= self._received:
                return  # had it before
            if frame.first > self._received + 1:
                raise ProtocolError(f"sequence {frame.first} came after {self._received}")
        self._received = frame.last
        self._store(frame)

    def _generation(self, frame: f.Generation) -> None:
        """For the next COMMIT; in the stream it is what all that follows is called: behind what came before, durably."""
        if self.phase is Phase.STREAMING and self.keeper.streaming:
            self._deferred.appendleft((frame, False))
            self.keeper.wait_for_stream()
            return
        self._generations = frame.generations
        if self.phase is Phase.STREAMING:
            self.keeper.persist(generations=frame.generations.in_sync())

    def _begun(self, frame: f.Begin) -> None:
        if not self.keeper.settled:
            self.keeper.settle()
            self._deferred.appendleft((frame, False))
            return
        self._begin, self._received = frame, None
        needed = frame.total_bytes + frame.total_bytes // 10 + self.config.stage_margin_bytes
        if self.record.consistent and self.config.stage and self._room_bytes >= needed:
            self.phase = Phase.STAGING
            self.keeper.append(frame, self._peer, geometry=self._geometry)
        else:
            self.phase = Phase.DIRECT
            self.keeper.go_direct(self._hello, self._peer)

    def _digests(self, frame: f.Digests) -> None:
        """Compare, behind everything that came before: with an older content a block may look equal and not stay so."""
        if self.keeper.streaming:
            self._deferred.appendleft((frame, False))
            self.keeper.wait_for_stream()
            return
        if self.phase is not Phase.STREAMING:
            self._in_resync("DIGESTS", frame.batch)
        elif not self._batches.begin(frame.batch):
            raise ProtocolError(f"the number {frame.batch} of a DIGESTS frame is not above those before it")
        if frame.unit_bytes < self._geometry.block_bytes:
            raise ProtocolError("a DIGESTS frame has units smaller than a block")
        units = Geometry(self._hello.size_bytes, frame.unit_bytes)
        if int(frame.units.ends().max(initial=0)) > units.block_count:
            raise ProtocolError("a DIGESTS frame names blocks past the end of the volume")
        staged = self.keeper.staged_units_of(frame.units, frame.unit_bytes)
        job = Job(self.keeper.ticket(), frame, self._peer, staged_blocks=staged)
        self._compares.append(job)
        self._do(e.Compare(job.ticket, frame, units))

    def _compared(self, ticket: int, differing: np.ndarray, now: float) -> None:
        job = self._compares.popleft()
        assert job.ticket == ticket, "the applier works in order"
        if job.connection == self._peer:
            wanted = np.union1d(differing, job.staged_blocks)
            # A block that is equal for what was written just now is not called equal ahead of that.
            if len(wanted) < job.entry.units.total() and self.keeper.compared(ticket):
                self._acknowledge(now)
            self._do(e.Send(self._peer, f.Want(job.entry.batch, Runs.of_blocks(wanted))))
            self._batches.end(job.entry.batch)

    def _check_commit(self, frame: f.Commit) -> None:
        if self.phase not in (Phase.STAGING, Phase.DIRECT) or frame.resync != self._begin.resync:
            raise ProtocolError("a COMMIT frame belongs to no BEGIN")
        if self._received is not None and frame.sequence != self._received:
            raise ProtocolError(f"a COMMIT at sequence {frame.sequence} after a stream up to {self._received}")
        if self._compares:
            raise ProtocolError("a COMMIT came before the answer to a DIGESTS frame")

    def _in_resync(self, name: str, batch: int) -> None:
        if self.phase not in (Phase.STAGING, Phase.DIRECT):
            raise ProtocolError(f"a {name} frame came outside of a resync")
        if not self._batches.begin(batch):
            raise ProtocolError(f"the number {batch} of a {name} frame is not above those before it")

    def _check_bounds(self, frame: f.Stream | f.Blocks) -> None:
        if frame.extents.end_sector > self._hello.size_bytes // SECTOR_BYTES:
            raise ProtocolError("data past the end of the volume")

    @property
    def _geometry(self) -> Geometry:
        """In the smallest units of DIGESTS and WANT, in which the stage is known."""
        return Geometry(self._hello.size_bytes, self._hello.block_bytes).compared

    def _store(self, entry: Entry) -> None:
        """Hand an accepted entry to the keeper, the way the phase wants it."""
        if self.phase is Phase.DIRECT:
            self.keeper.write(entry, self._peer)
        else:
            staging = self.phase is Phase.STAGING
            self.keeper.append(entry, self._peer, geometry=self._geometry if staging else None)

    # --- what the keeper tells ----------------------------------------------------------------------------
    def batch_ended(self, connection: int, batch: int) -> None:
        """A batch of BLOCKS is durable."""
        if connection == self._peer:
            self._batches.end(batch)

    def committed(self, connection: int, commit: f.Commit) -> None:
        """A resync's COMMIT is durable: the stream follows."""
        if connection == self._peer:
            self._committed, self._received = commit.resync, commit.sequence
            self.phase = Phase.READY if self._by_epochs else Phase.STREAMING
            self.keeper.persist(generations=self._generations.in_sync())  # before the ACK that says so

    def journal_full(self, refused: list[Entry], error: str) -> None:
        """Entries came back for want of room. In a resync they go directly; a stream waits, if that can help."""
        if self._peer is None:
            return
        self._deferred.extendleft((entry, True) for entry in reversed(refused))
        if self.phase is Phase.STAGING:
            self._do(e.Log("warning", "no room to stage the resync: the replica becomes inconsistent"))
            self.phase = Phase.DIRECT
            self.keeper.go_direct(self._hello, self._peer)
        elif self.keeper.can_free:
            self.keeper.wait_for_room()
        else:
            self._refuse("disk-full", f"the secondary has no room for its journal: {error}")

    def failed(self, code: str, message: str) -> None:
        """Something under this replica broke: tell the primary, and begin again from what is on disk."""
        for connection in (self._peer, self._waiting.connection if self._waiting else None):
            if connection is not None:
                self._do(e.Send(connection, f.Refuse(code, message)))
                self._do(e.CloseConnection(connection, message))
        self._do(e.Log("error", message))
        self._do(e.Restart(message, self.keeper.tail))
        self._broken = True

    # --- answers ------------------------------------------------------------------------------------------
    def _do(self, effect: e.Effect) -> None:
        self.keeper.effects.append(effect)

    def _acknowledge(self, now: float) -> None:
        if self._peer is None:
            return
        ack = f.Ack(
            sequence=self.keeper.sequence,
            batch=self._batches.through,
            resync_committed=self._committed,
            applied_sequence=self.keeper.mark.sequence,
            staged_bytes=self.keeper.staged_bytes,
            replica_state=self.replica_state.code,
            progress=self.keeper.progress if f.PROGRESS in self._hello.features else 0,
        )
        due = now >= self._word_due
        if due or ((self.phase is not Phase.READY or self._committed) and self._acks.news(ack)):
            self._word_due = now + WORD_SECONDS
            self._do(e.Send(self._peer, ack))

    def _refuse(self, code: str, message: str) -> None:
        self._do(e.Send(self._peer, f.Refuse(code, message)))
        self._do(e.Log("error", message))
        self._close(message)

    def _close(self, reason: str) -> None:
        self._do(e.CloseConnection(self._peer, reason))
        self._leave()
