"""When a volume at rest wakes: deadlines that lie close together are met together."""

from __future__ import annotations

from collections.abc import Iterable


def wake_at(deadlines: Iterable[float], late_s: float) -> float:
    """The time to wake at: no deadline is met more than ``late_s`` late, and as many as can be are met at once."""
    due = sorted(deadlines)
    return max(at for at in due if at <= due[0] + late_s)
