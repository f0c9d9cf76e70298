"""The primary's decisions. Feed it events, carry out the effects it returns, ask for its next deadline.

Invariant, at every instant and also if the process dies in it:
*blocks that differ* ⊆ kernel bitmaps ∪ ``tracker.pending`` ∪ ``tracker.dirty`` ∪ in transit ∪ unsettled,
and everything of it that lives in this process alone is covered by the kernel bitmaps or a persisted map.
"""

from __future__ import annotations

from typing import assert_never

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.primary.calm import Calm
from pydbt.core.primary.config import PrimaryConfig, SavedMaps
from pydbt.core.primary.file_system_transactions import FileSystemTransactions
from pydbt.core.primary.flight_watch import FlightWatch
from pydbt.core.primary.intake import take_in, unloggable
from pydbt.core.primary.landing import Enter, Landed, Landing, Outcome
from pydbt.core.primary.link import Link
from pydbt.core.primary.mark_events import MarkComing, PlaceMark
from pydbt.core.primary.marks import Marks
from pydbt.core.primary.modes import LOGGING_PHASES, STREAMING_PHASES, SYNCING_MODES, Mode, Phase
from pydbt.core.primary.overload import Overload
from pydbt.core.primary.overview import Overview
from pydbt.core.primary.parts import Parts
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.recognition import Recognition
from pydbt.core.primary.rename import Ancestry
from pydbt.core.primary.reported_state import heartbeat
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.sender import send_stream
from pydbt.core.primary.settler import Settled, Settler
from pydbt.core.primary.snapshot_comparison import SnapshotComparison
from pydbt.core.primary.snapshot_landing import SnapshotLanding
from pydbt.core.primary.state import Effects, State
from pydbt.core.primary.status import PrimaryStatus
from pydbt.core.primary.stream_landing import StreamLanding
from pydbt.core.primary.taints import Taints
from pydbt.core.primary.verifier import Verifier
from pydbt.core.primary.wait_answers import WaitAnswers
from pydbt.core.protocol.frames import Ack, Commit, Pong, Unwritable, Want
from pydbt.core.protocol.recent import Recent
from pydbt.core.tracking.capture_record import Records, empty_records

# In unsynchronized mode the maps are merged and written this often (Fig. 6: back to step 620).
MERGE_INTERVAL_S = 5.0


