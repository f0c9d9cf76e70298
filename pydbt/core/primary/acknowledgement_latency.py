"""How long writes waited for their acknowledgement: a histogram with fixed bounds, as Prometheus counts one.

The time of a write goes from its capture until it was durable on the secondary, and this process knew that. Writes that are
captured together have the time of the first of them, so that a figure is never better than the truth.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

# From a journal on a fast disk beside the primary, to a link that has almost given up. They are promised: a histogram whose
# bounds change cannot be added up over time.
LATENCY_BOUNDS_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LatencyFigures:
    """At a moment. ``counts[i]``: writes of at most ``bounds_seconds[i]`` and more than the bound before; the last: of more."""

    bounds_seconds: tuple[float, ...] = LATENCY_BOUNDS_SECONDS
    counts: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_SECONDS) + 1)
    sum_seconds: float = 0.0


NO_LATENCIES = LatencyFigures()


class AcknowledgementLatency:
    """Counts of one run. It forgets nothing, and its size is fixed."""

    def __init__(self) -> None:
        self._counts = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
        self._sum_seconds = 0.0

    def add(self, latency_seconds: float, writes: int) -> None:
        """This many writes were acknowledged after this time; a clock that went back counts as none."""
        latency_seconds = max(latency_seconds, 0.0)
        self._counts[bisect_left(LATENCY_BOUNDS_SECONDS, latency_seconds)] += writes
        self._sum_seconds += latency_seconds * writes

    def figures(self) -> LatencyFigures:
        return LatencyFigures(counts=tuple(self._counts), sum_seconds=round(self._sum_seconds, 6))


def latencies_together(parts: Iterable[LatencyFigures]) -> LatencyFigures:
    """Of several secondaries: each acknowledgement counts."""
    known = list(parts)
    return LatencyFigures(
        counts=tuple(sum(column) for column in zip(*(part.counts for part in known), strict=True)),
        sum_seconds=round(sum(part.sum_seconds for part in known), 6),
    )
