"""Update lists: a block is clean when the last of its updates is acknowledged, and not before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.tracking.update_list import WIDE_BLOCKS, UpdateLists


def insert(lists: UpdateLists, *rows: tuple[int, int, int]) -> None:
    """Rows of sequence, first block, count."""
    table = np.array(rows, np.int64).reshape(-1, 3)
    lists.insert_extents(table[:, 1], table[:, 2], table[:, 0].astype(np.uint64))


def test_the_lists_of_figure_3() -> None:
    """Block 1 has updates 1 and 3, block 4 has update 1; blocks 2 and 3 have none (¶60)."""
    lists = UpdateLists()
    lists.insert(np.array([1, 4, 1]), np.array([1, 1, 3], np.uint64))
    assert [lists.entries(block) for block in (1, 2, 3, 4)] == [[1, 3], [], [], [1]]
    assert (len(lists), lists.block_count()) == (3, 2)
    # "The sequence numbers are used to identify the update that is being acknowledged."
    assert lists.delete(1, 1) is False
    assert lists.delete(4, 1) is True
    assert lists.delete(1, 3) is True
    assert (len(lists), lists.block_count()) == (0, 0)


def test_an_acknowledgement_frees_only_blocks_with_nothing_later() -> None:
    lists = UpdateLists()
    insert(lists, (1, 1, 1), (1, 4, 1), (3, 1, 1))
    assert lists.acknowledge(2).blocks().tolist() == [4]
    assert lists.acknowledge(2).blocks().tolist() == []
    assert lists.entries(1) == [3]
    assert lists.acknowledge(3).blocks().tolist() == [1]


def test_a_discard_of_a_terabyte_is_one_entry_and_not_a_billion() -> None:
    lists = UpdateLists()
    insert(lists, (1, 5, 1), (2, 0, 2**28), (3, 7, 1))
    freed = lists.acknowledge(2)
    assert (freed.firsts.tolist(), freed.counts.tolist()) == ([0, 8], [7, 2**28 - 8])
    assert lists.entries(7) == [3]


def test_deleting_one_block_of_a_wide_update_leaves_the_rest_listed() -> None:
    lists = UpdateLists()
    insert(lists, (1, 0, 2 * WIDE_BLOCKS))
    assert lists.delete(WIDE_BLOCKS, 1) is True
    assert not lists.contains(WIDE_BLOCKS)
    assert len(lists) == 2 * WIDE_BLOCKS - 1
    assert lists.acknowledge(1).counts.tolist() == [WIDE_BLOCKS, WIDE_BLOCKS - 1]


def test_an_update_that_is_not_listed_cannot_be_deleted() -> None:
    lists = UpdateLists()
    insert(lists, (1, 1, 1))
    for block, sequence in ((1, 2), (2, 1)):
        with pytest.raises(KeyError):
            lists.delete(block, sequence)
    assert lists.entries(1) == [1]


def test_sequence_numbers_must_not_fall() -> None:
    lists = UpdateLists()
    insert(lists, (5, 1, 1))
    with pytest.raises(ValueError):
        insert(lists, (4, 1, 1))
    lists.clear()
    insert(lists, (1, 1, 1))
    assert len(lists) == 1


def test_acknowledged_updates_take_no_memory() -> None:
    lists = UpdateLists()
    for sequence in range(1, 101):
        insert(lists, (sequence, sequence, 3), (sequence, 0, WIDE_BLOCKS + 1))
        lists.acknowledge(sequence)
    assert (len(lists), lists.block_count(), len(lists._batches), len(lists._wide)) == (0, 0, 0, 0)


row = st.tuples(st.integers(0, 40), st.one_of(st.integers(0, 5), st.integers(WIDE_BLOCKS, WIDE_BLOCKS + 30)))
step = st.one_of(
    st.tuples(st.just("insert"), st.lists(row, max_size=5)),
    st.tuples(st.just("acknowledge"), st.integers(0, 8)),
    st.tuples(st.just("delete"), st.integers(0, 1000)),
)


@settings(deadline=None)
@given(st.lists(step, max_size=25))
def test_behaves_as_a_list_for_every_block(steps: list[tuple[str, object]]) -> None:
    lists, model, sequence, acknowledged = UpdateLists(), {}, 0, 0
    for name, data in steps:
        match name:
            case "insert":
                rows = [(sequence + 1 + i, first, count) for i, (first, count) in enumerate(data)]
                insert(lists, *rows)
                sequence += len(rows)
                for number, first, count in rows:
                    for block in range(first, first + count):
                        model.setdefault(block, []).append(number)
            case "acknowledge":
                acknowledged = min(sequence, acknowledged + data)
                freed = {b for b, numbers in model.items() if numbers[-1] <= acknowledged}
                model = {b: [n for n in ns if n > acknowledged] for b, ns in model.items() if b not in freed}
                assert lists.acknowledge(acknowledged).blocks().tolist() == sorted(freed)
            case "delete" if model:
                block = sorted(model)[data % len(model)]
                number = model[block].pop(data % len(model[block]))
                assert lists.delete(block, number) is (not model[block])
                if not model[block]:
                    del model[block]
        assert lists.blocks().blocks().tolist() == sorted(model)
        assert lists.block_count() == len(model)
        assert len(lists) == sum(map(len, model.values()))
        for block in (0, 3, 40, WIDE_BLOCKS):
            assert lists.entries(block) == model.get(block, [])
            assert lists.contains(block) == (block in model)
