"""How fast a synchronization goes, and when it will end: by the last seconds, not by its whole length."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

PACE_WINDOW_S = 20.0
SAMPLE_S = 1.0
# Nothing moved for longer than this: it stands still.
STILL_S = 5.0
# Before this much was seen of it, the network's own rate tells more.
SEEN_S = 3.0


@dataclass(frozen=True, slots=True)
class Pace:
    """``rate_bytes``: brought in sync per second. ``eta_seconds`` None: at this pace there is no end. ``still_seconds`` None:
    it moves."""

    rate_bytes: float
    eta_seconds: float | None
    still_seconds: float | None


NO_PACE = Pace(0.0, None, None)


class Forecast:
    """Samples of (time, bytes done, bytes left) over the last seconds."""

    def __init__(self, now: float) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()
        self._moved_at, self._done_bytes = now, 0

    def observe(self, now: float, done_bytes: int, left_bytes: int) -> None:
        """Call it as often as anything happens."""
        if done_bytes != self._done_bytes:
            self._moved_at, self._done_bytes = now, done_bytes
        if self._samples and now - self._samples[-1][0] < SAMPLE_S:
            return
        self._samples.append((now, done_bytes, left_bytes))
        while now - self._samples[0][0] > PACE_WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()

    def pace(self, now: float, done_bytes: int, left_bytes: int, network_rate_bytes: int | None = None) -> Pace:
        """As of now. What is written meanwhile, and is out of sync then, makes the end later.

        In the first seconds all that is left counts as if it were sent, at the rate at which the network delivers, where that
        is known (``network_rate_bytes`` per second).
        """
        still_s = now - self._moved_at
        if still_s > STILL_S or not self._samples:
            return Pace(0.0, None, round(still_s, 1) if still_s > STILL_S else None)
        then, done_then, left_then = self._samples[0]
        seconds = max(now - then, SAMPLE_S)
        shrunk_per_s = (left_then - left_bytes) / seconds
        if now - then < SEEN_S and network_rate_bytes:
            shrunk_per_s = network_rate_bytes
        eta_s = left_bytes / shrunk_per_s if shrunk_per_s > 0 else (None if left_bytes else 0.0)
        return Pace((done_bytes - done_then) / seconds, eta_s, None)
