"""The landing on a snapshot, where only addresses are captured: the replica goes from one image of the primary to the next.

Data that is read later is later data, so the replica can be exact only at moments that are held still: the source is
frozen, or a snapshot of it is taken, or an instant without writes is found. Sweeps of the live device come first, until
little is left (``resync``). Then, of a live device (``freeze``, ``quiescent``):

    hold; wait until nothing is in flight; flip; sweep what is left; nothing was submitted since the wait was over.

The last clause is what makes it exact, whatever the hold is worth: between the end of the wait and the last read the
disk did not change, and the flip, which lies between, names every block that was written before. Of a snapshot:

    flip (the resynchronization's own); take the snapshot; flip; sweep both maps from it; it is whole afterwards.

Every write the snapshot holds has its bit in one of the two maps. Some bits of the second are of later writes, so that
its blocks stay out of sync beyond the snapshot (``kept``). No flip has to happen inside of a suspension, so that any tool
may take the snapshot. A snapshot that was not whole after the last read is discarded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import assert_never

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Integers
from pydbt.core.primary.events import Flush, Flushed, Held, Hold, PayloadArmed, Release, Released
from pydbt.core.primary.landing import Enter, Landed, Outcome, SnapshotStatus
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.snapshot_comparison import SnapshotComparison
from pydbt.core.primary.state import State
from pydbt.core.units import MIB

# What is left for the last sweep of a live device is read at once, and held in memory until the secondary has it.
HELD_BYTES = 32 * MIB
# With no more than this to copy, a moment without writes is looked for before anybody is held up. Also what a freeze
# itself writes at its end is no reason for another one.
GENTLE_BLOCKS = 64
# A hold that came to nothing is tried again after a pause that grows from the one to the other.
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
# This many in a row before the operator is told, and again at every multiple of it.
TELL_AFTER = 8


class Flushing(Enum):
    """Before a resynchronization: file systems write what they keep in memory, and how to hold them is looked up."""

    NEEDED = "not asked for yet"
    ASKED = "under way"
    DONE = "done"


class HoldStep(Enum):
    """Where the hold of the source is."""

    ASKED = "it is to be held"
    SETTLING = "it is held, and writes in flight are waited for"
    FLIPPING = "the bitmaps are being flipped"
    SWEEPING = "the blocks that are left are being read"
    RELEASING = "everything was read, and the hold is to end well"
    LETTING_GO = "it came to nothing, and is to end"


_STANDING = frozenset({HoldStep.ASKED, HoldStep.SETTLING, HoldStep.FLIPPING, HoldStep.SWEEPING})


@dataclass(slots=True)
class SourceHold:
    """One hold of the source. Everything that was written before it lies before ``position``; it stands since ``since``."""

    number: int
    step: HoldStep = HoldStep.ASKED
    position: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Image:
    """The moment that the replica is to be an image of. ``began_at`` is when the hold for it was asked for."""

    sequence: int
    lost: int
    moment: float
    began_at: float


class SnapshotLanding:
    """``number`` counts the images of this run. ``apart``: reads of a hold do not see what is written later."""

    following, image, with_stream = Mode.SNAPSHOTS, "consistent", False

    def __init__(self, state: State, quiet: QuietBitmap, comparison: SnapshotComparison, interval_s: float) -> None:
        self._state, self._quiet, self._comparison, self._interval_s = state, quiet, comparison, interval_s
        self.number = 0
        self.kind = ""
        self.problem = ""
        self.held_ms_last = self.held_ms_max = 0.0
        # Blocks written at about the time of the snapshot, before or after it: out of sync until the next one.
        self.kept = DirtyMap(state.geometry.block_count)
        self._swept: DirtyMap | None = None  # what is read from a snapshot that may turn out to be broken
        self._flushing = Flushing.NEEDED
        self._apart = False
        self._hold: SourceHold | None = None
        self._holds = 0  # numbers the holds of this run; a landing answers the waits that came before its own
        self._target: Image | None = None
        self._last: Image | None = None
        self._misses = 0
        self._retry_at = -inf
        self._waits: dict[int, int] = {}  # token -> the first hold that answers it

    # --- between snapshots --------------------------------------------------------------------------------
    @property
    def _behind(self) -> bool:
        """Whether anything was written since the last image, as far as records tell (bitmaps may tell more)."""
        state, last = self._state, self._last
        return state.sequence != state.acknowledged or state.lost != (last.lost if last is not None else 0)

    @property
    def unmapped(self) -> bool:
        return self._state.mode is Mode.SNAPSHOTS and self._behind

    def ready(self, now: float) -> bool:
        if self._flushing is Flushing.DONE:
            return True
        if self._flushing is Flushing.NEEDED and now >= self._retry_at:
            self._flushing = Flushing.ASKED
            self._state.effects.add(Flush())
        return False

    def due(self, now: float) -> bool:
        return now >= self._next()

    def _next(self) -> float:
        if any(hold > self._holds for hold in self._waits.values()) or self._comparison.current is not None:
            return -inf
        something_at = self._something_at()
        return max(something_at, self._last.began_at + self._interval_s if self._last is not None else -inf)

    def _something_at(self) -> float:
        """When there is something that the last image lacks, or that is to be read or compared once more."""
        state = self._state
        if self._behind or state.tracker.pending.any() or state.replica.doubtful.total():
            return -inf
        due = state.unreadable.next_due()
        return inf if due is None else due

    def deadline(self) -> float:
        hold = self._hold
        if hold is not None and not self._apart and hold.step in _STANDING and hold.step is not HoldStep.ASKED:
            return hold.since + self._state.config.hold_limit_s
        idle = self._state.mode is Mode.SNAPSHOTS and self._state.phase is Phase.IDLE
        return max(self._next(), self._retry_at) if idle and self._flushing is not Flushing.ASKED else inf

    def begin(self) -> tuple[int, ...]:
        return self._comparison.join()

    def told(self, event: PayloadArmed | Flushed | Held | Released, resync: Resync | None, now: float) -> Outcome:
        match event:
            case Flushed():
                return self._was_flushed(event, now)
            case Held():
                return self._was_held(event, now)
            case Released():
                return self._was_released(event, now)
            case PayloadArmed():
                return None
            case _ as never:
                assert_never(never)

    def _was_flushed(self, event: Flushed, now: float) -> Outcome:
        self._flushing = Flushing.NEEDED
        if event.error:
            return self._missed(now, event.error)
        self._flushing, self.kind, self._apart = Flushing.DONE, event.kind, event.apart
        return None

    # --- the landing --------------------------------------------------------------------------------------
    def try_landing(self, resync: Resync, now: float) -> Outcome:
        """The map is fresh and on disk, and nothing is on its way. A snapshot is no burden, once the bulk is copied."""
        little = resync.sweep.remainder_bytes() <= HELD_BYTES or (self._apart and resync.sweep.passes > 0)
        if not little or now < self._retry_at or self._hold is not None:
            resync.begin_pass(now)
            return None
        state = self._state
        self._holds += 1
        self._hold = SourceHold(self._holds)
        # Of a snapshot, this is what it holds for sure; of a live device the numbers are taken again.
        self._target = Image(state.sequence, state.lost, now, now)
        gently = not self._misses and state.tracker.pending.count() <= GENTLE_BLOCKS
        state.effects.add(Hold(self._holds, state.config.hold_limit_s, gently))
        return Enter(Phase.HOLDING)

    def _was_held(self, event: Held, now: float) -> Outcome:
        hold = self._hold
        if hold is None or hold.step is not HoldStep.ASKED or event.hold != hold.number:
            return None  # its release is on its way already
        if event.error:
            return self._missed(now, event.error)
        self.kind, self._apart, hold.position, hold.since = event.kind, event.apart, event.position, now
        if self._apart:
            self._flip(hold)
            return None
        hold.step = HoldStep.SETTLING
        return Enter(Phase.SETTLING)

    def _flip(self, hold: SourceHold) -> None:
        assert self._quiet.bits is None, "a hold begins with a quiet bitmap that is merged, on disk and zeroed"
        hold.step = HoldStep.FLIPPING
        self._quiet.take()

    @property
    def flipping(self) -> bool:
        return self._hold is not None and self._hold.step is HoldStep.FLIPPING

    def flipped(self, words: npt.NDArray[np.uint64], resync: Resync, now: float) -> Outcome:
        """The map of the hold is in ``pending``; it is written to disk after the release."""
        hold, pending = self._hold, self._state.tracker.pending
        assert hold is not None
        hold.step = HoldStep.SWEEPING
        self._quiet.set_aside()
        if self._apart:
            self.kept.merge_words(words)
            self._swept = pending.copy()
        elif pending.count() * self._state.geometry.block_bytes > 2 * HELD_BYTES:
            return self._missed(now, "more was written at the last moment than can be read in one")
        resync.begin_pass(now, urgent=not self._apart, from_snapshot=self._apart)
        return Enter(Phase.LAST_SWEEP)

    def advance(self, resync: Resync, now: float) -> Outcome:
        state, hold = self._state, self._hold
        if state.phase is Phase.SWEEPING:
            if resync.map_on_disk:
                resync.sweep_on(now, explained=bool(self.problem))
        elif state.phase is Phase.DRAINING:
            if self._target is not None and not resync.in_transit():
                resync.all_compared()
                return Landed(self._target.sequence)
        elif hold is not None:
            late = not self._apart and now - hold.since > state.config.hold_limit_s
            return self._hold_on(hold, resync, late, now)
        return None

    def _hold_on(self, hold: SourceHold, resync: Resync, late: bool, now: float) -> Outcome:
        match hold.step:
            case HoldStep.SETTLING if self._is_still(hold):
                self._target = self._image_of_now(now)
                self._flip(hold)
            case HoldStep.SETTLING if late:
                return self._missed(now, "writes in flight did not complete in time")
            case HoldStep.SWEEPING:
                return self._sweep_on(hold, resync, late, now)
        return None

    def _image_of_now(self, now: float) -> Image:
        assert self._target is not None
        return replace(self._target, sequence=self._state.sequence, lost=self._state.lost, moment=now)

    def _is_still(self, hold: SourceHold) -> bool:
        """Whether nothing is in flight, as far as all records up to the hold tell."""
        in_flight = self._state.in_flight
        return self._state.position_reached(hold.position) and in_flight.certain and in_flight.empty

    def _sweep_on(self, hold: SourceHold, resync: Resync, late: bool, now: float) -> Outcome:
        state, target = self._state, self._target
        assert target is not None
        untouched = self._is_still(hold) and (state.sequence, state.lost) == (target.sequence, target.lost)
        if not self._apart and not untouched:
            return self._missed(now, "the volume was written to while its last blocks were read")
        if now < state.reads_rest_until:
            return self._missed(now, "blocks of the held volume could not be read")
        if self._last_pass_read(resync, now):
            self._release(hold, HoldStep.RELEASING)
            return Enter(Phase.RELEASING)
        return self._missed(now, "the last blocks could not be read in time") if late else None

    def _last_pass_read(self, resync: Resync, now: float) -> bool:
        """Whether the last sweep is in memory, and every write submitted meanwhile was taken in.

        Of a live device, blocks that became pending meanwhile belong to it.
        """
        resync.feed(now, urgent=not self._apart, from_snapshot=self._apart)
        if not resync.sweep.pass_read or not resync.all_taken_in:
            return False
        if not self._apart and self._state.tracker.pending.any():
            resync.begin_pass(now, urgent=True)
            return False
        return True

    def _release(self, hold: SourceHold, step: HoldStep) -> None:
        hold.step = step
        self._state.effects.add(Release(hold.number))

    def _was_released(self, event: Released, now: float) -> Outcome:
        hold, self._hold = self._hold, None
        self.held_ms_last = event.held_ms
        self.held_ms_max = max(self.held_ms_max, event.held_ms)
        if hold is None or hold.step is not HoldStep.RELEASING:
            self.problem = event.error or self.problem  # it tells more than that its blocks could not be read
            return None
        if event.error:
            return self._missed(now, event.error)
        self._swept = None
        return Enter(Phase.DRAINING)

    def _missed(self, now: float, reason: str) -> Outcome:
        """This hold made no image: sweep on, and try again after a pause."""
        state = self._state
        self.abandon()
        self._misses += 1
        self.problem = reason
        pause = min(FIRST_PAUSE_S * 2 ** min(self._misses - 1, 10), LONGEST_PAUSE_S, self._interval_s)
        self._retry_at = now + pause
        level = "warning" if self._misses % TELL_AFTER == 0 else "debug"
        state.effects.log(
            level, f"no image yet after {self._misses} attempts: {reason}; the replica stays at the last one"
        )
        if state.phase is Phase.IDLE:
            return None
        state.reads_rest_until = max(self._retry_at, state.reads_rest_until)
        return Enter(Phase.SWEEPING)

    def abandon(self) -> None:
        """Whatever was held is let go; what an unproved snapshot gave counts for nothing."""
        hold, pending = self._hold, self._state.tracker.pending
        if hold is not None and hold.step in _STANDING:
            self._release(hold, HoldStep.LETTING_GO)
        elif hold is not None:
            hold.step = HoldStep.LETTING_GO
        if self._swept is not None:
            pending.merge(self._swept)
            self._swept = None
        pending.merge(self.kept)
        self.kept.clear()

    def committed(self, now: float) -> None:
        """The secondary is, durably, the primary as it was at the hold."""
        self._state.tracker.pending.merge(self.kept)
        self.kept.clear()
        self.number += 1
        self._comparison.committed()
        self._last, self._target = self._target, None
        self._misses, self.problem, self._flushing, self._retry_at = 0, "", Flushing.NEEDED, -inf

    # --- what else is out of sync, and is compared --------------------------------------------------------
    @property
    def kept_blocks(self) -> int:
        return self.kept.count()

    @property
    def unproved(self) -> tuple[DirtyMap, ...]:
        return (self.kept,) if self._swept is None else (self.kept, self._swept)

    @property
    def compares_every_block(self) -> bool:
        return self._comparison.under_way

    def written(self, words: npt.NDArray[np.uint64]) -> None:
        self._comparison.touched(words)

    def differed(self, blocks: Integers) -> None:
        self._comparison.wanted(blocks)

    # --- waits --------------------------------------------------------------------------------------------
    @property
    def waited_for(self) -> bool:
        return bool(self._waits)

    def add_wait(self, token: int, position: int) -> None:
        """Somebody waits for a snapshot that is taken from now on (wherever the ring is)."""
        self._waits[token] = self._holds + 1

    def drop_wait(self, token: int) -> None:
        self._waits.pop(token, None)

    def note_sequence(self) -> None:
        """Snapshots answer waits, whatever the sequence number."""

    def waits_over(self) -> list[int]:
        if self._state.phase is not Phase.IDLE:
            return []
        return [token for token, hold in self._waits.items() if hold <= self._holds]

    # --- words --------------------------------------------------------------------------------------------
    def waiting_for(self) -> str:
        match self._state.phase:
            case Phase.HOLDING:
                return f"the source to be held ({self.kind})"
            case Phase.SETTLING:
                return "an instant with no write in flight on the source"
            case Phase.RELEASING:
                return "the source to be let go"
            case Phase.SWEEPING if self.problem:
                return f"a moment that can be held ({self.problem})"
        return ""

    def status(self, now: float, *, clean: bool) -> SnapshotStatus | None:
        instant = self._last.moment if self._last is not None else None
        in_sync = instant is not None and clean and not self._behind and self._state.mode is Mode.SNAPSHOTS
        return SnapshotStatus(
            number=self.number,
            kind=self.kind,
            instant=instant,
            in_sync_at=now if in_sync else instant,
            held_ms_last=self.held_ms_last,
            held_ms_max=self.held_ms_max,
            problem=self.problem,
            waits=len(self._waits),
        )
