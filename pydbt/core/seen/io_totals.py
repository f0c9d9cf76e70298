"""Block I/O since the programs were attached, for those who add it up over hours: counts, and latencies as histograms.

The bounds are promised (docs/reference/metrics.md). They are edges of the programs' own buckets, so that nothing is guessed but
the sum: each latency counts for the middle of its bucket, which is at most 6 % off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pydbt.core.seen.io_figures import FIGURES
from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.core.seen.latency import BUCKETS, EDGES_NS

_POWERS = range(15, 32)
BOUNDS_SECONDS = tuple((1 << power) / 1e9 for power in _POWERS)
"""From 33 microseconds to 2.1 seconds, each twice the one before."""

_FIRST_BUCKETS = np.concatenate(([0], np.searchsorted(EDGES_NS, np.uint64(1) << np.array(_POWERS, np.uint64))))
_MIDDLES_S = (EDGES_NS[:BUCKETS] + EDGES_NS[1 : BUCKETS + 1]) / 2e9


class IoTotals:
    """``add`` each interval once. What is timed in a sample stands for as many as it was one of."""

    def __init__(self) -> None:
        self._figures = np.zeros(len(OPERATIONS), FIGURES)

    def add(self, figures: np.ndarray, every: int) -> None:
        """``every``: of one I/O in this many the time was taken in this interval."""
        for name in ("count", "bytes", "errors"):
            self._figures[name] += figures[name]
        self._figures["latency"] += figures["latency"] * np.uint64(every)

    def operations(self) -> dict[str, Any]:
        """For each operation of which there was one: counts, and the histogram of each part of the latency that is known."""
        counts = np.add.reduceat(self._figures["latency"], _FIRST_BUCKETS, axis=2)
        sums = self._figures["latency"] @ _MIDDLES_S
        return {
            name: {
                "requests": int(self._figures["count"][at]),
                "bytes": int(self._figures["bytes"][at]),
                "errors": int(self._figures["errors"][at]),
                "latency": {
                    part: {
                        "bounds_seconds": list(BOUNDS_SECONDS),
                        "counts": counts[at, place].tolist(),
                        "sum_seconds": float(sums[at, place]),
                    }
                    for place, part in enumerate(PARTS)
                    if counts[at, place].any()
                },
            }
            for at, name in enumerate(OPERATIONS)
            if self._figures["count"][at]
        }
