"""A made-up block map: places where something was written or is out of sync, the same at every zoom."""

from __future__ import annotations

import zlib
from typing import Any

from tests.lab.page_bench.world import Made

BLOCK_BYTES = 4096
WHOLE = 255
Place = tuple[float, float, float]
# Parts of the volume, from and to, and how dense a kind is there.
FREE: tuple[Place, ...] = ((0.31, 0.36, 1.0), (0.52, 0.58, 1.0), (0.72, 0.9, 1.0), (0.93, 1.0, 1.0))
OUT: tuple[Place, ...] = (
    (0.05, 0.071, 0.5),
    (0.1, 0.102, 0.9),
    (0.14, 0.21, 0.12),
    (0.395, 0.41, 0.7),
    (0.61, 0.625, 0.35),
)
UNREADABLE: tuple[Place, ...] = ((0.2501, 0.25012, 1.0),)


def _chance(seed: int, number: int) -> float:
    return zlib.crc32(f"{seed}:{number}".encode()) / 0xFFFFFFFF


def _shares(places: tuple[Place, ...], first: int, count: int, per_cell: int, blocks: int, seed: int) -> list[int]:
    found = []
    for cell in range(count):
        low, high = first + cell * per_cell, min(first + (cell + 1) * per_cell, blocks)
        share = 0.0
        for begin, end, density in places:
            inside = max(0.0, min(high, end * blocks) - max(low, begin * blocks)) / (high - low)
            if not inside:
                continue
            # Single blocks are in or out; of many the share wavers.
            wavers = _chance(seed, low // max(per_cell, 1))
            share += inside * (float(wavers < density) if per_cell == 1 else min(1.0, density * (0.4 + 1.2 * wavers)))
        found.append(min(WHOLE, max(1, int(share * WHOLE))) if share > 0 else 0)
    return found


def heat(made: Made, start: int, end: int, cells: int, now: float, began: float) -> dict[str, Any]:
    """The answer to ``map``: cells are a power of two of blocks each."""
    blocks = -(-made.size_bytes // BLOCK_BYTES)
    first, last = start // BLOCK_BYTES, -(-end // BLOCK_BYTES)
    per_cell = 1 << max(0, (-(-(last - first) // cells) - 1).bit_length())
    count = -(-(last - first) // per_cell)

    def shares(places: tuple[Place, ...], seed: int) -> list[int]:
        return _shares(places, first, count, per_cell, blocks, seed)

    none: list[int] = [0] * count
    step = int(now * 2) % 40
    written = (
        (0.04 + step / 2000, 0.041 + step / 2000, 0.5),
        (0.39 + step / 900, 0.392 + step / 900, 0.9),
        (0.001, 0.0016, 0.6),
    )
    is_behind = made.standing in ("cut-off", "resynchronizing", "will not converge")
    at = 0.06 + (now - began) / 300 % 0.4
    kinds = {
        "written": shares(written, int(now)) if made.load else none,
        "out_of_sync": shares(OUT if is_behind else ((0.39 + step / 900, 0.3904 + step / 900, 0.3),), 1),
        "swept": shares(((at, at + 0.004, 1.0),), 2) if made.standing == "resynchronizing" else none,
        "staged": shares(((0.05, 0.06, 0.6),), 3) if made.standing == "resynchronizing" else none,
        "unreadable": shares(UNREADABLE, 4) if made.standing == "cut-off" else none,
        "free": shares(FREE, 5),
    }  # fmt: skip
    unknown = ["free"] if made.standing == "several" else []
    for kind in unknown:
        del kinds[kind]
    sums = {kind: sum(one) * per_cell * BLOCK_BYTES // WHOLE for kind, one in kinds.items()}
    return {
        "start": first * BLOCK_BYTES, "end": min(last * BLOCK_BYTES, made.size_bytes), "cell_bytes": per_cell * BLOCK_BYTES,
        "block_bytes": BLOCK_BYTES, "cells": kinds, "bytes": sums, "unknown": unknown, "sweep": None, "written_seconds": 2.0,
    }  # fmt: skip


def block(made: Made, offset: int, file: str | None = None) -> dict[str, Any]:
    """The answer to ``block``."""
    part = offset / made.size_bytes
    if any(begin <= part < end for begin, end, _ in FREE):
        return {"offset": offset, "extent": None, "file": None, "why": "the file system says that it is free"}
    start = offset - offset % (1 << 20)
    name = file or f"/srv/{made.name}/base/16384/{2600 + offset // (1 << 20) % 97}"
    return {
        "offset": offset,
        "extent": {"start": start, "length": 1 << 20},
        "file": name,
        "why": "GETFSMAP of XFS (rmapbt)",
    }
