"""The landing on the stream, where data is captured (journal-based replication).

Exactness: the stream is kept from S0 on; the map is flipped after S0, so it names every write submitted
before S0; each of those has completed before the last sweep reads; the last read is over by S1. Sweep,
then the stream from S0 to S1, leaves the replica exactly the primary at S1, with no freeze.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Integers
from pydbt.core.primary.events import Flushed, Held, PayloadArmed, Released
from pydbt.core.primary.flight_watch import FlightWatch
from pydbt.core.primary.landing import Enter, Landed, Outcome, SnapshotStatus
from pydbt.core.primary.modes import STREAMING_PHASES, Mode, Phase
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.state import State
from pydbt.core.primary.waits import Waits

# Blocks to which there is always a write in flight hold a landing up for no longer than this.
MIXED_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class _Unsighted:
    """Little is left, but it is not known what is in flight."""


@dataclass(frozen=True, slots=True)
class _Armed:
    """Every write after ``base`` (S0) is in the log, with its data, since the time ``since``."""

    base: int
    since: float


@dataclass(frozen=True, slots=True)
class _Read:
    """The last sweep is on the secondary; the stream is due there up to ``target`` (S1)."""

    base: int
    target: int


class StreamLanding:
    """Its stage is None while sweeping."""

    following, image, with_stream = Mode.NORMAL, "up-to-date", True

    def __init__(self, state: State, watch: FlightWatch) -> None:
        self._state, self._watch = state, watch
        self._waits = Waits()
        self._stage: _Unsighted | _Armed | _Read | None = None

    # --- the landing --------------------------------------------------------------------------------------
    def try_landing(self, resync: Resync, now: float) -> Outcome:
        state = self._state
        rate = state.statistics.write_rate_bytes(now)
        if resync.sweep.may_end(now, rate, state.config.data_room_bytes):
            self._stage = _Unsighted()
            return self._arm()
        resync.begin_pass(now)
        return None

    def _arm(self) -> Outcome:
        if not self._state.in_flight.certain:
            return None  # holding the stream while nobody knows what is in flight would only fill the ring
        self._stage = None
        self._state.switch_payload(True)
        return Enter(Phase.ARMING)

    def told(self, event: PayloadArmed | Flushed | Held | Released, resync: Resync | None, now: float) -> Outcome:
        """S0: every later write carries its payload and enters the log."""
        state = self._state
        if resync is None or state.phase is not Phase.ARMING or not isinstance(event, PayloadArmed):
            return None
        self._stage = _Armed(base=state.sequence, since=now)
        state.queue.sent_through = state.acknowledged = state.sequence
        # What is in flight may have been swept before it reached the disk: its bit of then is gone, and the one of its
        # completion comes after the flip. The last sweep reads it, when it is over.
        state.mark_in_flight_pending()
        self._watch.begin_waiting(now)
        resync.ask_for_map()
        return Enter(Phase.SETTLING)

    def advance(self, resync: Resync, now: float) -> Outcome:
        state = self._state
        match state.phase, self._stage:
            case Phase.SWEEPING, _Unsighted():
                return self._arm()
            case Phase.SWEEPING, _ if resync.map_on_disk:
                resync.sweep_on(now, explained=False)
            case Phase.SETTLING, _Armed(since=since) if resync.map_on_disk and state.in_flight.certain:
                if self._earlier_writes_ended(now - since):
                    assert not resync.in_transit(), "older content on its way would overtake that of the last sweep"
                    resync.begin_pass(now)
                    return Enter(Phase.LAST_SWEEP)
            case Phase.LAST_SWEEP, _Armed(base=base):
                resync.feed(now)
                return self._after_last_read(resync, base, now)
            case Phase.DRAINING, _Read(base=base, target=target) if state.queue.sent_through >= target:
                return Landed(max(state.queue.sent_through, base))
        return None

    def _earlier_writes_ended(self, waited_s: float) -> bool:
        """Whether every write submitted before S0 has completed; blocks that are kept busy are not waited for for ever.

        Such a block is unsettled and stays out of sync until it was read; only, until then, the replica may hold a
        later write and lack this one.
        """
        in_flight = self._state.in_flight
        return in_flight.wait_done or (waited_s > MIXED_PATIENCE_S and in_flight.only_mixed_left)

    def _after_last_read(self, resync: Resync, base: int, now: float) -> Outcome:
        """S1: every block is on the secondary, and what was submitted by the last read is in the queue."""
        state = self._state
        if not resync.sweep.pass_over or not resync.all_taken_in:
            return None
        if state.tracker.pending.any():  # a read failed: its blocks came back
            if now >= state.reads_rest_until:
                resync.sweep.begin_pass()
            return None
        resync.all_compared()
        self._stage = _Read(base, target=state.sequence)
        return Enter(Phase.DRAINING)

    def committed(self, now: float) -> None:
        self._stage = None

    def abandon(self) -> None:
        self._stage = None

    # --- waits --------------------------------------------------------------------------------------------
    @property
    def waited_for(self) -> bool:
        return bool(self._waits)

    def add_wait(self, token: int, position: int) -> None:
        self._waits.add(token, position)

    def drop_wait(self, token: int) -> None:
        self._waits.drop(token)

    def note_sequence(self) -> None:
        self._waits.reached(self._state.position, self._state.sequence)

    def waits_over(self) -> list[int]:
        return self._waits.done(self._state.acknowledged, self._state.unsettled.oldest_sequence())

    # --- words --------------------------------------------------------------------------------------------
    def waiting_for(self) -> str:
        if isinstance(self._stage, _Unsighted):
            return "an instant with no write in flight on the source, or half a minute"
        if self._state.phase is Phase.SETTLING and not self._state.in_flight.wait_done:
            return "writes in flight on the source to complete"
        return ""

    def status(self, now: float, *, clean: bool) -> SnapshotStatus | None:
        return None

    # --- what the stream makes needless -------------------------------------------------------------------
    unmapped = flipping = compares_every_block = False
    kept_blocks = 0
    unproved: tuple[DirtyMap, ...] = ()

    def ready(self, now: float) -> bool:
        return True

    def due(self, now: float) -> bool:
        return False

    def deadline(self) -> float:
        return inf

    def begin(self) -> tuple[int, ...]:
        self._stage = None
        return ()

    def flipped(self, words: npt.NDArray[np.uint64], resync: Resync, now: float) -> Outcome:
        return None

    def written(self, words: npt.NDArray[np.uint64]) -> None: ...

    def differed(self, blocks: Integers) -> None: ...


assert Phase.LAST_SWEEP not in STREAMING_PHASES
