"""Blocks compared by digests and blocks sent as they are: together they are the batch, for every block size."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.blocks.compared import all_units, wanted_of, whole_units
from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.units import Geometry


@st.composite
def batches(draw) -> tuple[Geometry, set[int]]:
    block_bytes = draw(st.sampled_from([512, 1024, 2048, 4096, 16384, 65536]))
    geometry = Geometry(draw(st.integers(1, 600)) * 512, block_bytes)
    blocks = draw(st.sets(st.integers(0, geometry.block_count - 1), min_size=1))
    for start in draw(st.lists(st.integers(0, geometry.block_count - 1), max_size=3)):
        blocks |= set(range(start, min(start + 20, geometry.block_count)))
    return geometry, blocks


def sectors_of(table: Runs, unit_bytes: int, geometry: Geometry) -> list[int]:
    per_unit = unit_bytes // 512
    sectors = [
        sector
        for first, count in zip(*table, strict=True)
        for sector in range(int(first) * per_unit, int(first + count) * per_unit)
    ]
    return [sector for sector in sectors if sector < geometry.size_sectors]


def sectors_of_blocks(blocks: set[int], geometry: Geometry) -> list[int]:
    return sectors_of(Runs(np.array(sorted(blocks)), np.ones(len(blocks), np.int64)), geometry.block_bytes, geometry)


@given(batches())
def test_every_sector_of_a_batch_is_either_compared_or_sent_and_no_other_is(batch):
    geometry, blocks = batch
    units, rest = whole_units(Runs.of_blocks(np.array(sorted(blocks))), geometry)
    together = sectors_of(units, 4096, geometry) + sectors_of(rest, geometry.compared.block_bytes, geometry)
    assert sorted(together) == sectors_of_blocks(blocks, geometry)


@given(batches(), st.randoms())
def test_the_units_that_the_secondary_wants_are_sent_with_all_blocks_that_were_not_compared(batch, chance):
    geometry, blocks = batch
    units, rest = whole_units(Runs.of_blocks(np.array(sorted(blocks))), geometry)
    offered = units.blocks().tolist()
    wanted = Runs.of_blocks(np.array(sorted(chance.sample(offered, chance.randint(0, len(offered)))), dtype=np.int64))
    table = wanted_of(wanted, rest, geometry)
    small_bytes = geometry.compared.block_bytes
    expected = sectors_of(wanted, 4096, geometry) + sectors_of(rest, small_bytes, geometry)
    assert sectors_of(table, small_bytes, geometry) == sorted(expected)


def test_blocks_of_512_bytes_that_lie_together_cost_one_digest_for_4_kib():
    units, rest = whole_units(Runs(np.array([8, 100]), np.array([16, 1])), Geometry(1 << 20, 512))
    assert list(zip(*map(np.ndarray.tolist, units), strict=True)) == [(1, 2)]
    assert list(zip(*map(np.ndarray.tolist, rest), strict=True)) == [(100, 1)]


@given(batches())
def test_settling_compares_every_block_in_units_no_larger_than_a_block(batch):
    geometry, blocks = batch
    table, unit_bytes = all_units(Runs.of_blocks(np.array(sorted(blocks))), geometry)
    assert unit_bytes <= geometry.block_bytes
    assert sectors_of(table, unit_bytes, geometry) == sectors_of_blocks(blocks, geometry)


@given(st.sets(st.integers(0, 199), min_size=1), st.integers(200, 300))
def test_a_unit_with_one_staged_sector_is_never_called_equal(sectors, size):
    staged = StagedBlocks()
    staged.add(SectorTable.of(sorted(sectors), [1] * len(sectors)), Geometry(size * 512, 512))
    units = Geometry(size * 512, 4096)
    named = staged.of(Runs(np.array([0]), np.array([units.block_count])), units.block_bytes)
    assert named.tolist() == sorted({sector // 8 for sector in sectors})
