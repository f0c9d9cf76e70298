"""What it costs to keep the map of a dirty TiB on disk: bytes and time of a pass, and how long the loop waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.units import GIB, MIB, Geometry
from pydbt.posix.atomic import replace_file
from pydbt.store.map_image import MapHeader, map_parts
from pydbt.store.map_keeper import MapKeeper
from tests.lab.figures.folders import disk_folder
from tests.lab.figures.report import Figure, figure

NAME = "maps"
_GEOMETRY = Geometry(1024 * GIB, 4096)
_HEADER = MapHeader(UUID(int=1), _GEOMETRY, epoch=1)


def measure(quick: bool) -> list[Figure]:
    """Passes over a TiB whose every block is out of sync, in which nothing, one block, or many blocks have changed."""
    turns = 3 if quick else 15
    with disk_folder(256 * MIB) as folder:
        return [*_whole(folder / "whole.map", turns), *_kept(folder / "dirty.map", turns)]


def _dirty() -> DirtyMap:
    dirty = DirtyMap(_GEOMETRY.block_count)
    dirty.set_range(0, dirty.block_count)
    return dirty


def _whole(path: Path, turns: int) -> list[Figure]:
    """As it was: the whole map, each time, in the loop."""
    dirty, times = _dirty(), []
    for _ in range(turns):
        began = time.perf_counter()
        replace_file(path, map_parts(_HEADER, dirty))
        times.append((time.perf_counter() - began) * 1000)
    size = path.stat().st_size
    return [
        figure(NAME, "a pass that writes the whole map", f"{size:,} bytes, in the loop", "ms", times),
    ]


def _kept(path: Path, turns: int) -> list[Figure]:
    """As it is: what has changed, outside of the loop, which copies the map and goes on."""
    dirty, keeper, rng = _dirty(), MapKeeper(path), np.random.default_rng(1)
    keeper.keep(_HEADER, dirty.copy())
    changes: dict[str, Callable[[], None]] = {
        "nothing has changed": lambda: None,
        "one block has changed": lambda: dirty.clear_blocks(rng.integers(0, dirty.block_count, 1)),
        "1,000 scattered blocks have changed": lambda: dirty.clear_blocks(rng.integers(0, dirty.block_count, 1000)),
    }
    figures, copying = [], []
    for what, change in changes.items():
        written, times = [], []
        for _ in range(turns):
            change()
            began = time.perf_counter()
            image = dirty.copy()
            copied = time.perf_counter()
            written.append(keeper.keep(_HEADER, image))
            times.append((time.perf_counter() - copied) * 1000)
            copying.append((copied - began) * 1000)
        measured = f"{int(np.median(written)):,} bytes, in the thread"
        figures.append(figure(NAME, f"a pass in which {what}", measured, "ms", times))
    return [*figures, figure(NAME, "... and the loop's own part of it", "a copy of the map", "ms", copying)]
