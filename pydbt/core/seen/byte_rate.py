"""Bytes per second of a counter that is looked at now and then, and that begins anew with each run."""

from __future__ import annotations

from collections import deque

COUNTER_WINDOW_S = 5.0
"""As of ``write_rate_bytes`` in the status: both are shown beside each other."""


class ByteRate:
    """Looks at a counter of the last seconds."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, float]] = deque()

    def observe(self, now: float, count_bytes: float | None) -> None:
        """None where the counter is not known. One that is smaller than before belongs to another run."""
        if count_bytes is None or (self._looks and count_bytes < self._looks[-1][1]):
            self._looks.clear()
        if count_bytes is None:
            return
        self._looks.append((now, count_bytes))
        while len(self._looks) > 2 and now - self._looks[0][0] > COUNTER_WINDOW_S:
            self._looks.popleft()

    @property
    def per_second(self) -> float | None:
        """None before two looks."""
        if len(self._looks) < 2:
            return None
        (then, first), (now, last) = self._looks[0], self._looks[-1]
        return (last - first) / (now - then) if now > then else None
