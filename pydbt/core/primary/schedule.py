"""When something that is repeated is due again, although the clock of the machine may have been wrong."""

from __future__ import annotations

CANCELLED_REST_S = 3600.0
"""A comparison that answers a taint begins again this long after somebody has cancelled one: nothing else ends a taint."""


def due_in_s(every_s: float, since_last_s: float | None) -> float:
    """How long to wait before the next time; the caller counts it on the monotonic clock.

    ``since_last_s`` is a difference of dates, the last of which may have been written down by a clock that was years ahead: it
    is less than nothing then, and says nothing. None: there was no last time.
    """
    if since_last_s is None:
        return 0.0
    return min(max(0.0, every_s - since_last_s), every_s)
