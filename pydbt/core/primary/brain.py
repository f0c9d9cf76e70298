"""The primary's decisions. Feed it events, carry out the effects it returns, ask for its next deadline.

Invariant, at every instant and also if the process dies in it:
*blocks that differ* ⊆ kernel bitmaps ∪ ``tracker.pending`` ∪ ``tracker.dirty`` ∪ in transit ∪ unsettled,
and everything of it that lives in this process alone is covered by the kernel bitmaps or a persisted map.
"""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.flight_watch import FlightWatch
from pydbt.core.primary.link import Link
from pydbt.core.primary.modes import (
    FOLLOWING_MODES,
    LOGGING_PHASES,
    MODE_MOVES,
    PHASE_MOVES,
    SYNCING_MODES,
    Mode,
    Phase,
)
from pydbt.core.primary.position_check import doubt_about
from pydbt.core.primary.quiet_bitmap import KeepsMaps
from pydbt.core.primary.rename import Ancestry
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.settler import Settler
from pydbt.core.primary.snapshot_landing import Epochs
from pydbt.core.primary.statistics import Statistics
from pydbt.core.primary.verifier import Verifier
from pydbt.core.primary.waits import Waits
from pydbt.core.protocol.frames import REPLICA_STATE_NAMES, Ack, Ping, Want
from pydbt.core.tracking.capture_record import RecordFlag, RecordKind, empty_records
from pydbt.core.tracking.in_flight import InFlight
from pydbt.core.tracking.replica_queue import Segment, StreamQueue, updates_of
from pydbt.core.tracking.tracker import Tracker
from pydbt.core.tracking.uncompleted import Uncompleted

# Handed to the sender at most this much at once; the rest waits in the ring, where "log full" is decided.
OUTBOUND_LIMIT_BYTES = 8 << 20
# In normal mode the bitmaps flip this often, so that the quiet one covers only what is unacknowledged.
RETIRE_INTERVAL_S = 2.0
# In unsynchronized mode the maps are merged and written this often (Fig. 6: back to step 620).
MERGE_INTERVAL_S = 5.0
# A gap between two events longer than this is this process's own pause, and no silence of the secondary's.
STALL_S = 2.0


