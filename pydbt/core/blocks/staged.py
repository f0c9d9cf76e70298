"""Which blocks lie in the stage of an unfinished resync, newer than the target."""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import BlockNumbers, Runs
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.units import Geometry


class StagedBlocks:
    """The blocks touched by staged records. A digest of one must not be compared with the target."""

    def __init__(self) -> None:
        self._map: DirtyMap | None = None
        self._block_bytes = 0

    def clear(self) -> None:
        """The stage is being applied, ahead of all later comparisons."""
        self._map = None

    def add(self, extents: SectorTable, geometry: Geometry) -> None:
        """Extents of a staged record, all within the volume. ``geometry`` is the same each time until ``clear``."""
        if not len(extents):
            return
        if self._map is None:
            self._map, self._block_bytes = DirtyMap(geometry.block_count), geometry.block_bytes
        self._map.set_extents(*Runs.of_sectors(extents.first_sectors, extents.lengths_sectors, geometry))

    def of(self, units: Runs, unit_bytes: int) -> BlockNumbers:
        """The units that are staged, even in part, in the order given. A unit is one staged block or several."""
        if self._map is None:
            return np.zeros(0, dtype=np.int64)
        named = units.blocks()
        per_unit = unit_bytes // self._block_bytes
        staged = np.zeros(len(named), dtype=np.bool_)
        for offset in range(per_unit):
            blocks = named * per_unit + offset
            inside = blocks < self._map.block_count
            staged[inside] |= self._map.test_blocks(blocks[inside])
        return named[staged]
