"""The units of a batch that are compared by digests: whole ones of 4 KiB, because a digest for less would cost too much.

Blocks smaller than that are compared together, as far as a batch has a unit of them whole; the rest of it is sent as it is
(a digest and its answer would cost a tenth of a block of 512 bytes). Larger blocks are compared page by page.
Three kinds of runs meet here, each by its name: *blocks* are the tracker's; *small blocks* are those of ``Geometry.compared``;
*units* are what one digest stands for.
"""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import BlockNumbers, Runs, distinct
from pydbt.core.units import MAX_COMPARED_BYTES, Geometry


def all_units(blocks: Runs, geometry: Geometry) -> tuple[Runs, int]:
    """The units of a comparison that leaves out nothing: small blocks, and the bytes of one."""
    return small_blocks(blocks, geometry), geometry.compared.block_bytes


def whole_units(blocks: Runs, geometry: Geometry) -> tuple[Runs, Runs]:
    """(units that the runs cover whole, small blocks that are left over)."""
    firsts, counts = small_blocks(blocks, geometry)
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
    return Runs(unit_firsts[whole], (unit_ends - unit_firsts)[whole]), Runs(rest_firsts[left], rest_counts[left])


def wanted_of(units: Runs, rest: Runs, geometry: Geometry) -> Runs:
    """Units that the secondary wants, and the small blocks that were not compared, as small blocks in order."""
    return small_blocks_of_units(units, MAX_COMPARED_BYTES, geometry).beside(rest)


def blocks_wanted(small: Runs, geometry: Geometry) -> BlockNumbers:
    """The tracker's blocks, sorted and once each, of which the secondary wants some small block."""
    return distinct(small.blocks() // (geometry.block_bytes // geometry.compared.block_bytes))


def small_blocks_of_units(units: Runs, unit_bytes: int, geometry: Geometry) -> Runs:
    """Units of ``unit_bytes`` as small blocks, cut at the end of the volume."""
    small = geometry.compared
    return units.split(unit_bytes // small.block_bytes, small.block_count)


def small_blocks(blocks: Runs, geometry: Geometry) -> Runs:
    """The tracker's blocks as small blocks, cut at the end of the volume."""
    small = geometry.compared
    return blocks.split(geometry.block_bytes // small.block_bytes, small.block_count)
