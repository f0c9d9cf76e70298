"""The dirty map holds exactly the blocks it was given, in room for what is dirty, and hands them out as runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, CHUNK_BYTES, DirtyMap
from pydbt.core.blocks.runs import Runs

BLOCKS = 3 * CHUNK_BLOCKS - 5


def array(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def blocks_of(dirty: DirtyMap) -> set[int]:
    return set(dirty.extents().blocks().tolist())


def runs_of(blocks: set[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for block in sorted(blocks):
        if runs and sum(runs[-1]) == block:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((block, 1))
    return runs


# Near the borders of chunks, where the mistakes are.
block = st.one_of(
    st.integers(0, BLOCKS - 1),
    st.sampled_from([0, CHUNK_BLOCKS, 2 * CHUNK_BLOCKS, BLOCKS - 64]).flatmap(
        lambda border: st.integers(max(0, border - 70), min(BLOCKS - 1, border + 70))
    ),
)
extent = st.tuples(block, st.one_of(st.integers(0, 200), st.integers(0, BLOCKS))).map(
    lambda pair: (pair[0], min(pair[1], BLOCKS - pair[0]))
)
change = st.one_of(
    st.tuples(st.sampled_from(["set_blocks", "clear_blocks"]), st.lists(block, max_size=20)),
    st.tuples(st.sampled_from(["set_extents", "clear_extents"]), st.lists(extent, max_size=4)),
    st.tuples(st.sampled_from(["set_range", "clear_range"]), extent),
    st.tuples(st.just("take_run"), extent),
)


def apply(dirty: DirtyMap, model: set[int], name: str, data: object) -> None:
    match name:
        case "set_blocks" | "clear_blocks":
            getattr(dirty, name)(array(*data))
            changed = set(data)
        case "set_extents" | "clear_extents":
            pairs = np.array(data, np.int64).reshape(-1, 2)
            getattr(dirty, name)(pairs[:, 0], pairs[:, 1])
            changed = {b for first, count in data for b in range(first, first + count)}
        case "take_run":
            taken = dirty.take_run(data[0], max(1, data[1]))
            later = [run for run in runs_of({b for b in model if b >= data[0]})]
            expected = (later[0][0], min(later[0][1], max(1, data[1]))) if later else None
            assert taken == expected
            changed = set(range(taken[0], sum(taken))) if taken else set()
        case _:
            getattr(dirty, name)(*data)
            changed = set(range(data[0], sum(data)))
    if name.startswith("set"):
        model |= changed
    else:
        model -= changed


@settings(deadline=None)
@given(st.lists(change, max_size=8), block)
def test_behaves_as_a_set_of_block_numbers(changes: list[tuple[str, object]], probe: int) -> None:
    dirty, model = DirtyMap(BLOCKS), set()
    for name, data in changes:
        apply(dirty, model, name, data)
    assert dirty.count() == len(model)
    assert dirty.any() == bool(model)
    assert dirty.contains(probe) == (probe in model)
    probes = array(probe, 0, BLOCKS - 1, CHUNK_BLOCKS, probe)
    assert dirty.test_blocks(probes).tolist() == [b in model for b in probes.tolist()]
    runs = runs_of(model)
    assert list(zip(*map(np.ndarray.tolist, dirty.extents()), strict=True)) == runs
    later = runs_of({b for b in model if b >= probe})
    for limit in (0, 1, 2, 3):
        found = dirty.extents(probe, limit)
        assert list(zip(*map(np.ndarray.tolist, found), strict=True)) == later[:limit]
    assert dirty.next_run(probe, BLOCKS) == (later[0] if later else None)
    assert dirty.chunk_indices() == sorted({b // CHUNK_BLOCKS for b in model}), "a chunk of zeroes takes no memory"


@settings(deadline=None)
@given(st.lists(extent, max_size=4), st.lists(extent, max_size=4))
def test_merging_loses_no_block_and_the_union_is_counted_without_making_it(
    mine: list[tuple[int, int]], theirs: list[tuple[int, int]]
) -> None:
    one, other = DirtyMap(BLOCKS), DirtyMap(BLOCKS)
    for dirty, extents in ((one, mine), (other, theirs)):
        for first, count in extents:
            dirty.set_range(first, count)
    union = blocks_of(one) | blocks_of(other)
    assert one.count_union(other) == len(union)
    kept = blocks_of(other)
    one.merge(other)
    assert blocks_of(one) == union
    assert blocks_of(other) == kept


@settings(deadline=None)
@given(st.lists(extent, max_size=4), st.lists(extent, max_size=4))
def test_runs_meet_a_map_where_a_block_of_theirs_is_set(
    mine: list[tuple[int, int]], theirs: list[tuple[int, int]]
) -> None:
    dirty = DirtyMap(BLOCKS)
    for first, count in mine:
        dirty.set_range(first, count)
    asked = {block for first, count in theirs for block in range(first, first + count)}
    firsts, counts = (array(*column) for column in (zip(*theirs, strict=True) if theirs else ((), ())))
    assert dirty.meets(firsts, counts) is bool(asked & blocks_of(dirty))


@given(st.lists(extent, max_size=4))
def test_a_saved_map_comes_back_and_its_zero_chunks_are_not_written(extents: list[tuple[int, int]]) -> None:
    dirty = DirtyMap(BLOCKS)
    for first, count in extents:
        dirty.set_range(first, count)
    chunks = list(dirty.chunks())
    assert all(len(data) == CHUNK_BYTES and any(data) for _, data in chunks)
    assert blocks_of(DirtyMap.from_chunks(BLOCKS, chunks)) == blocks_of(dirty)


@settings(deadline=None)
@given(st.lists(block, max_size=50), st.integers(0, 3))
def test_a_kernel_bitmap_is_merged_bit_by_bit_with_any_padding(blocks: list[int], padding_words: int) -> None:
    words = np.zeros(-(-BLOCKS // 64) + padding_words, np.uint64)
    for b in blocks:
        words[b // 64] |= np.uint64(1 << (b % 64))
    dirty = DirtyMap(BLOCKS)
    dirty.set_blocks(array(7))
    dirty.merge_words(words)
    assert blocks_of(dirty) == {*blocks, 7}


def test_a_bit_beyond_the_volume_is_refused_and_changes_nothing() -> None:
    dirty = DirtyMap(100)
    words = np.zeros(2, np.uint64)
    words[0], words[1] = np.uint64(1), np.uint64(1 << (100 - 64))
    for attempt in (
        lambda: dirty.set_blocks(array(3, 100)),
        lambda: dirty.set_blocks(array(-1)),
        lambda: dirty.set_range(99, 2),
        lambda: dirty.set_extents(array(1, 99), array(1, 2)),
        lambda: dirty.merge_words(words),
        lambda: dirty.merge(DirtyMap(101)),
        lambda: dirty.contains(100),
        lambda: DirtyMap.from_chunks(100, [(1, b"\x01" + bytes(CHUNK_BYTES - 1))]),
        lambda: DirtyMap.from_chunks(100, [(0, b"\x01")]),
        lambda: DirtyMap(0),
    ):
        with pytest.raises(ValueError):
            attempt()
    assert not dirty.any()


def test_a_copy_does_not_follow_its_original() -> None:
    dirty = DirtyMap(BLOCKS)
    dirty.set_range(10, 5)
    twin = dirty.copy()
    dirty.clear()
    assert blocks_of(twin) == set(range(10, 15))
    twin.set_blocks(array(BLOCKS - 1))
    assert not dirty.any()


def test_a_run_longer_than_a_chunk_is_one_run_and_is_taken_in_pieces() -> None:
    dirty = DirtyMap(BLOCKS)
    dirty.set_range(1, BLOCKS - 1)
    assert dirty.extents().counts.tolist() == [BLOCKS - 1]
    taken = 0
    while (run := dirty.take_run(0, 10_000)) is not None:
        assert run == (1 + taken, min(10_000, BLOCKS - 1 - taken))
        taken += run[1]
    assert taken == BLOCKS - 1


def test_a_volume_of_sixteen_tebibytes_costs_nothing_until_it_is_written() -> None:
    dirty = DirtyMap(2**32)
    dirty.set_blocks(array(0, 2**32 - 1, 2**31))
    dirty.clear_range(1, 2**32 - 1)
    assert blocks_of(dirty) == {0}
    assert dirty.chunk_indices() == [0]


@settings(deadline=None)
@given(st.lists(extent, max_size=5), st.lists(extent, max_size=5))
def test_runs_subtract_as_sets_do(mine: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> None:
    def union(pairs: list[tuple[int, int]]) -> tuple[Runs, set[int]]:
        table = np.array(pairs, np.int64).reshape(-1, 2)
        return Runs.of_ranges(table[:, 0], table.sum(axis=1)), {b for f, c in pairs for b in range(f, f + c)}

    (one, one_set), (other, other_set) = union(mine), union(theirs)
    assert list(zip(*map(np.ndarray.tolist, one), strict=True)) == runs_of(one_set)
    assert set(one.minus(other).blocks().tolist()) == one_set - other_set


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_copy_stays_as_it_was_and_names_the_small_maps_that_changed_since(data: st.DataObject) -> None:
    count = 3 * CHUNK_BLOCKS + 5
    runs = st.tuples(st.integers(0, count - 1), st.integers(1, 2 * CHUNK_BLOCKS)).map(
        lambda r: (r[0], min(r[1], count - r[0]))
    )
    dirty = DirtyMap(count)
    for run in data.draw(st.lists(runs, max_size=4)):
        dirty.set_range(*run)
    twin, before = dirty.copy(), dict(dirty.chunks())
    moves = {
        "set_range": dirty.set_range,
        "clear_range": dirty.clear_range,
        "set_blocks": lambda first, length: dirty.set_blocks(np.arange(first, first + min(length, 9))),
        "clear_blocks": lambda first, length: dirty.clear_blocks(np.arange(first, first + min(length, 9))),
        "merge": lambda *_: dirty.merge(twin),
        "clear": lambda *_: dirty.clear(),
    }
    for name, run in data.draw(st.lists(st.tuples(st.sampled_from(sorted(moves)), runs), max_size=5)):
        moves[name](*run)
    now = dict(dirty.chunks())
    assert dict(twin.chunks()) == before, "a copy is a map of its own"
    unlike = sorted(index for index in before.keys() | now.keys() if before.get(index) != now.get(index))
    assert dirty.chunks_unlike(twin) == unlike == twin.chunks_unlike(dirty)
    assert {index: bytes(dirty.chunk_bits(index) or b"") for index in range(4)} == {
        i: now.get(i, b"") for i in range(4)
    }


def test_a_write_to_the_copy_does_not_reach_the_map() -> None:
    dirty = DirtyMap(CHUNK_BLOCKS)
    dirty.set_range(1, 2)
    twin = dirty.copy()
    twin.set_range(5, 1)
    dirty.clear_range(1, 1)
    assert list(twin.extents().blocks()) == [1, 2, 5] and list(dirty.extents().blocks()) == [2]
    with pytest.raises(ValueError):
        dirty.chunks_unlike(DirtyMap(1))
