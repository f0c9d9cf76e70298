"""How long ago something happened on a machine that may have been suspended since: the monotonic clock stands still meanwhile.

clock_gettime(2): CLOCK_BOOTTIME is CLOCK_MONOTONIC with the time of suspensions in it.
"""

from __future__ import annotations

_KEPT = 64
"""Earlier suspensions are counted as one: moments before it are told as too old, never as too young."""
_LEAST_S = 0.01  # the two clocks are read one after the other


class Suspensions:
    """Told both clocks now and then, it knows of each suspension by which reading it had happened. Times in seconds."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None  # the boot-time clock, of the monotonic one
        self._found: list[
            tuple[float, float]
        ] = []  # the monotonic time of the reading that found it, and how long it was

    def read(self, monotonic: float, boottime: float) -> None:
        """Both clocks as they are now."""
        ahead_s = boottime - monotonic
        if self._ahead_s is None:
            self._ahead_s = ahead_s
        elif (longer_s := ahead_s - self._ahead_s) >= _LEAST_S:
            self._ahead_s = ahead_s
            self._found.append((monotonic, longer_s))
            if len(self._found) > _KEPT:
                (_, first_s), (at, second_s), *rest = self._found
                self._found = [(at, first_s + second_s), *rest]

    @property
    def woke_at(self) -> float | None:
        """The reading that found the last suspension: this machine has been awake at least since then; None: there was none."""
        return self._found[-1][0] if self._found else None

    def passed_s(self, at: float, now: float) -> float:
        """Seconds from one monotonic moment to another; with every suspension that was found after the first."""
        return now - at + sum(long_s for found_at, long_s in self._found if found_at >= at)
