"""Simulated time: what happens when. The kernel's own events can go on while a process is at work."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class Clock:
    """Two queues of deadlines: the kernel's, and everybody else's."""

    def __init__(self) -> None:
        self.now = 1.0
        self._order = count()
        self._kernel: list[tuple[float, int, Action]] = []
        self._other: list[tuple[float, int, Action]] = []

    def monotonic(self) -> float:
        """As of the time module."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """As of the time module; a process that sleeps sees the kernel go on."""
        self.run_kernel(seconds)

    def at_kernel(self, delay: float, action: Action) -> None:
        heapq.heappush(self._kernel, (self.now + delay, next(self._order), action))

    def after(self, delay: float, action: Action) -> None:
        heapq.heappush(self._other, (self.now + delay, next(self._order), action))

    def run_kernel(self, seconds: float) -> None:
        until = self.now + seconds
        while self._kernel and self._kernel[0][0] <= until:
            when, _, action = heapq.heappop(self._kernel)
            self.now = max(self.now, when)
            action()
        self.now = until

    def run(self, seconds: float) -> None:
        """Everything due within the next seconds, in its order."""
        until = self.now + seconds
        while True:
            due = [queue for queue in (self._kernel, self._other) if queue and queue[0][0] <= until]
            if not due:
                break
            when, _, action = heapq.heappop(min(due, key=lambda queue: queue[0]))
            self.now = max(self.now, when)
            action()
        self.now = max(self.now, until)

    def drop_kernel(self) -> None:
        """The power failed: nothing that was under way in the kernel happens any more."""
        self._kernel.clear()

    def next_due(self) -> float | None:
        return min((queue[0][0] for queue in (self._kernel, self._other) if queue), default=None)
