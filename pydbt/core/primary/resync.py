"""A resynchronization (Fig. 6, 682; ¶92-95): the newest map, then sweeps until little is left, then a landing.

What is common to both ways to land is here: maps, reads, digests, frames of blocks. ``stream_landing`` and
``snapshot_landing`` decide when the last sweep begins and what makes it exact.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from pydbt.core.blocks import compared
from pydbt.core.blocks.runs import Integers, Runs
from pydbt.core.primary.events import BlocksRead, DropReading, ReadBlocks, SendBlocks, SendDigests, SendFrame
from pydbt.core.primary.first_found import FirstFound
from pydbt.core.primary.forecast import NO_PACE, Forecast, Pace
from pydbt.core.primary.modes import FOLLOWING_MODES, Phase
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.state import State
from pydbt.core.primary.sweep import Sweep, Transit
from pydbt.core.primary.unread import failed_as_a_whole, set_apart
from pydbt.core.protocol.frames import Begin, BeginFlag, Want
from pydbt.core.units import MAX_COMPARED_BYTES, format_bytes

# A read that failed as a whole (a path is gone, a disk resets itself) succeeds again after seconds at best, and each failure is
# a line of the log.
READ_RETRY_S = 5.0
# A long pass writes down how far it has come this often, so that an interrupted one goes on from there.
PROGRESS_INTERVAL_S = 10.0


class PassMap(Enum):
    """The map of a pass: every block that was written before the flip is in it."""

    ASKED = "the bitmaps are to be flipped"
    FLIPPED = "the flip's bits are to be merged, on disk, and given up"
    ON_DISK = "it is complete, and on disk"


class Resync:
    """Exists only while a resynchronization is under way.

    ``read_position`` is the ring's end at the last read: when everything before it was taken in, every write is known that
    a read may have seen. ``commit_sequence`` is that of the COMMIT, once it is sent.
    """

    def __init__(self, state: State, quiet: QuietBitmap, identifier: int, now: float) -> None:
        self._state, self._quiet = state, quiet
        self.identifier = identifier
        for again in (state.unreadable.take_due(now), state.replica.take_doubtful()):
            state.tracker.pending.set_blocks(again)
        self.sweep = Sweep(
            state.geometry,
            state.tracker.pending,
            state.next_reading,
            rate_limit_bytes=state.config.rate_limit_bytes,
            now=now,
            likely=state.likely,
        )
        self._found = FirstFound(self.sweep.remainder_bytes())
        self._forecast = Forecast(now)
        self.read_position = 0
        self.commit_sequence = 0
        self._map = PassMap.ASKED
        self._next_persist: float | None = None  # None before the BEGIN

    # --- maps ---------------------------------------------------------------------------------------------
    @property
    def map_on_disk(self) -> bool:
        """Whether the map of this pass is complete."""
        return self._map is PassMap.ON_DISK

    def ask_for_map(self) -> None:
        """Another pass, or the last one, is to begin: get the newest map."""
        self._map = PassMap.ASKED
        self._quiet.take()

    def look_again(self, now: float) -> None:
        """Note how far it is; and when a map could not be written, try it again."""
        if self._next_persist is not None:
            self._forecast.observe(now, self.sweep.done_bytes, self._left_bytes())
        if not self.map_on_disk and self._quiet.at_rest(now):
            self._quiet.take()

    def flipped(self) -> None:
        """The bitmaps were flipped for this resynchronization."""
        if self._map is PassMap.ASKED:
            self._map = PassMap.FLIPPED

    def map_persisted(self) -> bool:
        """Bits were merged, are on disk, and given up. False: they were those from before, and the flip comes now."""
        if self._map is PassMap.ASKED:
            self._quiet.take()
        if self._map is not PassMap.FLIPPED:
            return False  # a pass whose map is on disk already goes on
        self._map = PassMap.ON_DISK
        return True

    def announce(self, *, with_stream: bool, now: float) -> None:
        """Send the BEGIN, if this is the first map."""
        if self._next_persist is not None:
            return
        state = self._state
        self._next_persist = now + PROGRESS_INTERVAL_S
        self.sweep.start(now)
        planned_bytes = self.sweep.remainder_bytes()
        self._found = FirstFound(planned_bytes)
        flags = BeginFlag.INITIAL * state.replica.initial | BeginFlag.NO_STREAM * (not with_stream)
        # From snapshot to snapshot one follows another for ever.
        level = "debug" if state.mode in FOLLOWING_MODES else state.excursions.level
        state.effects.log(level, f"{format_bytes(planned_bytes)} to bring in sync")
        state.effects.add(
            SendFrame(
                Begin(resync=self.identifier, epoch=state.config.epoch, total_bytes=planned_bytes, flags=flags),
            )
        )

    # --- sweeping -----------------------------------------------------------------------------------------
    def begin_pass(self, now: float, *, urgent: bool = False, from_snapshot: bool = False) -> None:
        """Read everything that is pending; see ``feed``."""
        self.sweep.begin_pass()
        self.feed(now, urgent=urgent, from_snapshot=from_snapshot)

    def feed(self, now: float, *, urgent: bool = False, from_snapshot: bool = False) -> None:
        """Have as much read as the window and the rate limit allow.

        ``urgent``: all of it, since writers are held up meanwhile. ``from_snapshot``: and not from the source.
        """
        if now < self._state.reads_rest_until:
            return
        while (taken := self.sweep.next_reading(now, urgent=urgent)) is not None:
            reading, transit = taken
            self._state.left_out.given(transit.runs)
            self._state.effects.add(ReadBlocks(reading, transit.runs, from_snapshot))

    def sweep_on(self, now: float, *, explained: bool) -> None:
        """In a pass whose map is on disk: read on, write down how far it is, and end it. ``explained``: the operator
        knows already why there is no end."""
        self.feed(now)
        if self._keep_progress(now):
            return
        if self.sweep.pass_over and now >= self._state.reads_rest_until:
            if self.sweep.note_pass() and not explained:
                self._state.effects.log("warning", self._stuck_message(now))
            self.ask_for_map()

    def _keep_progress(self, now: float) -> bool:
        due = self._next_persist is not None and now >= self._next_persist and self._quiet.at_rest(now)
        if due:
            self._next_persist = now + PROGRESS_INTERVAL_S
            self._quiet.persist(zero_quiet=False)
        return due

    def read(self, event: BlocksRead, now: float, *, every_block: bool) -> None:
        """Blocks were read: offer their digests, or send them. ``every_block``: each of them is to be compared.

        A secondary that compares nothing is sent everything.
        """
        transit = self.sweep.readings.get(event.reading)
        if transit is None:
            return
        state = self._state
        self.read_position = max(self.read_position, event.position)
        if failed_as_a_whole(state, event):
            state.effects.log("error", f"{event.error}; the blocks stay out of sync and are read again")
            self.sweep.put_back(event.reading)
            state.reads_rest_until = now + READ_RETRY_S
            return
        transit.read = True
        if event.unreadable.total():
            set_apart(state, event, now)
            if not self.sweep.leave_out(event.reading, event.unreadable):
                self.sweep.finish(event.reading)
                state.effects.add(DropReading(event.reading))
                return
        state.unreadable.remove(transit.runs.blocks())
        nothing_there = state.replica.initial and state.replica.fresh
        if nothing_there or not state.replica.compares or not (state.config.digests or every_block):
            self._send(event.reading, transit, None)
        else:
            self._compare(event.reading, transit, every_block=every_block)

    def _compare(self, reading: int, transit: Transit, *, every_block: bool) -> None:
        """Offer the digests of a reading's whole units; where it has none, there is nothing to compare."""
        geometry = self._state.geometry
        if every_block:
            units, unit_bytes = compared.all_units(transit.runs, geometry)
        else:
            units, transit.rest = compared.whole_units(transit.runs, geometry)
            unit_bytes = MAX_COMPARED_BYTES
        if not units.total():
            self._send(reading, transit, None)
            return
        transit.digests = self._state.next_batch()
        self._state.effects.add(SendDigests(reading, transit.digests, units, unit_bytes))

    def _send(self, reading: int, transit: Transit, wanted: Runs | None) -> None:
        transit.batch = self._state.next_batch()
        if wanted is not None:
            transit.sent = Runs.of_blocks(compared.blocks_wanted(wanted, self._state.geometry))
        self._state.effects.add(SendBlocks(reading, transit.batch, wanted))

    def want(self, want: Want) -> Integers | None:
        """The secondary compared a reading: send what differs; what is equal is in sync.

        The blocks that differed, where each was compared by itself.
        """
        reading = self.sweep.answered(want.batch)
        if reading is None:
            return None
        geometry, transit = self._state.geometry, self.sweep.readings[reading]
        transit.digests = None  # an answer counts once
        differing = None
        if transit.rest is not None:
            wanted = compared.wanted_of(want.units, transit.rest, geometry)
        else:
            wanted = want.units
            differing = compared.blocks_wanted(wanted, geometry)
        wanted_bytes = wanted.total() * geometry.compared.block_bytes
        self._state.statistics.compared(transit.length_bytes, wanted_bytes)
        self._found.compared(transit.length_bytes, wanted_bytes, likely=transit.likely)
        if wanted_bytes:
            self._send(reading, transit, wanted)
        else:
            self.sweep.finish(reading)
            self._state.effects.add(DropReading(reading))
        return differing

    def acknowledged(self, batch: int) -> None:
        """Every BLOCKS frame up to this number is durable; in the stage, as far as this side knows."""
        for transit in self.sweep.acknowledge(batch):
            self._state.replica.unfinished = True
            self._state.staged.set_extents(*(transit.runs if transit.sent is None else transit.sent))

    def all_compared(self) -> None:
        """The last sweep is over: tell how early the differences were found, if anything told where to look for them."""
        if words := self._found.words():
            self._state.effects.log("info", words)
        self._state.likely.forget()

    def abandon(self) -> None:
        """Everything in transit is pending again; nothing more is read for this resynchronization."""
        for reading in self.sweep.abandon():
            self._state.effects.add(DropReading(reading))

    # --- how far it is ------------------------------------------------------------------------------------
    def in_transit(self) -> list[Transit]:
        """What is on its way to the secondary."""
        return self.sweep.in_transit()

    @property
    def awaiting(self) -> bool:
        """Whether the secondary owes an answer."""
        return self._state.phase is Phase.COMMITTING or any(transit.read for transit in self.in_transit())

    @property
    def all_taken_in(self) -> bool:
        """Whether every write is known that a read may have seen."""
        return self._state.position_reached(self.read_position)

    def deadline(self) -> float:
        allowed = self.sweep.next_allowed()
        return allowed if allowed is not None else inf

    def progress(self, now: float, network_rate_bytes: int | None = None) -> tuple[int, int, Pace]:
        """(done bytes, total bytes, pace) of this resynchronization; the total may grow."""
        if self._next_persist is None:
            return 0, 0, NO_PACE
        done, left = self.sweep.done_bytes, self._left_bytes()
        return done, done + left, self._forecast.pace(now, done, left, network_rate_bytes)

    def _left_bytes(self) -> int:
        return self.sweep.remainder_bytes() + self.sweep.window_bytes

    def _stuck_message(self, now: float) -> str:
        written = self._state.statistics.write_rate_bytes(now) / 1e6
        copied = self.sweep.rate_bytes(now) / 1e6
        return (
            f"the resynchronization does not come to an end: {written:.1f} MB/s are written and {copied:.1f} MB/s copied;"
            " it goes on until the writes slow down (a faster link or a higher --rate-limit would help)"
        )
