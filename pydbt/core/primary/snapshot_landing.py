"""Epochs: where only addresses are captured, the replica goes from one image of the primary to the next.

Data that is read later is later data, so the replica can be exact only at moments that are held still: the source is
frozen, or a snapshot of it is taken, or an instant without writes is found. Sweeps of the live device come first, until
little is left (``resync``). Then, of a live device (``freeze``, ``quiescent``):

    hold; wait until nothing is in flight; flip; sweep what is left; nothing was submitted since the wait was over.

The last clause is what makes it exact, whatever the hold is worth: between the end of the wait and the last read the
disk did not change, and the flip, which lies between, names every block that was written before. Of a snapshot:

    flip (resync's own); take the snapshot; flip; sweep both maps from it; it is whole afterwards.

Every write the snapshot holds has its bit in one of the two maps. Some bits of the second are of later writes, so that
its blocks stay out of sync beyond the epoch (``kept``). No flip has to happen inside of a suspension, so that any tool
may take the snapshot. A snapshot that was not whole after the last read discards its epoch.

An epoch of HELLO is another thing: a run of the controller, in which sequence numbers count.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.primary.events import AnswerWait, Flush, Flushed, Held, Hold, QuietTaken, Release, Released, TakeQuiet
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.snapshot_comparison import EpochComparison
from pydbt.core.units import MIB

if TYPE_CHECKING:
    from pydbt.core.primary.brain import Primary

# What is left for the last sweep of a live device is read at once, and held in memory until the secondary has it.
HELD_BYTES = 32 * MIB
# With no more than this to copy, a moment without writes is looked for before anybody is held up. Also what a freeze
# itself writes at its end is no reason for another one.
GENTLE_BLOCKS = 64
# A hold that came to nothing is tried again after a pause that grows from the one to the other.
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
# So many in a row before the operator is told, and again at every so many.
TELL_AFTER = 8


class Epochs:
    """Part of the primary's brain. ``number`` counts the epochs of this run; ``instant`` is when the last one was."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self.on = primary.config.epoch_interval_s is not None
        self.number = 0
        self.kind = ""
        self.problem = ""
        self.instant: float | None = None
        self.held_ms_last = self.held_ms_max = 0.0
        # Blocks written at about the time of the snapshot, before or after it: out of sync until the next epoch.
        self.kept = DirtyMap(primary.geometry.block_count)
        self.comparison = EpochComparison(primary)
        self._swept: DirtyMap | None = None  # what is read from a snapshot that may turn out to be broken
        self._apart = False
        self._holds = 0  # numbers the holds of this run; an epoch answers the waits that came before its own
        self._standing = False  # a hold was asked for, and not yet its release
        self._letting_go = False  # a release was asked for, and not answered yet
        self._flipping = self._flushing = self._flushed = False
        self._position = self._sequence = self._lost = 0
        self._lost_at_last = 0
        self._moment = self._held_at = self._began_at = 0.0
        self._retry_at = -inf
        self._misses = 0
        self._due = -inf
        self._waits: dict[int, int] = {}  # token -> the first hold that answers it

    # --- between epochs -----------------------------------------------------------------------------------
    @property
    def behind(self) -> bool:
        """Whether anything was written since the last epoch, as far as records tell (bitmaps may tell more)."""
        primary = self._primary
        return primary.sequence != primary.acknowledged or primary.lost != self._lost_at_last

    def in_sync_at(self, now: float) -> float | None:
        """Up to when the secondary has everything."""
        clean = self.instant is not None and not self.behind and not self._primary.out_of_sync_blocks()
        return now if clean and self._primary.mode is Mode.EPOCHS else self.instant

    def add(self, token: int, position: int) -> None:
        """Somebody waits for an epoch that begins from now on (wherever the ring is)."""
        self._waits[token] = self._holds + 1

    def drop(self, token: int) -> None:
        """Nobody waits for this one any more."""
        self._waits.pop(token, None)

    def told(self, event: Flushed | Held | Released, now: float) -> None:
        """What became of ``Flush``, ``Hold`` and ``Release``."""
        match event:
            case Flushed():
                self._was_flushed(event, now)
            case Held():
                self._was_held(event, now)
            case Released():
                self._was_released(event, now)

    @property
    def waits(self) -> int:
        """How many wait for an epoch."""
        return len(self._waits)

    def deadline(self) -> float:
        if not self.on:
            return inf
        if self._primary.phase in (Phase.SETTLING, Phase.LAST_SWEEP) and not self._apart:
            return self._held_at + self._primary.config.hold_limit_s
        idle = self._primary.mode is Mode.EPOCHS and self._primary.phase is Phase.IDLE
        return max(self._next(), self._retry_at) if idle and not self._flushing else inf

    def _next(self) -> float:
        primary = self._primary
        if self._waits or self.comparison.asked:
            return -inf
        return self._due if self.behind or primary.tracker.pending.any() else inf

    def ready(self, now: float) -> bool:
        """Before a resynchronization: what file systems keep in memory is written first, and how to hold them is known."""
        if self._flushed:
            return True
        if not self._flushing and now >= self._retry_at:
            self._flushing = True
            self._primary.effects.add(Flush())
        return False

    def _was_flushed(self, event: Flushed, now: float) -> None:
        self._flushing = False
        if event.error:
            self._missed(now, event.error)
            return
        self._flushed, self.kind, self._apart = True, event.kind, event.apart

    def advance(self, now: float) -> None:
        """Mode EPOCHS: begin the next one when it is due, or go on with the one under way."""
        primary = self._primary
        if primary.phase is not Phase.IDLE:
            primary.resync.advance(now)
        elif not primary.quiet_due and now >= self._next() and self.ready(now):
            primary.resync.begin(now)

    # --- the landing --------------------------------------------------------------------------------------
    def may_hold(self, remainder_bytes: int, passes: int, now: float) -> bool:
        """Whether so little is left that the source may be held; a snapshot is no burden, once the bulk is copied."""
        if now < self._retry_at or self._letting_go:
            return False
        return remainder_bytes <= HELD_BYTES or (self._apart and passes > 0)

    def hold(self, now: float) -> None:
        """The map is fresh and on disk, and nothing is on its way."""
        primary = self._primary
        self._holds += 1
        self._standing, self._began_at = True, now
        # Of a snapshot, this is what it holds for sure; of a live device the numbers are taken again.
        self._sequence, self._lost, self._moment = primary.sequence, primary.lost, now
        primary.set_phase(Phase.HOLDING)
        gently = not self._misses and primary.tracker.pending.count() <= GENTLE_BLOCKS
        primary.effects.add(Hold(self._holds, primary.config.hold_limit_s, gently))

    def _was_held(self, event: Held, now: float) -> None:
        if event.hold != self._holds or self._primary.phase is not Phase.HOLDING:
            return  # its release is on its way already
        if event.error:
            self._missed(now, event.error)
            return
        self.kind, self._apart, self._position, self._held_at = event.kind, event.apart, event.position, now
        if self._apart:
            self._flip()
        else:
            self._primary.set_phase(Phase.SETTLING)

    def _flip(self) -> None:
        primary = self._primary
        assert not primary.quiet_held, "a hold begins with a quiet bitmap that is merged, on disk and zeroed"
        self._flipping = primary.quiet_due = True
        primary.effects.add(TakeQuiet(flip=True))

    def flipped(self, event: QuietTaken, now: float) -> bool:
        """The map of the hold is in ``pending``; it is written to disk after the release. False: it is none of ours."""
        if not self._flipping:
            return False
        self._flipping = self._primary.quiet_due = False
        pending = self._primary.tracker.pending
        if self._apart:
            self.kept.merge_words(event.words)
            self._swept = pending.copy()
        elif pending.count() * self._primary.geometry.block_bytes > 2 * HELD_BYTES:
            self._missed(now, "more was written at the last moment than can be read in one")
            return True
        self._primary.set_phase(Phase.LAST_SWEEP)
        self._primary.resync.begin_last_pass(now, held=self._apart)
        return True

    def land(self, now: float) -> None:
        """Go on with a landing; every phase but SWEEPING."""
        primary = self._primary
        late = not self._apart and now - self._held_at > primary.config.hold_limit_s
        match primary.phase:
            case Phase.SETTLING if self._flipping:
                pass
            case Phase.SETTLING if self._still:
                self._sequence, self._lost, self._moment = primary.sequence, primary.lost, now
                self._flip()
            case Phase.LAST_SWEEP:
                self._sweep_on(now, late)
            case Phase.SETTLING if late:
                self._missed(now, "writes in flight did not complete in time")
            case Phase.DRAINING if not primary.resync.in_transit():
                primary.resync.commit(self._sequence)

    @property
    def _still(self) -> bool:
        """Whether nothing is in flight, as far as all records up to the hold tell."""
        primary = self._primary
        return primary.position_reached(self._position) and primary.in_flight.certain and primary.in_flight.empty

    def _sweep_on(self, now: float, late: bool) -> None:
        primary, resync = self._primary, self._primary.resync
        untouched = self._still and (primary.sequence, primary.lost) == (self._sequence, self._lost)
        if not self._apart and not untouched:
            self._missed(now, "the volume was written to while its last blocks were read")
        elif resync.read_failed(now):
            self._missed(now, "blocks of the held volume could not be read")
        elif resync.last_pass_read(now, again=not self._apart):
            self._release()
        elif late:
            self._missed(now, "the last blocks could not be read in time")

    def _release(self) -> None:
        self._primary.set_phase(Phase.RELEASING)
        self._let_go()

    def _let_go(self) -> None:
        if self._standing:
            self._standing, self._letting_go = False, True
            self._primary.effects.add(Release(self._holds))

    def _was_released(self, event: Released, now: float) -> None:
        self._letting_go = False
        self.held_ms_last = event.held_ms
        self.held_ms_max = max(self.held_ms_max, event.held_ms)
        if event.hold != self._holds or self._primary.phase is not Phase.RELEASING:
            self.problem = event.error or self.problem  # it tells more than that its blocks could not be read
            return
        if event.error:
            self._missed(now, event.error)
            return
        self._swept = None
        self._primary.set_phase(Phase.DRAINING)

    def _missed(self, now: float, reason: str) -> None:
        """This hold made no epoch: sweep on, and try again after a pause."""
        primary = self._primary
        self.abandon()
        self._misses += 1
        self.problem = reason
        pause = min(FIRST_PAUSE_S * 2 ** min(self._misses - 1, 10), LONGEST_PAUSE_S, primary.config.epoch_interval_s)
        self._retry_at = now + pause
        level = "warning" if self._misses % TELL_AFTER == 0 else "debug"
        primary.effects.log(
            level, f"no epoch yet after {self._misses} attempts: {reason}; the replica stays at the last one"
        )
        if primary.phase is not Phase.IDLE:
            primary.set_phase(Phase.SWEEPING)
            primary.resync.rest_until(self._retry_at)

    def abandon(self) -> None:
        """Whatever was held is let go; what an unproved snapshot gave counts for nothing."""
        pending = self._primary.tracker.pending
        self._let_go()
        if self._swept is not None:
            pending.merge(self._swept)
            self._swept = None
        pending.merge(self.kept)
        self.kept.clear()
        self._flipping = False

    # --- done ---------------------------------------------------------------------------------------------
    def committed(self, now: float) -> None:
        """The secondary is, durably, the primary as it was at the hold."""
        primary = self._primary
        primary.tracker.pending.merge(self.kept)
        self.kept.clear()
        self.number += 1
        self.comparison.committed()
        self.instant, self._lost_at_last = self._moment, self._lost
        self._due = self._began_at + primary.config.epoch_interval_s
        self._misses, self.problem, self._flushed, self._retry_at = 0, "", False, -inf

    def answer_waits(self) -> None:
        """In mode EPOCHS, and not tainted."""
        if self._primary.phase is Phase.IDLE:
            for token in [token for token, hold in self._waits.items() if hold <= self._holds]:
                del self._waits[token]
                self._primary.effects.add(AnswerWait(token))

    def add_unproved(self, combined: DirtyMap) -> None:
        """Add what is out of sync and not in ``pending``."""
        combined.merge(self.kept)
        if self._swept is not None:
            combined.merge(self._swept)

    def waiting_for(self) -> str:
        """What keeps the landing from going on, in words; empty when nothing does."""
        match self._primary.phase:
            case Phase.HOLDING:
                return f"the source to be held ({self.kind})"
            case Phase.SETTLING:
                return "an instant with no write in flight on the source"
            case Phase.RELEASING:
                return "the source to be let go"
            case Phase.SWEEPING if self.problem:
                return f"a moment that can be held ({self.problem})"
        return ""
