"""How far the volume is, for a secondary, so that a promotion there can name the loss: never less than the truth."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.primary.modes import FOLLOWING_MODES, Mode


@dataclass(frozen=True, slots=True)
class RingMoment:
    """A moment by the primary's clock, and the position at which the kernel's ring ended just after it.

    So every write before the moment lies before the position; one between the two is not promised.
    """

    moment: str
    position: int


def vouched_for(taken_in: int, here: RingMoment, before: RingMoment) -> RingMoment:
    """The latest moment of which it is known that every earlier write has its number.

    ``taken_in``: the ring position up to which the brain has taken records in; ``here`` is of now, ``before`` of the last time.
    """
    return here if taken_in >= here.position else before


def is_followed(mode: Mode, tainted: bool, taken_in: int, vouched: RingMoment) -> bool:
    """Whether the secondary, when it has everything up to the number that it is told, has all writes before that moment."""
    return mode in FOLLOWING_MODES and not tainted and taken_in >= vouched.position


@dataclass(frozen=True, slots=True)
class Shortage:
    """What is known here of what a secondary lacks. ``known``: whether all blocks that may differ are counted."""

    known: bool
    out_of_sync_bytes: int
    unacknowledged_bytes: int

    def behind_bytes(self, mode: Mode, in_kernel_bytes: int) -> int | None:
        """The most that it lacks: outside of mode normal the kernel's bitmaps name more blocks. None: nobody knows."""
        if not self.known:
            return None
        if mode is Mode.NORMAL:
            return max(self.out_of_sync_bytes, self.unacknowledged_bytes)
        return self.out_of_sync_bytes + in_kernel_bytes
