"""Whether a stream falls behind for long, by how its backlog grows: in bytes of the volume, not of the wire."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from pydbt.core.primary.modes import Mode
from pydbt.core.seen.view import View

BACKLOG_PART_S = 5.0
"""Of each part the least backlog counts, so that bursts that the link works off are no growth."""
BACKLOG_PARTS = 3
"""It must have grown from each part to the next: 15 seconds in all."""
LEAST_GROWTH_BYTES_PER_S = 256 * 1024
"""A backlog that grows more slowly is noise."""


class BacklogWatch:
    """``look`` at each status; ``growth_bytes`` is the present answer."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, float]] = deque()

    def look(self, now: float, report: View) -> None:
        """``now``: of a clock that only goes forward. Only a stream has a backlog; without a link nothing is worked off."""
        backlog = report.number("lag_bytes")
        if backlog is None or report.text("mode") != Mode.NORMAL or not report.flag("connected"):
            self.forget()
            return
        if self._looks and now - self._looks[-1][0] > BACKLOG_PART_S:
            self.forget()  # nobody looked meanwhile
        self._looks.append((now, backlog))
        while len(self._looks) > 2 and self._looks[1][0] <= now - BACKLOG_PARTS * BACKLOG_PART_S:
            self._looks.popleft()

    def forget(self) -> None:
        """Nothing is known of the last seconds."""
        self._looks.clear()

    @property
    def growth_bytes(self) -> float | None:
        """Per second; None where it does not grow for long, or where nobody knows."""
        if not self._looks or self._looks[-1][0] - self._looks[0][0] < BACKLOG_PARTS * BACKLOG_PART_S:
            return None
        begin = self._looks[-1][0] - BACKLOG_PARTS * BACKLOG_PART_S
        parts: list[list[tuple[float, float]]] = [[] for _ in range(BACKLOG_PARTS)]
        for moment, backlog in self._looks:
            parts[min(max(int((moment - begin) / BACKLOG_PART_S), 0), BACKLOG_PARTS - 1)].append((backlog, moment))
        if not all(parts):
            return None
        least = [min(part) for part in parts]
        (first, began), (last, ended) = least[0], least[-1]
        growth = (last - first) / (ended - began)
        grew = all(later > earlier for (earlier, _), (later, _) in pairwise(least))
        return growth if grew and growth >= LEAST_GROWTH_BYTES_PER_S else None
