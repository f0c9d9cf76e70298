"""Sectors, blocks and bytes: what a run of sectors touches, and where a volume ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.runs import Runs
from pydbt.core.units import SECTOR_BYTES, Geometry


@pytest.mark.parametrize("size_bytes", [0, -512, 511, 513])
def test_a_volume_is_a_whole_number_of_sectors(size_bytes: int) -> None:
    with pytest.raises(ValueError):
        Geometry(size_bytes)


@pytest.mark.parametrize("block_bytes", [0, 256, 1000, 12288, 131072])
def test_a_block_is_a_power_of_two_from_512_bytes_to_64_kib(block_bytes: int) -> None:
    with pytest.raises(ValueError):
        Geometry(1 << 20, block_bytes)


def test_the_last_block_may_be_short() -> None:
    geometry = Geometry(10 * 4096 + 512)
    assert (geometry.block_count, geometry.size_sectors, geometry.block_sectors) == (11, 81, 8)
    assert geometry.bytes_of_blocks(9, 2) == (9 * 4096, 4096 + 512)
    assert geometry.bytes_of_blocks(0, 1) == (0, 4096)


@settings(deadline=None)
@given(st.sampled_from([512 << shift for shift in range(8)]), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_run_of_sectors_touches_exactly_the_blocks_its_sectors_lie_in(block: int, sector: int, length: int) -> None:
    geometry = Geometry(20_000 * SECTOR_BYTES, block)
    runs = Runs.of_sectors(np.array([sector], np.uint64), np.array([length], np.uint32), geometry)
    first, count = int(runs.firsts[0]), int(runs.counts[0])
    touched = {one // geometry.block_sectors for one in range(sector, sector + length)}
    if length:
        assert set(range(first, first + count)) == touched
