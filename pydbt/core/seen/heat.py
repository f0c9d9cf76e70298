"""The heat map of a volume: how much of each cell is in one state or another, counted on the maps as they are.

A *cell* is some whole blocks; the cells of a range follow each other, and the last one may be shorter. The maps are not merged
for it: a union is made of one small map at a time, so that a volume of 16 TiB takes no memory beyond its own maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from bitarray import bitarray

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, DirtyMap
from pydbt.core.blocks.layers import Layers
from pydbt.core.blocks.runs import Integers, Runs, distinct
from pydbt.core.units import Geometry

CELLS_MAX = 4096
"""More than the pixels of a screen are wide; the answer stays below 200 KiB."""
WHOLE = 255
"""The share of a cell all of whose blocks are meant; 0 is none at all, and a single block of many is at least 1."""


class Heat(StrEnum):
    """What a block can be. Each is counted by itself: a block may be several of them."""

    WRITTEN = "written"
    OUT_OF_SYNC = "out_of_sync"
    SWEPT = "swept"
    STAGED = "staged"
    FREE = "free"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Cells:
    """Blocks ``first`` to ``end`` of a volume, ``per_cell`` of them in each cell."""

    geometry: Geometry
    first: int
    end: int
    per_cell: int

    @classmethod
    def over(cls, geometry: Geometry, start_bytes: int, end_bytes: int, cells_max: int) -> Cells:
        """At most ``cells_max`` cells, of a power of two of blocks each, that cover these bytes.

        The range grows to whole blocks, and to at least one. ValueError, with words for who asked, when it is no part of the
        volume.
        """
        if not 0 <= start_bytes < end_bytes <= geometry.size_bytes:
            raise ValueError(
                f"a map is of a part of the volume: from a byte on (start), to a later one (end), and the last is "
                f"{geometry.size_bytes}; asked for {start_bytes} to {end_bytes}"
            )
        if not 1 <= cells_max <= CELLS_MAX:
            raise ValueError(f"a map has 1 to {CELLS_MAX} cells, not {cells_max}")
        first, end = start_bytes // geometry.block_bytes, -(-end_bytes // geometry.block_bytes)
        least = -(-(end - first) // cells_max)
        return cls(geometry, first, end, 1 << (least - 1).bit_length())

    @property
    def count(self) -> int:
        return -(-(self.end - self.first) // self.per_cell)

    @property
    def cell_bytes(self) -> int:
        return self.per_cell * self.geometry.block_bytes

    def edges(self) -> Integers:
        """The first block of each cell, and the block behind the last one."""
        return np.append(np.arange(self.first, self.end, self.per_cell, dtype=np.int64), self.end)

    def sizes(self) -> Integers:
        """How many blocks each cell has."""
        return np.diff(self.edges())

    def span_bytes(self) -> tuple[int, int]:
        """The bytes that the cells cover: from, to."""
        block_bytes = self.geometry.block_bytes
        return self.first * block_bytes, min(self.end * block_bytes, self.geometry.size_bytes)


def in_maps(cells: Cells, maps: Sequence[DirtyMap]) -> Integers:
    """For each cell, how many of its blocks are set in any of the maps, each block once."""
    counts = [0] * cells.count
    # No object for each of some 100,000 small maps: the collector of garbage would go through all of them, and hold everybody up.
    indices = [one.chunk_indices(cells.first, cells.end) for one in maps]
    every = indices[0] if len(maps) == 1 else sorted(set().union(*indices))
    for index in every:
        _count_chunk(cells, index, _union(index, maps), counts)
    return np.array(counts, np.int64)


def _union(index: int, maps: Sequence[DirtyMap]) -> bitarray:
    bits = None
    for one in maps:
        if (mine := one.chunk(index)) is not None:
            bits = mine if bits is None else bits | mine
    assert bits is not None, "one of the maps has this small map"
    return bits


def _count_chunk(cells: Cells, index: int, bits: bitarray, counts: list[int]) -> None:
    base = index * CHUNK_BLOCKS
    block, end = max(base, cells.first), min(base + CHUNK_BLOCKS, cells.end)
    cell = (block - cells.first) // cells.per_cell
    if end - block == CHUNK_BLOCKS and (end - 1 - cells.first) // cells.per_cell == cell:
        counts[cell] += bits.count()
        return
    while block < end:
        stop = min(end, cells.first + (cell + 1) * cells.per_cell)
        counts[cell] += bits.count(1, block - base, stop - base)
        block, cell = stop, cell + 1


def in_runs(cells: Cells, runs: Runs) -> Integers:
    """For each cell, how many of its blocks lie in the runs, which are disjoint and in block order."""
    before = runs.blocks_before(cells.edges())
    return np.diff(before)


def shares(cells: Cells, counts: Integers) -> list[int]:
    """The share of each cell, from 0 to ``WHOLE``. 0 only where there is no block, ``WHOLE`` only where it is every one.

    Counts may exceed the cell, where a block was counted twice.
    """
    sizes = cells.sizes()
    some = np.clip(counts * WHOLE // sizes, 1, WHOLE - 1)
    made: list[int] = np.where(counts >= sizes, WHOLE, np.where(counts > 0, some, 0)).tolist()
    return made


def free_blocks(cells: Cells, parts_bytes: Integers) -> Runs:
    """The blocks that lie in free space as a whole. ``parts_bytes``: a row (first, length) per part; parts may touch."""
    block_bytes, size_bytes = cells.geometry.block_bytes, cells.geometry.size_bytes
    runs = Runs.of_ranges(parts_bytes[:, 0], np.minimum(parts_bytes.sum(axis=1), size_bytes))
    ends = np.where(runs.ends() == size_bytes, cells.geometry.block_count, runs.ends() // block_bytes)
    return Runs.of_ranges(-(-runs.firsts // block_bytes), ends)


def heat_of(
    cells: Cells, layers: Sequence[Layers], in_kernel: tuple[Integers, Integers], free: Runs | None
) -> dict[str, object]:
    """The answer to ``map``: the share of each cell by kind of heat, and the bytes of all cells together.

    ``in_kernel``: of each cell the blocks in either of the kernel's bitmaps, counted before the layers were taken; so no block is
    missed that moves from a bitmap to a map meanwhile. ``free`` None: unknown. A kind that is unknown has no shares.
    """
    written = in_kernel[0] + in_kernel[1]
    out_of_sync = in_maps(cells, [one for layer in layers for one in layer.maps])
    if any(layer.unmerged for layer in layers):
        out_of_sync = out_of_sync + written
    swept = Runs.none()
    for layer in layers:
        swept = Runs.of_ranges(np.append(swept.firsts, layer.swept.firsts), np.append(swept.ends(), layer.swept.ends()))
    unreadable = distinct(np.concatenate([layer.unreadable for layer in layers]))
    counts: dict[Heat, Integers | None] = {
        Heat.WRITTEN: written,
        Heat.OUT_OF_SYNC: out_of_sync if all(layer.known for layer in layers) else None,
        Heat.SWEPT: in_runs(cells, swept),
        Heat.STAGED: in_maps(cells, [layer.staged for layer in layers]),
        Heat.FREE: None if free is None else in_runs(cells, free),
        Heat.UNREADABLE: in_runs(cells, Runs.of_blocks(unreadable)),
    }
    known = {kind: count for kind, count in counts.items() if count is not None}
    start, end = cells.span_bytes()
    block_bytes, sizes = cells.geometry.block_bytes, cells.sizes()
    passes = [layer.sweep_block for layer in layers if layer.sweep_block is not None]
    return {
        "start": start,
        "end": end,
        "cell_bytes": cells.cell_bytes,
        "block_bytes": block_bytes,
        "cells": {str(kind): shares(cells, count) for kind, count in known.items()},
        "bytes": {
            str(kind): min(int(np.minimum(count, sizes).sum()) * block_bytes, end - start)
            for kind, count in known.items()
        },
        "unknown": [str(kind) for kind in counts if kind not in known],
        "sweep": min(passes) * block_bytes if passes else None,
    }
