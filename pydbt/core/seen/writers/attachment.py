"""When the programs that see who writes are attached by themselves, with nobody looking."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

ATTRIBUTIONS = ("off", "auto", "always")
LEFT_FOR_S = 3.0
"""A volume leaves mode normal for a moment when its controller starts, or when a burst fills its log."""
BACK_FOR_S = 60.0
"""A volume that has been in mode normal for this long needs them no more: one that leaves it again and again keeps them."""


@dataclass(slots=True)
class Attachment:
    """``attribution``: the option. Moments are of a monotonic clock. ``left_normal_at``: None in mode normal."""

    attribution: str
    left_normal_at: float | None = None
    _wanted_until: float = -inf

    def moved(self, now: float, *, follows: bool) -> None:
        """``follows``: the volume is in mode normal (or makes its images), as it should be."""
        if not follows:
            if self.left_normal_at is None:
                self.left_normal_at = now
        elif self.left_normal_at is not None:
            if self._is_out(now):
                self._wanted_until = now + BACK_FOR_S
            self.left_normal_at = None

    def is_wanted(self, now: float) -> bool:
        if self.attribution == "auto":
            return self._is_out(now) or now < self._wanted_until
        return self.attribution == "always"

    def _is_out(self, now: float) -> bool:
        return self.left_normal_at is not None and now >= self.left_normal_at + LEFT_FOR_S
