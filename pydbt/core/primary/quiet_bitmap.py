"""What must be on disk, and when the kernel's quiet bitmap has done its work for this secondary.

Several secondaries share the kernel's two bitmaps (``bitmap_share``): a flip that another one's brain asked for is taken by
this one too. What it names is then covered here by the log until it is acknowledged, or by the pending map once that is
on disk; and when others cannot wait for a slow secondary, by a map on disk that has everything on its way as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydbt.core.primary.events import KeepLeftOut, Persist, Persisted, ScanUsed, TakeQuiet, ZeroQuiet
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.state import State

# In normal mode the bitmaps flip this often, so that the quiet one covers only what is unacknowledged.
RETIRE_INTERVAL_S = 2.0
# As often as the maps are merged and written while the secondary is away: a disk that fails is asked no more often.
PERSIST_RETRY_S = 5.0


@dataclass(slots=True)
class Bits:
    """The quiet bitmap may hold bits that nothing else covers yet.

    ``retire_at``: the sequence number whose acknowledgement covers them, None when only a map on disk does. ``asked``: this
    brain had asked for the flip, and not another secondary's. ``write``: the number of the first write with them in
    the map; later ones have them too. ``left_out_kept``: no block that they name is left out any more by what is on disk.
    """

    retire_at: int | None = None
    asked: bool = True
    write: int | None = field(default=None, compare=False)
    left_out_kept: bool = False


@dataclass(frozen=True, slots=True)
class TakingBitmap:
    """The quiet bitmap was asked for."""


@dataclass(frozen=True, slots=True)
class FindingUsed:
    """The blocks in use on the source were asked for."""


@dataclass(frozen=True, slots=True)
class WritingMap:
    """The map's write to disk was asked for, with this number."""

    number: int


@dataclass(frozen=True, slots=True, eq=False)
class WritingLeftOut:
    """The write to disk of what was left out was asked for, while the quiet bitmap held these bits."""

    bits: Bits | None


MapRequest = TakingBitmap | FindingUsed | WritingMap | WritingLeftOut


