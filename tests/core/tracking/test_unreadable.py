"""Blocks that cannot be read: known until they are read after all, and tried again from time to time."""

from __future__ import annotations

import numpy as np

from pydbt.core.tracking import unreadable as module
from pydbt.core.tracking.unreadable import TRY_AGAIN_S, Unreadable


def blocks(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_blocks_are_kept_in_order_and_tried_again_after_a_while() -> None:
    unreadable = Unreadable()
    assert unreadable.next_due() is None and not len(unreadable)
    assert unreadable.add(blocks(7, 3), 10.0) == 2 and unreadable.unsaved
    assert unreadable.blocks().tolist() == [3, 7]
    assert unreadable.next_due() == 10.0 + TRY_AGAIN_S
    assert not len(unreadable.take_due(10.0))
    assert unreadable.take_due(10.0 + TRY_AGAIN_S).tolist() == [3, 7]
    assert not len(unreadable)


def test_a_block_is_told_of_once_until_it_was_read_again() -> None:
    unreadable = Unreadable()
    assert unreadable.add(blocks(3), 0.0) == 1
    unreadable.take_due(TRY_AGAIN_S)
    assert unreadable.add(blocks(3, 4), TRY_AGAIN_S) == 1
    unreadable.remove(blocks(3))
    assert unreadable.blocks().tolist() == [4]
    assert unreadable.add(blocks(3), 100.0) == 1


def test_when_replication_halts_all_of_them_are_handed_over() -> None:
    unreadable = Unreadable()
    unreadable.add(blocks(5, 1), 0.0)
    assert unreadable.take_all().tolist() == [1, 5] and not len(unreadable)


def test_more_of_them_than_a_disk_has_bad_sectors_find_no_room(monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_UNREADABLE_BLOCKS", 3)
    unreadable = Unreadable()
    unreadable.add(blocks(1, 2), 0.0)
    assert unreadable.has_room(1) and not unreadable.has_room(2)