class Primary(KeepsMaps):
    """One volume, one secondary. See ``events`` for what goes in and out."""

    def __init__(self, config: PrimaryConfig, now: float) -> None:
        self.config = config
        self.geometry = config.geometry
        self.tracker = Tracker(config.geometry, config.log_slots)
        self.in_flight = InFlight(config.geometry)
        self.watch = FlightWatch(self, now)
        self.queue = StreamQueue()
        self.uncompleted = Uncompleted()
        self.link = Link(config.acknowledge_timeout_s, now)
        self.statistics = Statistics(now)
        self.ancestry = Ancestry(self)
        self.settler = Settler(self)
        self.verifier = Verifier(self)
        self.epochs = Epochs(self)
        self.resync = Resync(self)
        self.mode = Mode.UNSYNCHRONIZED
        self.phase = Phase.IDLE
        self.initial = config.initial
        self.scanned = not config.scan_used
        self._scan_whole = config.scan_whole
        self.known_replica = config.replica
        self.replica_position, self.replica_progress = (
            (config.replica_epoch, config.replica_sequence),
            config.replica_progress,
        )
        self._taken_at: tuple[int, int] | None = (
            None  # where it stood when it was found to be elsewhere, until it is in sync
        )
        self._later_epochs = config.later_epochs
        self.replica_state = "inconsistent" if config.initial else "outdated"
        self.sequence = 0
        self.acknowledged = 0
        self.position = 0
        self.lost = 0
        self.taints: list[str] = list(config.taints)
        self._taints_answered = config.answered  # by the comparison that the next landing completes
        self._begin_maps()
        self.payload_on = False
        self.next_retire = self._next_merge = now
        self._waits = Waits()
        self._batch = self._reading = 0
        self._handled_at = now
        self._remember_due = False
        self._said: tuple[int, ...] = ()
        self._fx = ev.Effects()

    # --- the interface ------------------------------------------------------------------------------------
    def handle(self, event: ev.Event, now: float) -> list[ev.Effect]:
        """Take one event in; return what is to be done, in order."""
        self._fx = ev.Effects()
        if now - self._handled_at > STALL_S:
            self.link.forgive(now)  # it was us who did not listen
        self._handled_at = now
        match event:
            case ev.Captured():
                self._captured(event, now)
            case ev.Received():
                self._received(event, now)
            case ev.Outbound(queued_bytes=queued, sent_bytes=sent):
                self.link.queued_bytes, self.statistics.sent_bytes = queued, sent
            case ev.BlocksRead():
                self.position_reached(event.position)
                if not (self.settler.read(event, now) or self.verifier.read(event, now)):
                    self.resync.read(event, now)
            case ev.QuietTaken():
                self._quiet_taken(event, now)
            case ev.Persisted():
                self._persisted(event, now)
            case ev.PayloadArmed():
                self.resync.armed(now)
            case ev.Connected():
                self._connected(event, now)
            case ev.Disconnected(reason=reason):
                self.lose_connection(reason, now)
            case ev.DiskQuiet(position=position):
                self.watch.disk_idle(position, now)
            case ev.UsedBlocks():
                self._used_blocks(event)
            case ev.Flushed() | ev.Held() | ev.Released():
                self.epochs.told(event, now)
            case ev.WaitAsked(token=token, position=position):
                (self.epochs if self.epochs.on else self._waits).add(token, position)
            case ev.WaitGone(token=token):
                (self.epochs if self.epochs.on else self._waits).drop(token)
            case ev.PauseAsked(reason=reason):
                self._pause(now, reason)
            case ev.RemoveAsked():
                self._pause(now, "the secondary is removed")
                self.ancestry.written_alone()
            case ev.RoomShort(reason=reason):
                if self.logging:
                    self.log_full(reason, empty_records(), now)
            case ev.Renamed(name=name):
                self.ancestry.renamed(name)
            case ev.ResumeAsked():
                if self.mode is Mode.PAUSED:
                    self.set_mode(Mode.UNSYNCHRONIZED, now, "resumed")
                    self.link.retry_now(now)
            case ev.Tainted(reason=reason):
                self.taint(reason)
            case ev.VerifyAsked(runs=runs, repair=repair, rate_limit_bytes=rate):
                self.verifier.begin(runs, repair, rate, now)
            case ev.VerifyCancelled():
                self.verifier.cancel()
            case ev.Tick():
                pass
        self._advance(now)
        return self._fx.items

    def deadline(self) -> float:
        """When ``handle(ev.Tick(), now)`` is due at the latest."""
        return min(
            self.next_retire,
            self._next_merge,
            self.link.deadline(),
            self.resync.deadline(),
            self.settler.deadline(),
            self.verifier.deadline(),
            self.epochs.deadline(),
        )

    @property
    def now(self) -> float:
        """When the event came that is being handled, or the last one that was."""
        return self._handled_at

    @property
    def effects(self) -> ev.Effects:
        """Where the parts of this brain put their effects."""
        return self._fx

    # --- capture ------------------------------------------------------------------------------------------
    def _captured(self, event: ev.Captured, now: float) -> None:
        """Fig. 4, 410-418, for a batch of write requests; or, unsynchronized, only their numbers."""
        records = event.records
        self.position = event.position
        newly_lost = event.lost - self.lost
        self.lost = event.lost
        report = self.in_flight.apply(records)
        is_write = (records["kind"] == RecordKind.SUBMIT) & (records["sectors"] > 0)
        writes = records[is_write]
        first_sequence = self.sequence + 1
        last_sequences = self.sequence + np.cumsum(updates_of(writes)) if len(writes) else np.empty(0, np.int64)
        if self.config.completed_first:
            firsts = np.concatenate(([first_sequence], last_sequences[:-1] + 1))[: len(writes)]
            self.uncompleted.apply(records, is_write, firsts)
        if len(writes):
            self.sequence = int(last_sequences[-1])
            self.statistics.captured(writes)
            self.ancestry.written()
        if newly_lost:
            self.watch.lose_sight(now)
        if not self.logging:
            self._release(writes)
            return
        firsts, counts = Runs.of_sectors(writes["sector"], writes["sectors"], self.geometry)
        taken = Segment(writes, last_sequences, first_sequence, now)
        too_many = self.settler.mark(report, taken, firsts, counts, now)
        self.verifier.touch(firsts, counts)
        if newly_lost:
            self.log_full(f"{newly_lost} records found no room in the ring", writes, now)
        elif len(writes) and bool((writes["flags"] & RecordFlag.NO_PAYLOAD).any()):
            self.log_full("a write's data found no room in the ring", writes, now)
        elif report.unmatched.total() and self.in_flight.certain:
            self.log_full("a write completed that capture had not seen submitted", writes, now)
        elif self.config.completed_first and report.failed.total():
            self.log_full("a write failed, and the secondary is not to have it before the disk has", writes, now)
        elif too_many:
            self.log_full("more blocks have an uncertain content than are worth reading singly", writes, now)
        elif len(writes):
            if self.tracker.insert_batch(last_sequences.astype(np.uint64), firsts, counts) < len(writes):
                self.log_full("the transaction log has no free space", writes, now)
            else:
                self.queue.append(taken)

    @property
    def logging(self) -> bool:
        """Whether captured writes enter the log with their payload."""
        return self.mode is Mode.NORMAL or (self.phase in LOGGING_PHASES and not self.epochs.on)

    def _release(self, writes: np.ndarray) -> None:
        with_data = writes[writes["data"] != 0]
        if len(with_data):
            self._fx.add(ev.ReleasePayload(with_data))

    def position_reached(self, position: int) -> bool:
        """Whether everything before a ring position has been taken in."""
        return self.position >= position

    # --- leaving and losing -------------------------------------------------------------------------------
    def log_full(self, reason: str, writes: np.ndarray, now: float) -> None:
        """¶80: log full. The queue is merged into the pending map, then discarded; the writers never notice."""
        self.resync.note_log_full(now)
        self._fx.log("info", f"log full ({reason}); out-of-sync blocks are tracked in the map and copied from the disk")
        self._halt(now, f"log full: {reason}")
        self.ancestry.written_alone()
        if len(writes):
            self.tracker.mark_pending(*Runs.of_sectors(writes["sector"], writes["sectors"], self.geometry))
        self._release(writes)

    def lose_connection(self, reason: str, now: float) -> None:
        """The network or the secondary failed (Fig. 4, 452)."""
        was_up = self.link.up
        self.link.lost(reason, now)
        if self.mode in SYNCING_MODES or self.mode is Mode.NORMAL:
            self._halt(now, reason)
        elif was_up:
            self._fx.log("info", f"connection closed: {reason}")

    def _halt(self, now: float, reason: str) -> None:
        """Fig. 6, 610: halt replication and discard the queue, after its blocks entered the pending map."""
        unsent, readings = self.queue.clear()
        self.uncompleted.clear()
        self._release(unsent)
        for reading in readings:
            self._fx.add(ev.DropReading(reading))
        self.tracker.halt()
        self.settler.abandon(self.tracker.pending)
        self.verifier.rest(now)
        self.resync.abandon()
        self.epochs.abandon()
        if self.tracker.pending.any() or (self.mode is Mode.EPOCHS and self.epochs.behind):
            self.ancestry.written_alone()
        self.retire_at = None
        if self.payload_on:
            self._fx.add(ev.SetPayload(False))
            self.payload_on = False
        self.set_phase(Phase.IDLE)
        if self.replica_state != "inconsistent":
            self.replica_state = "outdated"
        self.set_mode(Mode.UNSYNCHRONIZED, now, reason)
        self._next_merge = now

    def _pause(self, now: float, reason: str) -> None:
        if self.mode is Mode.PAUSED:
            return
        if self.mode is not Mode.UNSYNCHRONIZED:
            self._halt(now, reason)
        if self.link.up or self.link.connecting:
            self._fx.add(ev.CloseConnection(reason, farewell=True))
            self.link.lost(reason, now)
        self.set_mode(Mode.PAUSED, now, f"{reason}; writes are still tracked")

    def set_mode(self, mode: Mode, now: float, reason: str) -> None:
        if mode is self.mode:
            return
        assert mode in MODE_MOVES[self.mode], f"{self.mode} -> {mode}"
        self._fx.log("info", f"{self.mode} -> {mode}: {reason}")
        self.mode = mode
        self.statistics.mode_changed(mode in FOLLOWING_MODES, now)

    def set_phase(self, phase: Phase) -> None:
        if phase is self.phase:
            return
        assert phase in PHASE_MOVES[self.phase] or phase is Phase.IDLE, f"{self.phase} -> {phase}"
        self._fx.log("debug", f"phase {self.phase} -> {phase}")
        self.phase = phase

    def next_batch(self) -> int:
        """The number of the next BLOCKS or DIGESTS frame; one count for both, in the order they are queued."""
        self._batch += 1
        return self._batch

    def next_reading(self) -> int:
        """Names blocks to be read; never used twice, so that a late answer meets nothing."""
        self._reading += 1
        return self._reading

    # --- the connection -----------------------------------------------------------------------------------
    def _connected(self, event: ev.Connected, now: float) -> None:
        self.link.connected(now)
        doubt, at = "", (event.epoch, event.sequence)
        if self.scanned:
            doubt = doubt_about(
                self.known_replica, at if at == self._taken_at else self.replica_position, event, self.config.assumed_in_sync,
                self._later_epochs, self.resync.unfinished, self.replica_progress,
            )  # fmt: skip
        if doubt:
            self._fx.log("warning", f"{doubt}; every block in use is compared or copied")
            if event.replica == self.known_replica:
                self.remember_replica()  # so that the next run sees it too, if this one dies before the map has everything
            self.ancestry.written_alone()
            self.initial, self.scanned = True, False
        if not self.scanned:  # it is taken as it is: the map will have all that it lacks
            self._taken_at, self.replica_progress = at, 0
        self.replica_progress = max(self.replica_progress, event.progress or 0)
        self._scan_whole = self.config.scan_whole or event.held
        self.replica_state = "inconsistent" if self.initial or event.state == "inconsistent" else "outdated"
        self.resync.fresh_target = event.fresh
        self.known_replica = event.replica
        # A new replica is written down only after the map that holds all it lacks.
        self._remember_due = not self.scanned
        if self.scanned:
            self.remember_replica()

    def _received(self, event: ev.Received, now: float) -> None:
        self.link.heard(now)
        match event.frame:
            case Ack() as ack:
                self._acknowledged(ack, now)
            case Want() as want:
                self.link.progress(now)
                if not (self.settler.want(want, now) or self.verifier.want(want, now)):
                    self.resync.want(want, now)
            case _:
                pass  # a PONG: it was heard, and that is all it says

    def _acknowledged(self, ack: Ack, now: float) -> None:
        """Fig. 4, 430-444: cumulative and durable."""
        self.replica_progress = max(self.replica_progress, ack.progress)
        said = (ack.sequence, ack.batch, ack.resync_committed, ack.applied_sequence, ack.staged_bytes)
        if said != self._said:
            self._said = said
            self.link.progress(now)
        self.resync.replica_said(REPLICA_STATE_NAMES[ack.replica_state])
        self.resync.acknowledged(ack, now)
        # Before its COMMIT is acknowledged the secondary's sequence number belongs to an older image.
        if self.mode is Mode.NORMAL:
            self.durable_through(min(ack.sequence, self.queue.sent_through))

    def durable_through(self, sequence: int) -> None:
        """Everything up to a sequence number is durable on the secondary (Fig. 4, 430-444)."""
        if sequence > self.acknowledged:
            self.acknowledged = sequence
            self.tracker.acknowledge(sequence)
            self.queue.acknowledge(sequence)
            self.settler.durable_through(sequence)
        self.replica_position = (self.config.epoch, self.acknowledged)

    # --- maps ---------------------------------------------------------------------------------------------
    def taint(self, reason: str) -> None:
        """The maps may not tell all that differs: nothing is called up to date before everything was compared."""
        if reason not in self.taints:
            self.taints.append(reason)
            self._fx.log("error", f"tainted: {reason}; the replica is not called up to date before it was compared")

    def answer_taints(self, reasons: tuple[str, ...]) -> None:
        """The next landing completes a comparison of everything, as far as these are concerned."""
        self._taints_answered = tuple(dict.fromkeys((*self._taints_answered, *reasons)))

    def clear_taints(self, reasons: tuple[str, ...]) -> None:
        """Everything was compared after these had come up, and what differed is in sync or known to be out of it."""
        if any(reason in self.taints for reason in reasons):
            self.taints = [reason for reason in self.taints if reason not in reasons]
            self._fx.log(
                "info", "not tainted any more: everything was compared" if not self.taints else "still tainted"
            )

    def _used_blocks(self, event: ev.UsedBlocks) -> None:
        self._taints_answered = tuple(self.taints)
        self.tracker.pending.set_extents(*event.runs)
        self.scanned = self.mapped = True
        self.resync.unfinished = False
        self._fx.log("info", event.explanation)
        self.quiet_due = True
        self._fx.add(ev.Persist(zero_quiet=False))

    # --- going on -----------------------------------------------------------------------------------------
    def _advance(self, now: float) -> None:
        """Everything that can be done without another event."""
        self.watch.advance(now)
        self.statistics.observe(now, self.out_of_sync_bytes())
        self._check_link(now)
        match self.mode:
            case Mode.UNSYNCHRONIZED | Mode.PAUSED:
                self._advance_unsynchronized(now)
            case Mode.NORMAL:
                self._advance_normal(now)
            case Mode.EPOCHS:
                self.epochs.advance(now)
            case _:
                self.resync.advance(now)
        self._answer_waits()

    def _check_link(self, now: float) -> None:
        if self.link.up:
            waiting = self.queue.awaiting or self.resync.awaiting or self.settler.awaiting or self.verifier.awaiting
            dead = self.link.dead(now, waiting)
            if dead:
                self._fx.add(ev.CloseConnection(dead))
                self.lose_connection(dead, now)
            elif self.link.ping_due(now):
                self._fx.add(ev.SendFrame(Ping(token=self.link.next_token(now))))
        elif self.mode is Mode.UNSYNCHRONIZED and self.link.may_connect(now):
            self.link.connecting = True
            self._fx.add(ev.Connect())

    def _advance_unsynchronized(self, now: float) -> None:
        if self.quiet_due or now < self._retry_persist_at:
            return
        if self.mode is Mode.UNSYNCHRONIZED and self.link.up:
            if not self.scanned:
                self.quiet_due = True  # answered by ev.UsedBlocks, then ev.Persisted
                self._fx.add(ev.ScanUsed(self._scan_whole))
            elif not self.epochs.on or self.epochs.ready(now):
                self.resync.begin(now)
        elif now >= self._next_merge and self.scanned:
            self._next_merge = now + MERGE_INTERVAL_S
            self.request_quiet()

    def _advance_normal(self, now: float) -> None:
        self.ancestry.renew()
        self.send_stream()
        self.settler.advance(now, hurry=bool(self._waits))
        self.verifier.advance(now)
        retire = self.retire_at is not None and self.acknowledged >= self.retire_at and self.may_retry_persist(now)
        if retire and self.quiet_held and not self.quiet_due:
            self.retire_at = None
            if len(self.settler):
                self.quiet_due = True
                self._fx.add(ev.Persist(zero_quiet=True))
            else:
                self._fx.add(ev.ZeroQuiet())
                self.quiet_held = False
        if now >= self.next_retire and not self.quiet_held and not self.quiet_due and now >= self._retry_persist_at:
            self.next_retire = now + RETIRE_INTERVAL_S
            if self.statistics.written_since_retire():
                self.request_quiet()

    def send_stream(self) -> None:
        """Hand queued updates to the sender, in order, as far as it has room (Fig. 4, 424)."""
        budget = OUTBOUND_LIMIT_BYTES - self.link.queued_bytes
        while budget > 0 and (item := self.queue.take(self.uncompleted.sendable_through)) is not None:
            budget -= item.length_bytes
            if item.reading is not None and item.runs is not None:
                self._fx.add(ev.SendSettled(item.reading, item.first_sequence, item.runs))
                continue
            self._fx.add(ev.SendStream(item.records, item.last_sequences, item.first_sequence))
            self.link.queued_bytes += item.length_bytes
            self.statistics.sent(item.records)

    def enter_normal(self, now: float, resync: int) -> None:
        """Fig. 6, 684: return to normal operation mode (or what is in its place with addresses only)."""
        self.initial, self._taken_at = False, None
        self._later_epochs = (self.config.epoch,)
        self.replica_state = "consistent" if self.epochs.on else "up-to-date"
        self.set_phase(Phase.IDLE)
        self.set_mode(Mode.EPOCHS if self.epochs.on else Mode.NORMAL, now, f"in sync at sequence {self.acknowledged}")
        self.next_retire = now + RETIRE_INTERVAL_S
        self.statistics.resyncs += 1
        self.clear_taints(self._taints_answered)
        self._taints_answered = ()
        self.ancestry.in_sync()
        self.remember_replica()
        self.quiet_due = True
        # Of what was taken for another secondary since S0, only the acknowledgement tells.
        self._fx.add(ev.Persist(zero_quiet=self.quiet_held and self.retire_at is None))

    def _answer_waits(self) -> None:
        self._waits.reached(self.position, self.sequence)
        if self.mode is Mode.EPOCHS and not self.taints:
            self.epochs.answer_waits()
        elif self.mode is Mode.NORMAL and not self.taints:
            for token in self._waits.take_done(self.acknowledged, self.settler.oldest_sequence()):
                self._fx.add(ev.AnswerWait(token))

    def out_of_sync_blocks(self) -> int:
        """Blocks known here to differ or not yet known to be equal (the kernel's active bitmap comes on top)."""
        transit = sum(transit.runs.total() for transit in self.resync.in_transit())
        return self.tracker.out_of_sync_blocks() + transit + len(self.settler) + self.epochs.kept.count()

    def out_of_sync_bytes(self) -> int:
        return min(self.out_of_sync_blocks() * self.geometry.block_bytes, self.geometry.size_bytes)
