"""A rate limit that lets a batch go when the ones before it are paid for."""

from __future__ import annotations


class RateLimit:
    """``bytes_per_s`` None: no limit. ``burst_bytes`` may go at once after a rest of a quarter of a second or more."""

    def __init__(self, bytes_per_s: int | None, burst_bytes: int, now: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._burst_bytes = burst_bytes
        self._allowance = float(burst_bytes)
        self._at = now

    def allows(self, now: float) -> bool:
        """Whether the next batch may go."""
        if not self.bytes_per_s:
            return True
        gained = (now - self._at) * self.bytes_per_s
        self._allowance = min(self._allowance + gained, max(self._burst_bytes, self.bytes_per_s / 4))
        self._at = now
        return self._allowance >= 0

    def take(self, length_bytes: int) -> None:
        """A batch goes."""
        if self.bytes_per_s:
            self._allowance -= length_bytes

    def next_allowed(self) -> float | None:
        """When the next batch may go; None: now."""
        if not self.bytes_per_s or self._allowance >= 0:
            return None
        return self._at - self._allowance / self.bytes_per_s
