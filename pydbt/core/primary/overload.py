"""When a full log is no burst any more: then no landing can last, and the operator is told."""

from __future__ import annotations

# This often in this long.
OVERLOAD_TIMES = 5
OVERLOAD_WINDOW_S = 60.0


class Overload:
    """Remembers when the log was full."""

    def __init__(self) -> None:
        self._full_at: list[float] = []

    def note(self, now: float, write_rate_bytes: float) -> str:
        """The log was full. A warning when that happened again and again, else nothing."""
        self._full_at = [when for when in self._full_at if now - when < OVERLOAD_WINDOW_S] + [now]
        if len(self._full_at) < OVERLOAD_TIMES:
            return ""
        self._full_at.clear()
        return (
            f"the log was full {OVERLOAD_TIMES} times within {OVERLOAD_WINDOW_S:g} s while {write_rate_bytes / 1e6:.1f} MB/s"
            " are written: that is more than the secondary takes in order, so it is kept out of sync and copied again and"
            " again until the writes slow down (a larger --ring-size bridges bursts)"
        )
