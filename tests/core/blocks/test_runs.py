"""Arithmetic on runs of blocks gives what the same arithmetic on sets of block numbers does."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.blocks.runs import Runs, distinct

SETS = st.sets(st.integers(0, 60), max_size=40)


def runs_of(blocks: set[int]) -> Runs:
    return Runs.of_blocks(np.array(sorted(blocks), dtype=np.int64))


def blocks_of(runs: Runs) -> set[int]:
    return set(runs.blocks().tolist())


@given(SETS)
def test_runs_hold_the_blocks_they_were_made_of_and_are_as_few_as_can_be(blocks: set[int]) -> None:
    runs = runs_of(blocks)
    assert blocks_of(runs) == blocks and runs.total() == len(blocks)
    assert (runs.firsts[1:] > runs.ends()[:-1]).all()


@given(st.lists(st.integers(0, 60), max_size=40))
def test_the_order_of_blocks_and_repeated_ones_do_not_matter(blocks: list[int]) -> None:
    assert blocks_of(Runs.of_blocks(np.array(blocks, dtype=np.int64))) == set(blocks)


@given(SETS, SETS)
def test_a_difference_is_that_of_the_sets(one: set[int], other: set[int]) -> None:
    assert blocks_of(runs_of(one).minus(runs_of(other))) == one - other


@given(SETS, SETS)
def test_a_mask_tells_which_blocks_are_held(held: set[int], asked: set[int]) -> None:
    named = np.array(sorted(asked), dtype=np.int64)
    assert set(named[runs_of(held).mask(named)].tolist()) == held & asked


@given(SETS, st.integers(1, 5), st.integers(0, 4))
def test_smaller_blocks_cover_the_same_room_up_to_the_end_of_the_volume(
    blocks: set[int], factor: int, short: int
) -> None:
    end = (max(blocks, default=0) + 1) * factor - min(short, factor - 1)
    expected = {small for block in blocks for small in range(block * factor, (block + 1) * factor) if small < end}
    assert blocks_of(runs_of(blocks).split(factor, end)) == expected


@given(SETS, SETS)
def test_runs_beside_each_other_are_in_block_order_and_all_there(one: set[int], other: set[int]) -> None:
    both = runs_of(one).beside(runs_of(other))
    assert sorted(both.blocks().tolist()) == sorted([*one, *other])
    assert (both.firsts[1:] >= both.firsts[:-1]).all()


@given(st.sets(st.integers(0, 10_000), max_size=200))
def test_runs_and_blocks_are_the_same_set(blocks):
    array = np.array(sorted(blocks), dtype=np.int64)
    assert Runs.of_blocks(array).blocks().tolist() == array.tolist()


@given(st.lists(st.integers(-(1 << 62), 1 << 62) | st.integers(0, 5)))
def test_distinct_numbers_are_in_order_and_each_once(numbers: list[int]) -> None:
    assert distinct(np.array(numbers, np.int64)).tolist() == sorted(set(numbers))