class Primary:
    """One volume, one secondary. See ``events`` for what goes in and out."""

    def __init__(self, config: PrimaryConfig, now: float, maps: SavedMaps | None = None) -> None:
        self.config = config
        self.state = State(config, now, maps)
        self.link = Link(config.acknowledge_timeout_s, now)
        self.quiet = QuietBitmap(self.state, now)
        self.ancestry = Ancestry(self.state)
        self.settler = Settler(self.state)
        self.watch = FlightWatch(self.state, now)
        self.verifier: Verifier | SnapshotComparison
        self.landing: Landing
        if config.snapshot_interval_s is None:
            self.verifier, self.landing = Verifier(self.state), StreamLanding(self.state, self.watch)
        else:
            comparison = self.verifier = SnapshotComparison(self.state)
            self.landing = SnapshotLanding(self.state, self.quiet, comparison, config.snapshot_interval_s)
        self.transactions, self.marks = FileSystemTransactions(self.state), Marks(self.state)
        self._waits = WaitAnswers(self.state, self.landing, self.transactions)
        self._recognition, self._taints = Recognition(self.state), Taints(self.state)
        judging = self.verifier, self.landing, self._taints, self.transactions
        parts = Parts(self.state, self.link, self.quiet, self.settler, *judging)
        self.overview, self._calm = Overview(parts), Calm(parts)
        self.resync: Resync | None = None
        self._resyncs = 0
        self._overload, self.next_merge = Overload(), now
        self._last_ack: tuple[int, ...] = ()

    # --- the interface ------------------------------------------------------------------------------------
    def handle(self, event: ev.Event, now: float) -> list[ev.BrainEffect]:
        """Take one event in; return what is to be done, in order."""
        effects = self.state.effects = Effects()
        self.link.looked(self.state.now, now)
        self.state.now = now
        match event:
            case ev.Captured():
                self._captured(event, now)
            case ev.Received():
                self._received(event, now)
            case ev.Outbound(queued_bytes=queued, sent_bytes=sent):
                self.link.outbound(queued)
                self.state.statistics.sent_bytes = sent
            case ev.LinkSeen(seen=seen):
                self.link.seen(seen, now)
            case ev.BlocksRead():
                self._blocks_read(event, now)
            case ev.QuietTaken():
                self._quiet_taken(event, now)
            case ev.Persisted():
                self._persisted(event, now)
            case ev.LeftOutKept(error=error):
                self.quiet.left_out_kept(error, now)
            case ev.Connected():
                self._connected(event, now)
            case ev.Disconnected(reason=reason, unusable=unusable):
                self._lose_connection(reason, now, unusable=unusable)
            case ev.DiskQuiet(position=position):
                self._read_unseen_again(self.watch.disk_idle(position, now), now)
            case ev.UsedBlocks():
                self._used_blocks(event)
            case ev.PayloadArmed() | ev.Flushed() | ev.Held() | ev.Released():
                self._follow(self.landing.told(event, self.resync, now), now)
            case PlaceMark() | MarkComing():
                self.marks.told(event)
            case ev.WaitAsked() | ev.WaitGone():
                self._waits.told(event)
            case ev.VerifyAsked():
                self.state.left_out.found(event.free, event.in_use)
                if self._taints.answered_by_copy(event.runs, event.answers):
                    self._halt(now, "the secondary cannot compare, and is sent everything")
                else:
                    self.verifier.begin(event.runs, event.repair, event.rate_limit_bytes, now, event.answers)
            case ev.VerifyCancelled():
                self.verifier.cancel()
            case ev.PauseAsked(reason=reason, mode=mode):
                self._rest(mode, now, reason)
            case ev.RemoveAsked():
                self._rest(Mode.REMOVED, now, "the secondary is removed")
                self.ancestry.written_alone()
            case ev.ResumeAsked():
                self._resume(now)
            case ev.RoomShort(reason=reason):
                if self.logging:
                    self._overflow(reason, empty_records(), now)
            case ev.Renamed(name=name):
                self.ancestry.renamed(name)
            case ev.Tainted(reason=reason):
                self._taints.add(reason)
            case ev.WrittenDown(number=number):
                self.state.unwritten.written(number)
            case ev.EveryBitAsked():
                self.quiet.retire_every_bit(now)
            case ev.Tick():
                pass
            case _ as never:
                assert_never(never)
        self._advance(now)
        return [*effects.items, *self.state.unwritten.take()]

    def deadline(self) -> float:
        """When ``handle(ev.Tick(), now)`` is due at the latest."""
        return self._calm.deadline(self.resync, self.next_merge)

    def calm_until(self) -> float:
        """When something is due although nothing happens; minus infinity: it has to be looked at all the time."""
        return self._calm.until(self.resync, self.next_merge)

    @property
    def snapshot_based(self) -> bool:
        """Whether only addresses are captured, and the replica goes from snapshot to snapshot."""
        return not self.landing.with_stream

    @property
    def mode(self) -> Mode:
        return self.state.mode

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def logging(self) -> bool:
        """Whether captured writes enter the log with their payload."""
        return self.mode is Mode.NORMAL or (self.phase in LOGGING_PHASES and self.landing.with_stream)

    def status(self, now: float) -> PrimaryStatus:
        """Everything that a report on this secondary tells."""
        return self.overview.status(self.resync, now)

    def unsynchronized_map(self) -> DirtyMap:
        """The blocks that must be on disk for a crash to lose nothing that the kernel bitmaps do not hold."""
        return self.overview.unsynchronized_map(self.resync)

    def out_of_sync_map(self, *, on_the_way: bool = True) -> DirtyMap:
        """Every block known here to differ or not yet known to be equal; on request without those that are merely on the way."""
        return self.overview.out_of_sync_map(self.resync, on_the_way=on_the_way)

    def out_of_sync_bytes(self) -> int:
        """As in the status (the kernel's active bitmap comes on top)."""
        return self.overview.out_of_sync_bytes(self.resync)

    # --- capture ------------------------------------------------------------------------------------------
    def _captured(self, event: ev.Captured, now: float) -> None:
        """Fig. 4, 410-418, for a batch of write requests; or, unsynchronized, only their numbers."""
        state = self.state
        taken = take_in(state, event, now)
        writes = taken.segment.records
        if len(writes):
            self.ancestry.written()
        if taken.newly_lost:
            self.watch.lose_sight(now)
        self.transactions.heed(event, taken)
        if not self.logging:
            state.release(writes)
            return
        written = taken.written(state)
        too_many = self.settler.mark(taken.report, taken.segment, written, now, taken.since)
        self.verifier.touch(written)
        if reason := unloggable(state, taken, too_many):
            self._overflow(reason, writes, now)
        elif not self.transactions.insert(event, taken, written):
            self._overflow("the transaction log has no free space", writes, now)
        elif len(writes):
            state.queue.append(taken.segment)

    def _read_unseen_again(self, unseen: Runs, now: float) -> None:
        """Writes to these blocks have ended, and their completions were never shown."""
        if not unseen.total():
            return
        self.state.effects.log("debug", f"{unseen.total()} blocks completed unseen; they are read again")
        self.transactions.ended_unseen(unseen)
        if self.logging:
            self.settler.unknown(unseen, now)
        if not self.logging or self.phase is Phase.SETTLING:
            # Of those submitted before S0 the last sweep brings the content. Of those after, whose data is in the stream that
            # follows it, nobody knows whether the disk has the same: these are unsettled as well.
            self.state.tracker.mark_pending(*unseen)

    def _blocks_read(self, event: ev.BlocksRead, now: float) -> None:
        if self.settler.read(event, now) or self.verifier.read(event, now) or self.resync is None:
            return
        self.resync.read(event, now, every_block=self.landing.compares_every_block)

    # --- leaving and losing -------------------------------------------------------------------------------
    def _overflow(self, reason: str, writes: Records, now: float) -> None:
        """No room (¶80: log full). The queue is merged into the pending map, then discarded; the writers never notice."""
        state = self.state
        state.statistics.log_full += 1
        if warning := self._overload.note(now, state.statistics.write_rate_bytes(now)):
            state.effects.log("warning", warning)
        self._halt(now, f"log full: {reason}", by_load=True)
        self.ancestry.written_alone()
        if len(writes):
            state.tracker.mark_pending(*Runs.of_sectors(writes["sector"], writes["sectors"], state.geometry))
        state.release(writes)

    def _lose_connection(self, reason: str, now: float, *, unusable: bool = False) -> None:
        """The network or the secondary failed (Fig. 4, 452)."""
        self._recognition.left(unusable=unusable)
        was_up = self.link.up
        self.link.lost(reason, now)
        if self.mode in SYNCING_MODES or self.mode is Mode.NORMAL:
            self._halt(now, reason)
        elif was_up:
            self.state.effects.log("info", f"connection closed: {reason}")

    def _halt(self, now: float, reason: str, *, by_load: bool = False) -> None:
        """Fig. 6, 610: halt replication and discard the queue, after its blocks entered the pending map."""
        state = self.state
        unsent, readings = state.queue.clear()
        state.uncompleted.clear()
        state.release(unsent)
        for reading in readings:
            state.effects.add(ev.DropReading(reading))
        state.tracker.halt()
        self.settler.abandon(state.tracker.pending)
        self.verifier.pause(now)
        if self.resync is not None:
            self.resync.abandon()
            self.resync = None
        self.landing.abandon()
        if state.tracker.pending.any() or self.landing.unmapped:
            self.ancestry.written_alone()
        self.quiet.halt()
        state.switch_payload(False)
        self.state.enter_phase(Phase.IDLE)
        self._recognition.halted()
        self.state.enter_mode(Mode.UNSYNCHRONIZED, now, reason, by_load=by_load)
        self.next_merge = now + self.link.ask_anew()

    def _rest(self, mode: Mode, now: float, reason: str) -> None:
        if self.mode is mode:
            return
        if self.mode is not Mode.UNSYNCHRONIZED and not self.mode.rests:
            self._halt(now, reason)
        if not self.link.away:
            self.state.effects.add(ev.CloseConnection(reason, farewell=True))
            self.link.lost(reason, now)
        self.state.enter_mode(mode, now, f"{reason}; writes are still tracked")

    def _resume(self, now: float) -> None:
        if self.mode.rests:
            self.state.enter_mode(Mode.UNSYNCHRONIZED, now, "resumed")
            self.link.retry_now(now)

    # --- the connection -----------------------------------------------------------------------------------
    def _connected(self, event: ev.Connected, now: float) -> None:
        self.link.connected(now)
        if self._recognition.connected(event):
            self.ancestry.written_alone()
        self._recognition.remember_when_mapped()

    def _received(self, event: ev.Received, now: float) -> None:
        self.link.heard(now)
        match event.frame:
            case Ack() as ack:
                self._acknowledged(ack, now)
            case Want() as want:
                self.link.progress(now)
                self._wanted(want, now)
            case Pong(token=token):
                self.link.answered(token)
            case Unwritable() | Recent() as told:
                self._recognition.told(told)

    def _wanted(self, want: Want, now: float) -> None:
        """The secondary compared: the answer belongs to the part that had asked."""
        settled = self.settler.want(want, now)
        if settled is Settled.LOG_FULL:
            self._overflow("the transaction log has no free space", empty_records(), now)
        if settled is not Settled.NOTHING:
            return
        differing = self.verifier.want(want, now)
        if differing is not None:
            if len(differing) and self.settler.repair(differing, now):
                self._overflow("more blocks differ than are worth copying singly", empty_records(), now)
        elif self.resync is not None:
            differing = self.resync.want(want)
            if differing is not None and len(differing):
                self.landing.differed(differing)

    def _acknowledged(self, ack: Ack, now: float) -> None:
        """Fig. 4, 430-444: cumulative and durable."""
        news = (ack.sequence, ack.batch, ack.resync_committed, ack.applied_sequence, ack.staged_bytes)
        if news != self._last_ack:
            self._last_ack = news
            self.link.progress(now)
        self._recognition.replica_says(ack)
        if self.resync is not None:
            self.resync.acknowledged(ack.batch)
            if self.phase is Phase.COMMITTING and ack.resync_committed == self.resync.identifier:
                self._landed(self.resync.commit_sequence, now)
        # Before its COMMIT is acknowledged the secondary's sequence number belongs to an older image.
        if self.mode is Mode.NORMAL:
            self.durable_through(min(ack.sequence, self.state.queue.sent_through))

    def durable_through(self, sequence: int) -> None:
        """Everything up to a sequence number is durable on the secondary (Fig. 4, 430-444)."""
        state = self.state
        if sequence > state.acknowledged:
            state.acknowledged = sequence
            state.tracker.acknowledge(sequence)
            state.statistics.acknowledged(state.queue.acknowledge(sequence), state.now)
            state.unsettled.durable_through(sequence)
        state.replica.position = (self.config.epoch, state.acknowledged)

    # --- maps ---------------------------------------------------------------------------------------------
    def _used_blocks(self, event: ev.UsedBlocks) -> None:
        if self._recognition.scan_whole and not event.whole:  # it was not known yet when they were asked for
            return self.quiet.set_aside()
        self._taints.answered_by_scan()
        self.state.tracker.pending.set_extents(*event.runs)
        self.state.left_out.all_but(event.runs)
        self.state.replica.scanned, self.quiet.mapped, self.state.replica.unfinished = True, True, False
        self.state.likely.by_log(event.likely)
        self.state.effects.log("info", event.explanation)
        self.quiet.persist(zero_quiet=False)
        self._recognition.scanned(self.quiet.writes)

    def _quiet_taken(self, event: ev.QuietTaken, now: float) -> None:
        # From the landing's last sweep on, the log has every write that a flip for another secondary can name.
        in_log = self.mode is Mode.NORMAL or (self.logging and self.phase is not Phase.SETTLING and not event.asked)
        self.quiet.taken(asked=event.asked, in_log=in_log)
        if event.flipped and event.asked and self.resync is not None:
            self.resync.flipped()
        if in_log:
            return
        self.state.tracker.pending.merge_words(event.words)
        self.landing.written(event.words)
        if event.asked and self.landing.flipping and self.resync is not None:
            self._follow(self.landing.flipped(event.words, self.resync, now), now)
        else:
            self.quiet.persist(zero_quiet=True)

    def _persisted(self, event: ev.Persisted, now: float) -> None:
        complete = self.quiet.written(event, now)
        if event.error:
            return
        self._recognition.map_written(event.number)
        if complete and self.resync is not None and self.resync.map_persisted() and self.phase is Phase.SWEEPING:
            self.resync.announce(with_stream=self.landing.with_stream, now=now)
            self._follow(self.landing.try_landing(self.resync, now), now)

    # --- going on -----------------------------------------------------------------------------------------
    def _advance(self, now: float) -> None:
        """Everything that can be done without another event."""
        self._read_unseen_again(self.watch.advance(now), now)
        self.transactions.advance()
        self.state.statistics.observe(now, self.out_of_sync_bytes())
        for level, line in self.state.excursions.overdue(now):
            self.state.effects.log(level, line)
        self._check_link(now)
        if self.resync is not None:
            self._advance_resync(self.resync, now)
        elif self.mode is Mode.NORMAL:
            self._advance_normal(now)
        elif self.mode is Mode.SNAPSHOTS:
            self.quiet.keep_unsaved(now)
            if self.quiet.idle and self.landing.due(now) and self.link.available(now) and self.landing.ready(now):
                self._begin_resync(now)
        else:
            self._advance_unsynchronized(now)
        self._waits.answer()
        self.marks.advance()

    def _check_link(self, now: float) -> None:
        if self.link.up:
            resyncing = self.resync is not None and self.resync.awaiting
            waiting = self.state.queue.awaiting or resyncing or self.settler.awaiting or self.verifier.awaiting
            if dead := self.link.dead(now, waiting):
                self.state.effects.add(ev.CloseConnection(dead))
                self._lose_connection(dead, now)
            elif self.link.ping_due(now):
                ping = heartbeat(self.state, self.link, repairing=self.settler.repairing, now=now)
                self.state.effects.add(ev.SendFrame(ping))
        elif self.mode is Mode.UNSYNCHRONIZED and self.link.may_connect(now):
            self.link.attempt()
            self.state.effects.add(ev.Connect())

    def _advance_unsynchronized(self, now: float) -> None:
        if not self.quiet.at_rest(now):
            return
        if self.mode is Mode.UNSYNCHRONIZED and self.link.available(now):
            if not self.state.replica.scanned:
                self._taints.search_begins()
                self.quiet.scan(whole=self._recognition.search_begins())  # answered by ev.UsedBlocks, then ev.Persisted
            elif self.landing.ready(now):
                self._begin_resync(now)
        elif now >= self.next_merge and self.state.replica.scanned:
            self.next_merge = now + MERGE_INTERVAL_S
            self.quiet.take()

    def _advance_normal(self, now: float) -> None:
        self.ancestry.renew()
        send_stream(self.state, self.link, self.transactions.for_history)
        if self.settler.advance(now, hurry=self.landing.waited_for or self.marks.awaited) is Settled.LOG_FULL:
            return self._overflow("the transaction log has no free space", empty_records(), now)
        if (findings := self.verifier.advance(now)) is not None:
            self._taints.clear(findings.answers)
            self.state.effects.add(findings.ended())
        self.quiet.retire(now)

    # --- resynchronizations -------------------------------------------------------------------------------
    def _begin_resync(self, now: float) -> None:
        """The secondary is available (decision 680): get the newest map, then sweep."""
        self._resyncs += 1
        if self.mode is not Mode.SNAPSHOTS:
            mode = Mode.INITIAL_SYNC if self.state.replica.initial else Mode.RESYNCHRONIZING
            self.state.enter_mode(mode, now, "the secondary is available")
        self.state.enter_phase(Phase.SWEEPING)
        self._taints.answered_by_landing(self.landing.begin())
        self.resync = Resync(self.state, self.quiet, self._resyncs, now)
        self.resync.ask_for_map()

    def _advance_resync(self, resync: Resync, now: float) -> None:
        resync.look_again(now)
        if self.phase in STREAMING_PHASES:
            send_stream(self.state, self.link, self.transactions.for_history)
        self._follow(self.landing.advance(resync, now), now)

    def _follow(self, outcome: Outcome, now: float) -> None:
        """Go where a landing leads."""
        match outcome:
            case Enter(phase=phase):
                self.state.enter_phase(phase)
                if phase is Phase.DRAINING and self.resync is not None:
                    self._advance_resync(self.resync, now)
            case Landed(sequence=sequence) if self.resync is not None:
                self.resync.commit_sequence = sequence
                self.state.enter_phase(Phase.COMMITTING)
                self.ancestry.offer()
                self.state.effects.add(ev.SendFrame(Commit(resync=self.resync.identifier, sequence=sequence)))

    def _landed(self, sequence: int, now: float) -> None:
        """Fig. 6, 684: the COMMIT is durable. Return to normal operation mode, or wait for the next snapshot."""
        self.durable_through(sequence)
        self.state.staged.clear()
        self.resync = None
        self.landing.committed(now)
        self._recognition.landed(self.landing.image)
        self.state.enter_phase(Phase.IDLE)
        self.state.enter_mode(self.landing.following, now, f"in sync at sequence {self.state.acknowledged}")
        self.state.statistics.resyncs += 1
        self._taints.landed()
        self.ancestry.in_sync()
        self._recognition.remember()
        self.quiet.enter_normal(now)
