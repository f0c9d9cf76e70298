"""What of a batch is compared by digests: whole units of 4 KiB, because a digest for less would weigh too much.

Blocks smaller than that are compared together, as far as a batch has a unit of them whole; the rest of it is sent as it is
(a digest and its answer would cost a tenth of a block of 512 bytes). Blocks larger are compared page by page.
Tables here are in units or in ``Geometry.compared``'s blocks ("small blocks"), never in sectors.
"""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.sector_table import SectorTable, make_extents
from pydbt.core.blocks.staged import spell_blocks
from pydbt.core.units import MAX_COMPARED_BYTES, Geometry


def all_units(first_blocks: np.ndarray, block_counts: np.ndarray, geometry: Geometry) -> tuple[SectorTable, int]:
    """Runs of the tracker's blocks as a table of small blocks, and the bytes of one: every block is compared."""
    return make_extents(*small_blocks(first_blocks, block_counts, geometry)), geometry.compared.block_bytes


def whole_units(
    first_blocks: np.ndarray, block_counts: np.ndarray, geometry: Geometry
) -> tuple[SectorTable, SectorTable]:
    """(table of the units that the runs cover whole, table of the small blocks that are left over)."""
    firsts, counts = small_blocks(first_blocks, block_counts, geometry)
    per_unit = MAX_COMPARED_BYTES // geometry.compared.block_bytes
    ends = firsts + counts
    unit_firsts = -(-firsts // per_unit)
    # The last unit of the volume may be short: then it is whole when its last block is there.
    unit_ends = np.where(ends == geometry.compared.block_count, -(-ends // per_unit), ends // per_unit)
    whole = unit_ends > unit_firsts
    heads = np.where(whole, unit_firsts * per_unit, ends)
    tails = np.where(whole, np.minimum(unit_ends * per_unit, ends), ends)
    rest_firsts = np.column_stack((firsts, tails)).ravel()
    rest_counts = np.column_stack((heads - firsts, ends - tails)).ravel()
    left = rest_counts > 0
    units = make_extents(unit_firsts[whole], (unit_ends - unit_firsts)[whole])
    return units, make_extents(rest_firsts[left], rest_counts[left])


def wanted_of(units: SectorTable, rest: SectorTable, geometry: Geometry) -> SectorTable:
    """Units that the secondary wants, and what was not compared, as one table of small blocks in order."""
    table = np.concatenate((make_extents(*small_blocks_of_units(units, MAX_COMPARED_BYTES, geometry)), rest))
    return table[np.argsort(table["sector"], kind="stable")]


def blocks_wanted(table: SectorTable, geometry: Geometry) -> np.ndarray:
    """The tracker's blocks, sorted and once each, of which the secondary wants a part; the table is in small blocks."""
    return np.unique(spell_blocks(table) // (geometry.block_bytes // geometry.compared.block_bytes))


def small_blocks_of_units(units: SectorTable, unit_bytes: int, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """A table of units of ``unit_bytes`` as runs of small blocks, cut at the end of the volume."""
    per_unit = unit_bytes // geometry.compared.block_bytes
    firsts = units["sector"].astype(np.int64) * per_unit
    return firsts, np.minimum(units["sectors"].astype(np.int64) * per_unit, geometry.compared.block_count - firsts)


def small_blocks(
    first_blocks: np.ndarray, block_counts: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """Runs of the tracker's blocks as runs of small blocks, cut at the end of the volume."""
    small = geometry.compared
    per_block = geometry.block_bytes // small.block_bytes
    firsts = np.asarray(first_blocks, dtype=np.int64) * per_block
    return firsts, np.minimum(np.asarray(block_counts, dtype=np.int64) * per_block, small.block_count - firsts)
