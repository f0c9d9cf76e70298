"""Latencies in buckets: eight for each power of two of nanoseconds, from 256 ns to 16 minutes, as bpf/block_io.bpf.c has them.

A bucket is at most an eighth wide, so a percentile is at most 12.5 % off. Buckets can be added and subtracted, which percentiles
cannot. (The idea is that of HdrHistogram.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BUCKETS = 256
_FIRST_POWER, _END_POWER = 8, 40
_PARTS_BITS = 3
_PARTS = 1 << _PARTS_BITS

PERCENTILES = (50.0, 95.0, 99.0, 99.9)
UNKNOWN_NS = (1 << 64) - 1
"""In the place of a time that the programs do not know."""


def _edges() -> np.ndarray:
    powers = np.arange(_FIRST_POWER, _END_POWER, dtype=np.uint64)
    steps = np.arange(_PARTS, dtype=np.uint64)
    starts = (np.uint64(1) << powers)[:, None] + (steps << (powers[:, None] - np.uint64(_PARTS_BITS)))
    return np.concatenate((np.zeros(1, np.uint64), starts.reshape(-1)))


EDGES_NS = _edges()
"""Lower edges of all buckets, in nanoseconds, and the upper one of the last, which also holds what is longer."""


def bucket_of(ns: np.ndarray) -> np.ndarray:
    """The bucket of each latency."""
    found: np.ndarray = np.searchsorted(EDGES_NS[1:BUCKETS], ns.astype(np.uint64), side="right")
    return found


def counts_of(ns: np.ndarray) -> np.ndarray:
    """How many latencies lie in each bucket; unknown ones are left out."""
    known = ns[ns != np.uint64(UNKNOWN_NS)]
    return np.bincount(bucket_of(known), minlength=BUCKETS).astype(np.uint64)


def percentile_ns(counts: np.ndarray, percent: float) -> float | None:
    """The latency that this part of all I/Os does not exceed; within its bucket, as if these lay evenly. None without any."""
    total = int(counts.sum())
    if not total:
        return None
    wanted = total * percent / 100
    through = np.cumsum(counts)
    bucket = min(int(np.searchsorted(through, wanted, side="left")), len(counts) - 1)
    before = int(through[bucket]) - int(counts[bucket])
    part = (wanted - before) / int(counts[bucket]) if counts[bucket] else 0.0
    low, high = float(EDGES_NS[bucket]), float(EDGES_NS[bucket + 1])
    return low + (high - low) * part


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of latencies, in nanoseconds; None: unknown. ``max_ns``: the upper edge of the last bucket that has any."""

    count: int
    percentiles_ns: tuple[float | None, ...]
    max_ns: float | None

    @classmethod
    def of(cls, counts: np.ndarray) -> Spread:
        used = np.flatnonzero(counts)
        longest = float(EDGES_NS[int(used[-1]) + 1]) if len(used) else None
        return cls(int(counts.sum()), tuple(percentile_ns(counts, one) for one in PERCENTILES), longest)

    def to_json(self) -> dict[str, float | int | None]:
        """``count``, ``p50``, ``p95``, ``p99``, ``p99.9`` and ``max``; nanoseconds."""
        named = {f"p{percent:g}": value for percent, value in zip(PERCENTILES, self.percentiles_ns, strict=True)}
        return {"count": self.count, **named, "max": self.max_ns}
