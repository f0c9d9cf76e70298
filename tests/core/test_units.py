"""Sectors, blocks and bytes: what a run of sectors touches, and where a volume ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.runs import Runs
from pydbt.core.units import SECTOR_BYTES, Geometry, exact_bytes, format_bytes, format_seconds


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


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1000 << 10, "1.0 MiB"), (200 << 20, "200 MiB"),
     (20 << 30, "20.0 GiB"), (5 << 50, "5120 TiB")],
)  # fmt: skip
def test_a_size_for_people_has_two_or_three_digits(size_bytes: int, words: str) -> None:
    assert format_bytes(size_bytes) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.34, "0.3 s"), (45, "45 s"), (119.6, "2 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"),
     (3 * 86_400 + 4 * 3600, "3 d 4 h")],
)  # fmt: skip
def test_a_duration_for_people_has_two_units_at_most(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [(0, "0 bytes"), (5000, "5000 bytes"), (64 << 10, "64 KiB"), (3 << 20, "3 MiB"), (7 << 30, "7 GiB"), (10 << 40, "10 TiB"),
     ((1 << 40) + 512, "1099511628288 bytes")],
)  # fmt: skip
def test_an_exact_size_is_not_rounded(size_bytes: int, words: str) -> None:
    assert exact_bytes(size_bytes) == words


@pytest.mark.parametrize(
    "number", [None, float("nan"), float("inf"), -float("inf"), pytest.param(10**400, id="huge"), -(1 << 64), 1 << 64]
)
def test_a_value_that_is_no_figure_is_unknown_for_people(number: float | None) -> None:
    assert format_bytes(number) == format_seconds(number) == "unknown"
