"""Block I/O in figures: what the programs in the kernel have counted, as rates, percentiles and grids.

The programs count since they were attached; what happened in between is the difference of two readings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.core.seen.latency import BUCKETS, EDGES_NS, Spread
from pydbt.core.units import SECTOR_BYTES

SIZES = 32
CELLS = 128
SAMPLED_EVERY = 8
MANY_PER_S, FEW_PER_S = 5_000, 4_000
"""I/Os per second: beyond the first one in eight is timed, and below the second all are again. Below it taking the time costs
half a thousandth of a processor; beyond it an eighth is more than 600 per second."""
_LATENCIES_SHOWN = 32
_STEP = BUCKETS // _LATENCIES_SHOWN  # a row of the heat map is a power of two

#: struct pydbt_io_figures, one for each operation.
FIGURES = np.dtype(
    [(name, "<u8") for name in ("count", "bytes", "errors", "sequential", "begun", "lost")]
    + [("latency", "<u8", (len(PARTS), BUCKETS)), ("sizes", "<u8", (SIZES,)), ("cells", "<u8", (CELLS,))]
)


def cell_shift(size_sectors: int) -> int:
    """log2 of the sectors of a cell of the heat grid: the smallest with which the device has at most CELLS of them."""
    return max(0, (max(size_sectors, 1) - 1).bit_length() - (CELLS.bit_length() - 1))


def difference(later: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """The counts between two readings."""
    words = later.view("<u8").reshape(len(later), -1) - earlier.view("<u8").reshape(len(earlier), -1)
    found: np.ndarray = words.reshape(-1).view(FIGURES)
    return found


def summed(parts: list[np.ndarray]) -> np.ndarray:
    """The counts of several intervals; ``parts`` is not empty."""
    words: np.ndarray = np.stack([part.view("<u8") for part in parts]).sum(axis=0, dtype=np.uint64)
    found: np.ndarray = words.view(FIGURES)
    return found


def every_for(per_second: float, before: int) -> int:
    """Of one I/O in how many the time is taken; ``before``: as it was. All are counted in any case.

    Taking the time is two thirds of the programs' cost. An eighth of a busy device's I/Os is enough for percentiles.
    """
    if per_second > MANY_PER_S:
        return SAMPLED_EVERY
    return before if per_second > FEW_PER_S else 1


@dataclass(frozen=True, slots=True)
class IoSecond:
    """The counts of an interval, which is about a second. ``ended``: the moment of its end."""

    ended: float
    seconds: float
    figures: np.ndarray  # of dtype FIGURES, one for each operation


def operations_report(figures: np.ndarray, seconds: float) -> dict[str, Any]:
    """For each operation: rates per second, sizes, sequential and random, and latencies in their parts."""
    return {name: _operation(figures[at], seconds) for at, name in enumerate(OPERATIONS)}


def _operation(one: np.ndarray, seconds: float) -> dict[str, Any]:
    count, sequential = int(one["count"]), int(one["sequential"])
    with_data = int(one["sizes"].sum())
    return {
        "per_second": count / seconds if seconds > 0 else 0.0,
        "bytes_per_second": int(one["bytes"]) / seconds if seconds > 0 else 0.0,
        "count": count,
        "bytes": int(one["bytes"]),
        "errors": int(one["errors"]),
        "sequential": sequential,
        "random": max(0, with_data - sequential),
        "timed": int(max(part.sum() for part in one["latency"])),
        "sizes": [[SECTOR_BYTES << at, int(number)] for at, number in enumerate(one["sizes"]) if number],
        "latency_ns": {part: Spread.of(one["latency"][at]).to_json() for at, part in enumerate(PARTS)},
    }


def latency_heat(seconds: list[IoSecond]) -> dict[str, Any]:
    """For each operation a column per interval: the number of I/Os by their whole latency, in powers of two.

    ``edges_ns``: lower edges of the rows. Of flushes it is the time that was waited for them. No column: there was none of it.
    """
    total = PARTS.index("total")
    columns = {
        name: [_powers(one.figures[at]["latency"][total]) for one in seconds] if _any(seconds, at) else []
        for at, name in enumerate(OPERATIONS)
    }
    return {"edges_ns": [0, *EDGES_NS[1:BUCKETS:_STEP].tolist()], "columns": columns}


def _any(seconds: list[IoSecond], operation: int) -> bool:
    return any(one.figures[operation]["latency"].any() for one in seconds)


def _powers(counts: np.ndarray) -> list[int]:
    """Bucket 0 is a row of its own; the others in eights."""
    padded = np.append(counts[1:], np.uint64(0)).reshape(-1, _STEP).sum(axis=1)
    return [int(counts[0]), *padded.tolist()]


def offset_heat(seconds: list[IoSecond], size_sectors: int) -> dict[str, Any]:
    """For each operation a column per interval: the bytes in each cell of the device, from its start. No column: none of it."""
    cell_sectors = 1 << cell_shift(size_sectors)
    used = min(CELLS, -(-size_sectors // cell_sectors))
    columns = {
        name: [(one.figures[at]["cells"][:used] * np.uint64(SECTOR_BYTES)).tolist() for one in seconds]
        if any(one.figures[at]["bytes"] for one in seconds)
        else []
        for at, name in enumerate(OPERATIONS)
    }
    return {"cell_bytes": cell_sectors * SECTOR_BYTES, "cells": used, "columns": columns}
