"""The heat map counts exactly: each cell as a naive count of its blocks has it, and never better than that."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, DirtyMap
from pydbt.core.blocks.layers import Layers
from pydbt.core.blocks.runs import Runs
from pydbt.core.seen.heat import CELLS_MAX, WHOLE, Cells, Heat, free_blocks, heat_of, in_maps, in_runs, shares
from pydbt.core.units import GIB, Geometry

BLOCKS = 2 * CHUNK_BLOCKS + 100
GEOMETRY = Geometry(BLOCKS * 512, 512)
SMALL = Geometry(64 * 4096, 4096)


def map_of(*blocks: int, count: int = 64) -> DirtyMap:
    made = DirtyMap(count)
    made.set_blocks(np.array(blocks, np.int64))
    return made


def layer(*maps: DirtyMap, count: int = 64, **changes: object) -> Layers:
    settings: dict[str, object] = {
        "known": True, "unmerged": False, "swept": Runs.none(), "staged": DirtyMap(count), "sweep_block": None,
        "unreadable": np.zeros(0, np.int64), **changes,
    }  # fmt: skip
    return Layers(maps, **settings)  # type: ignore[arg-type]


def none_in_kernel(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(cells.count, np.int64), np.zeros(cells.count, np.int64)


ranges = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 70_000))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(ranges, max_size=6), min_size=1, max_size=3),
    st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS)),
    st.sampled_from([1, 2, 3, 17, 100, 1000, CELLS_MAX]),
)
def test_each_cell_has_as_many_blocks_as_a_naive_count_finds(
    sets: list[list[tuple[int, int]]], part: tuple[int, int], cells_max: int
) -> None:
    naive = np.zeros(BLOCKS, bool)
    maps = []
    for runs in sets:
        one = DirtyMap(BLOCKS)
        for first, count in runs:
            count = min(count, BLOCKS - first)
            one.set_range(first, count)
            naive[first : first + count] = True
        maps.append(one)
    first, end = part[0], min(BLOCKS, part[0] + part[1])
    cells = Cells.over(GEOMETRY, first * 512, end * 512, cells_max)
    assert cells.count <= cells_max and (cells.first, cells.end) == (first, end)
    counted = [int(naive[low:high].sum()) for low, high in zip(cells.edges()[:-1], cells.edges()[1:], strict=True)]
    assert in_maps(cells, maps).tolist() == counted
    firsts = np.flatnonzero(naive & ~np.append(False, naive[:-1])).astype(np.int64)
    ends = np.flatnonzero(naive & ~np.append(naive[1:], False)).astype(np.int64) + 1
    assert in_runs(cells, Runs(firsts, ends - firsts)).tolist() == counted
    told = shares(cells, np.array(counted, np.int64))
    for share, count, size in zip(told, counted, cells.sizes().tolist(), strict=True):
        assert (share == 0) == (count == 0) and (share == WHOLE) == (count == size)


def test_a_single_block_of_16_tib_is_seen_and_a_single_block_that_is_missing_too() -> None:
    cells = Cells.over(Geometry(16384 * GIB, 4096), 0, 16384 * GIB, 1)
    blocks = cells.geometry.block_count
    assert shares(cells, np.array([1])) == [1] and shares(cells, np.array([blocks - 1])) == [WHOLE - 1]
    assert shares(cells, np.array([blocks + 5])) == [WHOLE], "counted twice, and still no more than there is"


def test_a_range_grows_to_whole_blocks_and_down_to_a_single_one() -> None:
    cells = Cells.over(SMALL, 5000, 5001, 100)
    assert (cells.span_bytes(), cells.count, cells.cell_bytes) == ((4096, 8192), 1, 4096)
    short = Geometry(10 * 4096 + 512, 4096)
    assert Cells.over(short, 40_000, short.size_bytes, 2).span_bytes() == (36864, short.size_bytes)


@pytest.mark.parametrize(
    ("start", "end", "cells"), [(0, 0, 1), (-1, 5, 1), (5, 4, 1), (0, 1 << 40, 1), (0, 5, 0), (0, 5, 9999)]
)
def test_a_range_that_is_no_part_of_the_volume_is_refused_in_one_sentence(start: int, end: int, cells: int) -> None:
    with pytest.raises(ValueError, match=r"a map (is of a part|has 1 to)"):
        Cells.over(SMALL, start, end, cells)


def test_a_block_is_free_only_as_a_whole_and_parts_that_touch_are_one() -> None:
    short = Geometry(10 * 4096 + 512, 4096)
    cells = Cells.over(short, 0, short.size_bytes, 100)
    parts = np.array([(4096 + 1, 2047), (6144, 6144), (40_960, 10_000), (20_480, 4095)])
    assert free_blocks(cells, parts).blocks().tolist() == [2, 10]
    assert not free_blocks(cells, np.zeros((0, 2), np.int64)).total()


def test_the_kernel_s_bits_are_out_of_sync_unless_the_volume_is_followed() -> None:
    cells = Cells.over(SMALL, 0, SMALL.size_bytes, 64)
    in_kernel = none_in_kernel(cells)
    in_kernel[0][3], in_kernel[1][3] = 1, 1
    followed = heat_of(cells, [layer(map_of(5))], in_kernel, None)
    assert followed["cells"]["written"][3] == WHOLE and followed["cells"]["out_of_sync"][3] == 0  # type: ignore[index]
    assert followed["bytes"] == {"written": 4096, "out_of_sync": 4096, "swept": 0, "staged": 0, "unreadable": 0}
    away = heat_of(cells, [layer(map_of(5)), layer(unmerged=True)], in_kernel, None)
    assert [block for block, share in enumerate(away["cells"]["out_of_sync"]) if share] == [3, 5]  # type: ignore[index]


def test_a_kind_that_is_not_known_is_named_and_has_no_cells() -> None:
    cells = Cells.over(SMALL, 0, SMALL.size_bytes, 64)
    made = heat_of(cells, [layer(map_of(5)), layer(known=False)], none_in_kernel(cells), None)
    assert made["unknown"] == ["out_of_sync", "free"]
    assert set(made["cells"]) == {"written", "swept", "staged", "unreadable"} == set(made["bytes"])  # type: ignore[call-overload]
    known = heat_of(cells, [layer()], none_in_kernel(cells), Runs.none())
    assert known["unknown"] == [] and set(known["cells"]) == set(Heat)  # type: ignore[call-overload]


def test_a_block_that_several_secondaries_are_sent_or_lack_counts_once() -> None:
    cells = Cells.over(SMALL, 0, SMALL.size_bytes, 1)
    swept = Runs(np.array([2], np.int64), np.array([3], np.int64))
    one = layer(map_of(1, 2), swept=swept, sweep_block=9, staged=map_of(7), unreadable=np.array([4]))
    other = layer(map_of(2, 3), swept=swept, sweep_block=5, staged=map_of(7, 8), unreadable=np.array([4, 6]))
    made = heat_of(cells, [one, other], none_in_kernel(cells), None)
    assert made["bytes"] == {
        "written": 0, "out_of_sync": 3 * 4096, "swept": 3 * 4096, "staged": 2 * 4096, "unreadable": 2 * 4096,
    }  # fmt: skip
    assert made["sweep"] == 5 * 4096, "the pass that has come least far"
