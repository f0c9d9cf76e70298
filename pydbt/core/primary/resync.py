"""Resynchronization (Fig. 6, 682; ¶92-95): sweeps, then one exact landing on the primary's history.

Exactness: the stream is kept from S0 on; the map is flipped after S0, so it names every write submitted
before S0; each of those has completed before the last sweep reads; the last read is over by S1. Sweep,
then the stream from S0 to S1, leaves the replica exactly the primary at S1, with no freeze.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from pydbt.core.blocks import compared
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.events import (
    BlocksRead,
    DropReading,
    Persist,
    ReadBlocks,
    SendBlocks,
    SendDigests,
    SendFrame,
    SetPayload,
)
from pydbt.core.primary.modes import STREAMING_PHASES, SYNCING_MODES, Mode, Phase
from pydbt.core.primary.sweep import Sweep, Transit
from pydbt.core.protocol.frames import Ack, Begin, BeginFlag, Commit, Want
from pydbt.core.units import MAX_COMPARED_BYTES

if TYPE_CHECKING:
    from pydbt.core.primary.brain import Primary

READ_RETRY_S = 5.0
# A long pass writes down how far it has come this often, so that an interrupted one goes on from there.
PROGRESS_INTERVAL_S = 10.0
# Blocks to which there is always a write in flight hold a landing up for no longer than this.
MIXED_PATIENCE_S = 5.0
# This often in this long, a full log is no burst any more.
OVERLOAD_TIMES = 5
OVERLOAD_WINDOW_S = 60.0


class Resync:
    """The resynchronization under way, if any; part of the primary's brain."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self._sweep: Sweep | None = None
        self._identifier = 0
        self._flipped = False
        self._settled_map = False
        self._begun = False
        self._target: int | None = None
        self._base = 0
        self._retry_reads_at = 0.0
        self._pause_until = 0.0
        self._next_persist = 0.0
        self._landing = False
        self._committed_at: int | None = None
        self._held_reads = False
        self._settling_since = 0.0
        self._full_at: list[float] = []
        self.fresh_target = False
        # Blocks that the secondary has acknowledged, of a resynchronization without its COMMIT yet, are on no map.
        self.unfinished = primary.config.unfinished
        self.read_position = 0

    # --- begin and end ------------------------------------------------------------------------------------
    def begin(self, now: float) -> None:
        """The secondary is available (decision 680): get the newest map, then sweep."""
        primary = self._primary
        mode = Mode.INITIAL_SYNC if primary.initial else Mode.RESYNCHRONIZING
        mode = primary.mode if primary.mode is Mode.EPOCHS else mode
        self._identifier += 1
        self._landing = False
        self._sweep, self._begun, self._target, self._committed_at = None, False, None, None
        self._held_reads = False
        primary.set_mode(mode, now, "the secondary is available")
        primary.set_phase(Phase.SWEEPING)
        primary.epochs.comparison.begin()
        self._ask_for_map()

    def abandon(self) -> None:
        """Everything in transit is pending again; nothing more is read for this resynchronization."""
        if self._sweep is not None:
            for reading in self._sweep.abandon():
                self._primary.effects.add(DropReading(reading))
        self._sweep = None

    def in_transit(self) -> list[Transit]:
        return self._sweep.in_transit() if self._sweep is not None else []

    @property
    def awaiting(self) -> bool:
        """Whether the secondary owes an answer."""
        return self._primary.phase is Phase.COMMITTING or any(transit.read for transit in self.in_transit())

    def deadline(self) -> float:
        allowed = self._sweep.next_allowed() if self._sweep is not None else None
        return allowed if allowed is not None else inf

    # --- maps ---------------------------------------------------------------------------------------------
    def _ask_for_map(self) -> None:
        self._flipped = False
        self._settled_map = False
        self._primary.request_quiet()

    def note_flip(self) -> None:
        self._flipped = True

    def map_persisted(self, now: float) -> None:
        """The quiet bitmap is merged, on disk and zeroed; if it was one held from before, the flip comes now."""
        if not self._flipped:
            self._primary.request_quiet()
            return
        self._settled_map = True
        if self._primary.phase is not Phase.SWEEPING:
            return
        if not self._begun:
            self._announce(now)
        self._pass_or_landing(now)

    def _announce(self, now: float) -> None:
        primary = self._primary
        self._begun = True
        self._sweep = Sweep(
            primary.geometry,
            primary.tracker.pending,
            primary.next_reading,
            rate_limit_bytes=primary.config.rate_limit_bytes,
            now=now,
        )
        planned_bytes = self._sweep.remainder_bytes()
        self._next_persist = now + PROGRESS_INTERVAL_S
        primary.effects.log("info", f"{planned_bytes} bytes to bring in sync")
        primary.effects.add(
            SendFrame(
                Begin(
                    resync=self._identifier,
                    epoch=primary.config.epoch,
                    total_bytes=planned_bytes,
                    flags=BeginFlag.INITIAL * primary.initial | BeginFlag.NO_STREAM * primary.epochs.on,
                )
            )
        )

    # --- sweeping -----------------------------------------------------------------------------------------
    def advance(self, now: float) -> None:
        """Do what the phase allows; called after every event."""
        primary = self._primary
        if not self._settled_map and not primary.quiet_due and primary.may_retry_persist(now):
            primary.request_quiet()
        if primary.epochs.on and primary.phase is not Phase.SWEEPING:
            primary.epochs.land(now)
            return
        match primary.phase:
            case Phase.SWEEPING if self._landing:
                self._land_or_sweep(now)
            case Phase.SWEEPING if self._settled_map:
                self._feed(now)
                if self._keep_progress(now):
                    return
                if self._sweep is not None and self._sweep.pass_over and now >= self._retry_reads_at:
                    if self._sweep.note_pass() and not primary.epochs.problem:
                        primary.effects.log("warning", self._stuck_message(now))
                    self._ask_for_map()
            case Phase.SETTLING if self._settled_map and primary.in_flight.certain and self._has_settled(now):
                primary.set_phase(Phase.LAST_SWEEP)
                self._sweep.begin_pass()
                self._feed(now)
            case Phase.LAST_SWEEP:
                self._feed(now)
                self._after_last_read(now)
            case Phase.DRAINING | Phase.COMMITTING:
                primary.send_stream()
                self._commit_when_sent()
            case _:
                pass

    def _keep_progress(self, now: float) -> bool:
        due = now >= self._next_persist and not self._primary.quiet_due and self._primary.may_retry_persist(now)
        if due:
            self._next_persist = now + PROGRESS_INTERVAL_S
            self._primary.quiet_due = True
            self._primary.effects.add(Persist(zero_quiet=False))
        return due

    def _feed(self, now: float, *, urgent: bool = False) -> None:
        """Have as much read as the window and the rate limit allow."""
        if self._sweep is None or now < self._retry_reads_at:
            return
        while (taken := self._sweep.next_reading(now, urgent=urgent)) is not None:
            reading, transit = taken
            self._primary.effects.add(ReadBlocks(reading, transit.runs, self._held_reads))

    def read(self, event: BlocksRead, now: float) -> None:
        """Blocks were read: offer their digests, or send them."""
        if self._sweep is None or event.reading not in self._sweep.readings:
            return
        self.read_position = max(self.read_position, event.position)
        if event.error:
            self._primary.effects.log("error", f"{event.error}; the blocks stay out of sync and are read again")
            self._sweep.put_back(event.reading)
            self._retry_reads_at = now + READ_RETRY_S
            return
        self._sweep.readings[event.reading].read = True
        asked = self._primary.config.digests or self._primary.epochs.comparison.under_way
        if asked and not (self._primary.initial and self.fresh_target):
            self._compare(event.reading)
        else:
            self._send(event.reading, None)

    def _compare(self, reading: int) -> None:
        """Offer the digests of a reading's whole units; where it has none, there is nothing to compare."""
        transit = self._sweep.readings[reading]
        if self._primary.epochs.comparison.under_way:  # each block is of interest
            units, unit_bytes = compared.all_units(transit.runs, self._primary.geometry)
        else:
            units, transit.rest = compared.whole_units(transit.runs, self._primary.geometry)
            unit_bytes = MAX_COMPARED_BYTES
        if not units.total():
            self._send(reading, None)
            return
        transit.digests = self._primary.next_batch()
        self._primary.effects.add(SendDigests(reading, transit.digests, units, unit_bytes))

    def _send(self, reading: int, wanted: Runs | None) -> None:
        batch = self._sweep.readings[reading].batch = self._primary.next_batch()
        self._primary.effects.add(SendBlocks(reading, batch, wanted))

    def want(self, want: Want, now: float) -> None:
        """The secondary compared a reading: send what differs; what is equal is in sync."""
        reading = self._sweep.answered(want.batch) if self._sweep is not None else None
        if reading is None:
            return
        transit = self._sweep.readings[reading]
        transit.digests = None  # an answer counts once
        wanted = want.units
        if transit.rest is not None:
            wanted = compared.wanted_of(want.units, transit.rest, self._primary.geometry)
        elif wanted.total():
            self._primary.epochs.comparison.wanted(compared.blocks_wanted(wanted, self._primary.geometry))
        wanted_bytes = wanted.total() * self._primary.geometry.compared.block_bytes
        self._primary.statistics.compared(transit.length_bytes, wanted_bytes)
        if wanted_bytes:
            self._send(reading, wanted)
        else:
            self._sweep.finish(reading)
            self._primary.effects.add(DropReading(reading))

    def acknowledged(self, ack: Ack, now: float) -> None:
        if self._sweep is not None and self._sweep.acknowledge(ack.batch):
            self.unfinished = True
        if self._primary.phase is Phase.COMMITTING and ack.resync_committed == self._identifier:
            self._primary.durable_through(self._committed_at)
            self._sweep, self.unfinished = None, False
            if self._primary.epochs.on:
                self._primary.epochs.committed(now)
            self._primary.enter_normal(now, self._identifier)

    def replica_said(self, state: str) -> None:
        """The secondary's own word on its image counts when it is worse than ours."""
        if self._primary.mode in SYNCING_MODES:
            usable = "consistent" if self._primary.mode is Mode.EPOCHS else "outdated"
            self._primary.replica_state = "inconsistent" if state == "inconsistent" else usable
        elif state == "inconsistent":
            self._primary.replica_state = "inconsistent"

    # --- the landing --------------------------------------------------------------------------------------
    def _pass_or_landing(self, now: float) -> None:
        primary = self._primary
        rate = primary.statistics.write_rate_bytes(now)
        self._landing = self._sweep.may_end(now, rate, primary.config.data_room_bytes)
        self._land_or_sweep(now)

    def _land_or_sweep(self, now: float) -> None:
        primary = self._primary
        if primary.epochs.on:
            self._landing = self._held_reads = False
            if primary.epochs.may_hold(self._sweep.remainder_bytes(), self._sweep.passes, now):
                primary.epochs.hold(now)
                return
        if self._landing and not primary.in_flight.certain:
            return  # holding the stream while nobody knows what is in flight would only fill the ring
        if self._landing:
            self._landing = False
            primary.set_phase(Phase.ARMING)
            primary.payload_on = True
            primary.effects.add(SetPayload(True))
        else:
            self._sweep.begin_pass()
            self._feed(now)

    def armed(self, now: float) -> None:
        """S0: every later write carries its payload and enters the log."""
        primary = self._primary
        if primary.phase is not Phase.ARMING:
            return
        primary.set_phase(Phase.SETTLING)
        self._settling_since = now
        primary.queue.sent_through = primary.sequence
        self._base = primary.sequence
        primary.acknowledged = primary.sequence
        # What is in flight may have been swept before it reached the disk: its bit of then is gone, and the one of its
        # completion comes after the flip. The last sweep reads it, when it is over.
        primary.tracker.mark_pending(*primary.in_flight.extents())
        primary.watch.begin_waiting(now)
        self._ask_for_map()

    def _has_settled(self, now: float) -> bool:
        """Whether every write submitted before S0 has completed; blocks that are kept busy are not waited for for ever.

        Such a block is unsettled and stays out of sync until it was read; only, until then, the replica may hold a
        later write and lack this one.
        """
        in_flight = self._primary.in_flight
        return in_flight.wait_done or (now - self._settling_since > MIXED_PATIENCE_S and in_flight.only_mixed_left)

    def _after_last_read(self, now: float) -> None:
        """S1: every block is on the secondary, and what was submitted by the last read is in the queue."""
        primary = self._primary
        if not self._sweep.pass_over or not primary.position_reached(self.read_position):
            return
        if primary.tracker.pending.any():  # a read failed: its blocks came back
            if now >= self._retry_reads_at:
                self._sweep.begin_pass()
            return
        self._target = primary.sequence
        primary.set_phase(Phase.DRAINING)
        primary.send_stream()
        self._commit_when_sent()

    def _commit_when_sent(self) -> None:
        primary = self._primary
        if primary.phase is not Phase.DRAINING or primary.queue.sent_through < self._target:
            return
        self.commit(max(primary.queue.sent_through, self._base))

    # --- the landing on an epoch --------------------------------------------------------------------------
    def begin_last_pass(self, now: float, *, held: bool) -> None:
        """Sweep what is left, ``held``: from a snapshot, at leisure; else at once."""
        self._held_reads = held
        self._sweep.begin_pass()
        self._feed(now, urgent=not held)

    def last_pass_read(self, now: float, *, again: bool) -> bool:
        """Whether the last sweep is in memory, and every write submitted meanwhile was taken in.

        ``again``: blocks that became pending meanwhile belong to it.
        """
        self._feed(now, urgent=not self._held_reads)
        if not self._sweep.pass_read or not self._primary.position_reached(self.read_position):
            return False
        if again and self._primary.tracker.pending.any():
            self._sweep.begin_pass()
            self._feed(now, urgent=True)
            return False
        return True

    def read_failed(self, now: float) -> bool:
        """Whether a read has failed just now; its blocks are pending again."""
        return now < self._retry_reads_at

    def rest_until(self, when: float) -> None:
        """Read nothing, and look for no landing, until then."""
        self._held_reads, self._retry_reads_at = False, max(when, self._retry_reads_at)

    def commit(self, sequence: int) -> None:
        """Everything of the image is on the secondary."""
        primary = self._primary
        self._committed_at = sequence
        primary.set_phase(Phase.COMMITTING)
        primary.ancestry.offer()
        primary.effects.add(SendFrame(Commit(resync=self._identifier, sequence=sequence)))

    def note_log_full(self, now: float) -> None:
        """The log was full. Say so when it happens again and again: then no landing can last."""
        statistics = self._primary.statistics
        statistics.log_full += 1
        self._full_at = [when for when in self._full_at if now - when < OVERLOAD_WINDOW_S] + [now]
        if len(self._full_at) >= OVERLOAD_TIMES:
            self._full_at.clear()
            written = statistics.write_rate_bytes(now) / 1e6
            self._primary.effects.log(
                "warning",
                f"the log was full {OVERLOAD_TIMES} times within {OVERLOAD_WINDOW_S:g} s while {written:.1f} MB/s are written:"
                " that is more than the secondary takes in order, so it is kept out of sync and copied again and again"
                " until the writes slow down (a larger --ring-size bridges bursts)",
            )

    def waiting_for(self) -> str:
        """What keeps this resynchronization from going on, in words; empty when nothing does."""
        primary = self._primary
        match primary.phase:
            case Phase.SWEEPING | Phase.SETTLING if not self._settled_map:
                return "the maps to be written"
            case _ if primary.epochs.on and primary.phase is not Phase.COMMITTING:
                return primary.epochs.waiting_for()
            case _ if self._landing:
                return "an instant with no write in flight on the source, or half a minute"
            case Phase.SETTLING if not primary.in_flight.wait_done:
                return "writes in flight on the source to complete"
            case Phase.COMMITTING:
                return "the secondary to make the new image durable"
        return ""

    # --- words --------------------------------------------------------------------------------------------
    def _stuck_message(self, now: float) -> str:
        written = self._primary.statistics.write_rate_bytes(now) / 1e6
        copied = self._sweep.rate_bytes(now) / 1e6
        return (
            f"the resynchronization does not come to an end: {written:.1f} MB/s are written and {copied:.1f} MB/s copied;"
            " it goes on until the writes slow down (a faster link or a higher --rate-limit would help)"
        )

    def progress(self, now: float) -> tuple[int, int, float | None]:
        """(done bytes, total bytes, seconds to go or None) of this resynchronization; the total may grow."""
        if self._sweep is None or self._primary.mode not in SYNCING_MODES:
            return 0, 0, None
        left = self._sweep.remainder_bytes() + self._sweep.window_bytes
        done = self._sweep.done_bytes
        eta = left / max(self._sweep.rate_bytes(now), 1.0)
        return done, done + left, eta


assert Phase.LAST_SWEEP not in STREAMING_PHASES
