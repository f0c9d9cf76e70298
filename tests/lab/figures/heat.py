"""What the heat map of a volume of 16 TiB costs: the time of its answer, and for how long it keeps the loop's thread waiting."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, DirtyMap
from pydbt.core.blocks.layers import Layers
from pydbt.core.blocks.runs import Runs
from pydbt.core.seen.heat import Cells, heat_of
from pydbt.core.units import GIB, Geometry
from pydbt.kernel.bitmaps import Bitmaps
from pydbt.kernel.pins import MapLayout
from pydbt.kernel.record import GROUP_WORDS
from tests.lab.figures.report import Figure, figure

NAME = "heat"
_BAR_MS = 1000.0
_STALL_BAR_MS = 50.0
"""The loop may sleep for 20 ms between two looks at the ring; and the interpreter changes threads after 5 ms at the earliest."""
_CELLS = 1024


def measure(quick: bool) -> list[Figure]:
    """The whole volume, with one block dirty in each small map, and with all of them dirty; and a part of it."""
    size_bytes = (1 if quick else 16) * 1024 * GIB
    geometry, turns = Geometry(size_bytes, 4096), 3 if quick else 7
    figures = []
    for what, fill in (("scattered blocks", _scattered), ("every block", _every)):
        dirty = DirtyMap(geometry.block_count)
        fill(dirty)
        with _bitmaps(geometry) as bitmaps:
            for part, end in (("whole", size_bytes), ("1/1024 of it", size_bytes // 1024)):
                cells = Cells.over(geometry, 0, end, _CELLS)
                figures += _of(f"{what} out of sync, {part}", size_bytes, cells, dirty, bitmaps, turns)
    return figures


def _scattered(dirty: DirtyMap) -> None:
    """One block in each small map: the largest map for the fewest blocks."""
    dirty.set_blocks(np.arange(7, dirty.block_count, CHUNK_BLOCKS, dtype=np.int64))


def _every(dirty: DirtyMap) -> None:
    dirty.set_range(0, dirty.block_count)


@contextlib.contextmanager
def _bitmaps(geometry: Geometry) -> Iterator[Bitmaps]:
    """Bitmaps as the kernel has them, in memory of this process; most of the active one is written."""
    words = -(-geometry.block_count // 64)
    coarse = -(-words // GROUP_WORDS // 64)
    layout = MapLayout(words, coarse, words + coarse)
    descriptor = os.memfd_create("bitmaps")
    try:
        os.ftruncate(descriptor, 2 * layout.map_words * 8)
        for at in range(0, words * 8, 1 << 20):
            os.pwrite(descriptor, b"\x11" * 4096, at)
        bitmaps = Bitmaps(descriptor, layout)
        try:
            yield bitmaps
        finally:
            bitmaps.close()
    finally:
        os.close(descriptor)


def _of(what: str, size_bytes: int, cells: Cells, dirty: DirtyMap, bitmaps: Bitmaps, turns: int) -> list[Figure]:
    answers, copies, stalls = [], [], []

    def ask() -> None:
        began = time.perf_counter()
        edges = cells.edges()
        in_kernel = bitmaps.counts(0, edges), bitmaps.counts(1, edges)
        copying = time.perf_counter()
        layers = _layers(dirty)
        copied = time.perf_counter()
        heat_of(cells, [layers], in_kernel, None)
        answers.append((time.perf_counter() - began) * 1000)
        copies.append((copied - copying) * 1000)

    bitmaps.counts(0, cells.edges())  # has their pages mapped, as those of the kernel are from the beginning
    bitmaps.counts(1, cells.edges())
    for _ in range(turns):
        stalls.append(_longest_gap_ms(ask))
    measured = f"{size_bytes >> 40} TiB, {cells.count} cells"
    return [
        figure(NAME, f"heat map, {what}", measured, "ms", answers, bar=_BAR_MS, at_least=False),
        figure(NAME, "... of which in the loop", "copies of the maps", "ms", copies),
        figure(
            NAME,
            "... longest wait of another thread",
            "it looks each ms",
            "ms",
            stalls,
            bar=_STALL_BAR_MS,
            at_least=False,
        ),
    ]


def _layers(dirty: DirtyMap) -> Layers:
    nothing = np.zeros(0, np.int64)
    return Layers((dirty.copy(),), True, True, Runs.none(), DirtyMap(dirty.block_count), None, nothing)


def _longest_gap_ms(work: Callable[[], None]) -> float:
    """While a thread works: for how long, at the most, another one that wakes each millisecond did not run."""
    thread = threading.Thread(target=work)
    longest, last = 0.0, time.perf_counter()
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest * 1000