class QuietBitmap:
    """``bits`` is None while the quiet bitmap is empty, as far as this brain is concerned.

    ``request``: what was asked for about the maps and is not answered yet, one thing at a time; None when nothing is.
    ``mapped``: the map on disk, if there is one, may be relied on. ``error``: why the map could not be written the last
    time, empty when it could; ``writes``: how many writes of the map were asked for, and the number of the newest. They are done
    in their order, and answered some time later.
    """

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self.bits: Bits | None = Bits() if state.config.quiet_held else None
        self.request: MapRequest | None = None
        self.mapped = not state.config.scan_used
        self.error = ""
        self.next_retire = now
        self._retry_at = 0.0
        self.writes = 0
        self._every_bit = False
        self._left_out_asked = False  # its blocks have left since what is on disk, and that is on its way there
        self._mapped_through = 0  # what is on its way up to here must be in every map that is written

    # --- asking -------------------------------------------------------------------------------------------
    def may_persist(self, now: float) -> bool:
        """Whether a map may be written: one that could not be is tried again some time later."""
        return now >= self._retry_at

    @property
    def idle(self) -> bool:
        """Whether nothing is asked for."""
        return self.request is None

    def at_rest(self, now: float) -> bool:
        """Whether nothing is asked for, and a map could be written."""
        return self.idle and self.may_persist(now)

    def take(self) -> None:
        """Ask for the quiet bitmap: the one held from before first, else after a flip."""
        self.request = TakingBitmap()
        self._state.effects.add(TakeQuiet(flip=self.bits is None))

    def persist(self, *, zero_quiet: bool) -> None:
        """Have the map written, and the quiet bitmap given up if asked."""
        self._take_left_out()
        self.request = write = WritingMap(self._next_write(zero_quiet))
        self._state.effects.add(Persist(zero_quiet=zero_quiet, number=write.number))

    def _next_write(self, zero_quiet: bool) -> int:
        self.writes += 1
        self._state.unreadable.unsaved = False
        if zero_quiet and self.bits is not None and self.bits.write is None:
            self.bits.write = self.writes
        return self.writes

    def keep_left_out(self) -> None:
        """Have it written what was left out, and nothing else: each map that is written has it with it."""
        self.request = WritingLeftOut(self.bits)
        self._take_left_out()
        self._state.effects.add(KeepLeftOut())

    def _take_left_out(self) -> None:
        left_out = self._state.left_out
        self._left_out_asked, left_out.unsaved = self._left_out_asked or left_out.unsaved, False

    def scan(self, *, whole: bool) -> None:
        """Have the blocks in use found."""
        self.request = FindingUsed()
        self._state.effects.add(ScanUsed(whole))

    def cover(self) -> Persist:
        """Others cannot wait for this secondary: what covers the quiet bitmap for it then. Carry it out next."""
        self._mapped_through = self._state.sequence
        return Persist(zero_quiet=True, cover=True, number=self._next_write(True))

    # --- answers ------------------------------------------------------------------------------------------
    def taken(self, *, asked: bool, in_log: bool) -> None:
        """The quiet bitmap was read. ``in_log``: the log has every write that it can name and that is not acknowledged."""
        before = self.bits
        retire_at = before.retire_at if before is not None else None
        # What this brain had asked for and is not on disk yet gets there together with the bits of another's flip.
        asked_before = before is not None and before.asked and before.write is not None
        self.bits = Bits(self._state.sequence if in_log else retire_at, asked or asked_before)
        if in_log and asked:
            self.request = None

    def set_aside(self) -> None:
        """Its bits are merged, and stay in it: a later pass has them written to disk."""
        self.request = None

    def written(self, event: Persisted, now: float) -> bool:
        """The map was written, or could not be. True: the bits that this brain had asked for are in it, and given up.

        A write that was asked for before the latest flip says nothing of the bits of that flip.
        """
        asked = self.request
        if isinstance(asked, WritingMap) and not event.cover and event.number >= asked.number:
            self._answered(event.error)
        if event.error:
            self._not_written(event.error, now)
            return False
        self.error = ""
        if not event.zeroed or self.bits is None or self.bits.write is None or event.number < self.bits.write:
            return False
        own = self.bits.asked and not event.cover
        self.bits = None
        return own

    def left_out_kept(self, error: str, now: float) -> None:
        """It was written, or could not be. That says nothing of bits that came with another one's flip after it was asked for."""
        asked = self.request
        if isinstance(asked, WritingLeftOut):
            self._answered(error)
        if error:
            return self._not_written(error, now)
        self.error = ""
        if isinstance(asked, WritingLeftOut) and self.bits is not None and self.bits is asked.bits:
            self.bits.left_out_kept = True

    def _answered(self, error: str) -> None:
        """What this brain had asked for, was written or could not be."""
        self.request = None
        self._state.left_out.unsaved |= self._left_out_asked and bool(error)
        self._left_out_asked = False

    def _not_written(self, error: str, now: float) -> None:
        if error != self.error:
            self._state.effects.log("error", f"the maps could not be written: {error}")
        self.error = error
        self._state.unreadable.unsaved = len(self._state.unreadable) > 0 or self._state.replica.lacking().total() > 0
        self._retry_at = now + PERSIST_RETRY_S
        if self.in_normal_mode and self.bits is not None and self.bits.retire_at is None:
            self.bits.retire_at = self._state.sequence

    # --- in normal mode -----------------------------------------------------------------------------------
    @property
    def in_normal_mode(self) -> bool:
        """Whether acknowledgements cover what the quiet bitmap names."""
        return self._state.mode is Mode.NORMAL

    def retire(self, now: float) -> None:
        """In normal mode: give up the bits that are acknowledged; then have the bitmaps flipped, when that is due."""
        state, bits = self._state, self.bits
        acknowledged = bits is not None and bits.retire_at is not None and state.acknowledged >= bits.retire_at
        if bits is not None and acknowledged and self.at_rest(now):
            # After a crash these bits alone tell what was written to space that is left out on disk.
            if state.left_out.unsaved and not bits.left_out_kept:
                return self.keep_left_out()
            bits.retire_at = None
            if len(state.unsettled) or len(state.unreadable):
                self.persist(zero_quiet=True)
            else:
                state.effects.add(ZeroQuiet())
                self.bits = None
        else:
            self.keep_unsaved(now)
        if now >= self.next_retire and self.bits is None and self.at_rest(now):
            self.next_retire = now + RETIRE_INTERVAL_S
            if state.statistics.written_since_retire() or self._every_bit:
                self._every_bit = False
                self.take()

    def keep_unsaved(self, now: float) -> None:
        """Have a map written for blocks that are on none yet: the source cannot read them, or the target does not take them."""
        if self._state.unreadable.unsaved and self.at_rest(now):
            self.persist(zero_quiet=False)

    def retire_every_bit(self, now: float) -> None:
        """Flip soon, also when only completions have set bits since the last flip: nothing is to be left in the bitmaps."""
        self.next_retire, self._every_bit = now, True

    def enter_normal(self, now: float) -> None:
        """A resynchronization has landed: the map on disk names nothing any more."""
        self.next_retire = now + RETIRE_INTERVAL_S
        # Of bits that were taken for another secondary since S0, only the acknowledgement tells.
        self.persist(zero_quiet=self.bits is not None and self.bits.retire_at is None)

    # --- among several secondaries ------------------------------------------------------------------------
    @property
    def is_needed(self) -> bool:
        """Whether this brain relies on it. One that has never looked at the volume has nothing to lose."""
        return self.bits is not None and self.mapped

    def zeroed(self) -> None:
        """It is empty now, for everybody."""
        self.bits = None

    def halt(self) -> None:
        """Nothing is acknowledged any more."""
        if self.bits is not None:
            self.bits.retire_at = None

    # --- what else must be in a map -----------------------------------------------------------------------
    @property
    def maps_unacknowledged(self) -> bool:
        """Whether a map that is written must have the log's blocks in it, since a map has covered for this secondary."""
        return self._state.acknowledged < self._mapped_through
