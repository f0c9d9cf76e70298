"""Which blocks lie in the stage of an unfinished resync, newer than the target; and tables of blocks in general."""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.sector_table import SectorTable, make_extents
from pydbt.core.units import Geometry


def spell_blocks(extents: SectorTable) -> np.ndarray:
    """Block numbers (int64) of a table of blocks, in its order."""
    counts = extents["sectors"].astype(np.int64)
    firsts = extents["sector"].astype(np.int64)
    before = np.cumsum(counts) - counts
    return np.repeat(firsts - before, counts) + np.arange(int(counts.sum()))


def block_table(blocks: np.ndarray) -> SectorTable:
    """The shortest table of sorted, unique block numbers."""
    if not len(blocks):
        return make_extents([], [])
    starts = np.flatnonzero(np.concatenate(([True], np.diff(blocks) != 1)))
    counts = np.diff(np.append(starts, len(blocks)))
    return make_extents(blocks[starts], counts)


class StagedBlocks:
    """The blocks touched by staged records. A digest of one must not be compared with the target."""

    def __init__(self) -> None:
        self._map: DirtyMap | None = None
        self._geometry: Geometry | None = None

    def clear(self) -> None:
        """The stage is being applied: what is compared later is compared behind it."""
        self._map = None

    def add(self, extents: SectorTable, geometry: Geometry) -> None:
        """SectorTable in sectors, all within the volume."""
        if not len(extents):
            return
        if self._map is None:
            self._map, self._geometry = DirtyMap(geometry.block_count), geometry
        firsts = extents["sector"].astype(np.int64) // geometry.block_sectors
        ends = -(-(extents["sector"].astype(np.int64) + extents["sectors"]) // geometry.block_sectors)
        self._map.set_extents(firsts, ends - firsts)

    def of(self, extents: SectorTable, units: Geometry) -> np.ndarray:
        """Those units of a table that are staged, even in part. A unit is one staged block or several."""
        if self._map is None:
            return np.zeros(0, dtype=np.int64)
        named = spell_blocks(extents)
        per_unit = units.block_bytes // self._geometry.block_bytes
        staged = np.zeros(len(named), dtype=bool)
        for offset in range(per_unit):
            blocks = named * per_unit + offset
            inside = blocks < self._geometry.block_count
            staged[inside] |= self._map.test_blocks(blocks[inside])
        return named[staged]
