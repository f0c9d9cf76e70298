"""The tracker follows Figs. 4, 5 and 6, and no block that differs is ever in neither map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS
from pydbt.core.tracking.tracker import HaltStep, Tracker
from pydbt.core.tracking.transaction_log import LogRecordKind
from pydbt.core.tracking.update_list import WIDE_BLOCKS
from pydbt.core.units import Geometry

BLOCK_BYTES = 4096


def tracker_of(blocks: int = 100, log_slots: int = 64) -> Tracker:
    return Tracker(Geometry(blocks * BLOCK_BYTES, BLOCK_BYTES), log_slots)


def insert(tracker: Tracker, *rows: tuple[int, int, int], kind: LogRecordKind = LogRecordKind.WRITE) -> int:
    """Rows of sequence, first block, count."""
    table = np.array(rows, np.int64).reshape(-1, 3)
    return tracker.insert_all(table[:, 0].astype(np.uint64), table[:, 1], table[:, 2], kind)


def active(tracker: Tracker) -> list[int]:
    return [record.transaction for record in tracker.log.records() if record.active]


def test_figure_4_step_by_step() -> None:
    tracker = tracker_of()
    # 410-418: a write of block 1 is logged, listed, and its bit set.
    assert tracker.insert(1, 1, 1)
    assert active(tracker) == [1]
    assert tracker.lists.entries(1) == [1]
    assert tracker.dirty.contains(1)
    # 418 again: a bit that is dirty stays dirty; the list tells the two updates apart.
    assert tracker.insert(3, 1, 1)
    assert tracker.lists.entries(1) == [1, 3]
    # 430, 432, 440: the first update is acknowledged, another is outstanding, the bit stays (¶75).
    assert tracker.delete(1, 1) is False
    assert tracker.dirty.contains(1)
    assert tracker.log.active_transactions == 2
    # 440, 442, 444: the last one is, the block is clean and out of every transaction.
    assert tracker.delete(1, 3) is True
    assert not tracker.dirty.contains(1)
    assert (tracker.log.used_slots, len(tracker.lists)) == (0, 0)
    tracker.check()


def test_figure_3_in_place_blocks_1_and_4_with_updates_1_3_and_1() -> None:
    tracker = tracker_of()
    insert(tracker, (1, 1, 1), (1, 4, 1), (3, 1, 1))
    assert [tracker.dirty.contains(block) for block in (1, 2, 3, 4)] == [True, False, False, True]
    assert [tracker.lists.entries(block) for block in (1, 4)] == [[1, 3], [1]]
    assert tracker.acknowledge(1).blocks().tolist() == [4]
    assert tracker.out_of_sync_blocks() == 1
    tracker.check()


def test_a_transaction_is_done_when_its_last_block_is_and_not_before() -> None:
    """Fig. 5, 520-540."""
    tracker = tracker_of()
    tracker.insert(1, 10, 3)
    tracker.insert(2, 11, 1)
    tracker.delete(10, 1)
    tracker.delete(12, 1)
    assert tracker.delete(11, 1) is False, "block 11 was written again"
    assert active(tracker) == [1, 2]
    assert tracker.delete(11, 2) is True
    assert active(tracker) == []
    tracker.check()


def test_updates_acknowledged_out_of_turn_leave_no_transaction_waiting_for_a_clean_block() -> None:
    tracker = tracker_of()
    insert(tracker, (1, 1, 2), (2, 1, 2))
    assert tracker.delete(1, 2) is False
    assert tracker.acknowledge(1).blocks().tolist() == [1]
    assert tracker.log.remaining_extents().blocks().tolist() == [2]
    tracker.check()


def test_reset_of_a_block_that_still_waits_is_a_bug() -> None:
    tracker = tracker_of()
    tracker.insert(1, 1, 1)
    with pytest.raises(AssertionError):
        tracker.reset(1)


def test_a_full_log_takes_no_more_and_forgets_nothing() -> None:
    tracker = tracker_of(log_slots=8)
    rows = [(number, number, 1) for number in range(1, 11)]
    taken = insert(tracker, *rows)
    assert taken == 4
    assert tracker.out_of_sync_blocks() == 4
    assert tracker.insert(5, 5, 1) is False
    # What the caller does then (452): everything on the way becomes pending, and so does the rest of the batch.
    tracker.halt()
    rest = np.array(rows[taken:], np.int64)
    tracker.mark_pending(rest[:, 1], rest[:, 2])
    assert tracker.pending.extents().blocks().tolist() == list(range(1, 11))
    assert (tracker.log.used_slots, len(tracker.lists), tracker.dirty.any()) == (0, 0, False)
    tracker.check()


def test_a_write_outside_the_volume_changes_nothing() -> None:
    tracker = tracker_of()
    for rows in ([(1, 5, 1), (2, 100, 1)], [(1, 5, 1), (2, -1, 1)], [(2, 5, 1), (1, 5, 1)]):
        with pytest.raises(ValueError):
            insert(tracker, *rows)
    assert (tracker.log.used_slots, len(tracker.lists), tracker.out_of_sync_blocks()) == (0, 0, 0)


def test_a_flush_without_blocks_passes_through_the_log() -> None:
    tracker = tracker_of()
    insert(tracker, (1, 3, 1), (2, 0, 0))
    assert tracker.log.active_transactions == 2
    tracker.acknowledge(1)
    assert active(tracker) == [2]
    tracker.halt()
    assert (active(tracker), tracker.log.used_slots) == ([], 0)


def test_a_commit_of_the_file_system_waits_for_its_blocks_like_any_write() -> None:
    tracker = tracker_of()
    insert(tracker, (1, 5, 2))
    insert(tracker, (2, 6, 1), (2, 20, 3), kind=LogRecordKind.FILE_SYSTEM)
    assert tracker.lists.entries(6) == [1, 2]
    assert tracker.acknowledge(1).blocks().tolist() == [5]
    assert tracker.acknowledge(2).blocks().tolist() == [6, 20, 21, 22]
    tracker.check()


def test_figure_6_a_write_during_any_step_is_neither_lost_nor_left_in_the_log() -> None:
    blocks = 4 * CHUNK_BLOCKS
    pauses = len(list(prepared(blocks).halt_steps()))
    for pause in range(pauses):
        tracker = prepared(blocks)
        written = set(tracker.dirty.extents().blocks().tolist())
        for count, step in enumerate(tracker.halt_steps()):
            if count == pause:
                # A small map that is done, one that is not yet, one that was clean; a block that is dirty already.
                for offset, first in enumerate((3, CHUNK_BLOCKS, 3 * CHUNK_BLOCKS - 2, 2 * CHUNK_BLOCKS + 9)):
                    assert tracker.insert(100 + offset, first, 4)
                    written |= set(range(first, first + 4))
            tracker.check()
            union = tracker.pending.copy()
            union.merge(tracker.dirty)
            assert set(union.extents().blocks().tolist()) == written
            assert step is not HaltStep.LOG_EMPTY or pause == pauses - 1 or tracker.log.used_slots == 0
        if pause < pauses - 1:
            assert set(tracker.pending.extents().blocks().tolist()) == written
            assert not tracker.dirty.any()
        else:
            assert tracker.lists.entries(3) == [100], "replication is on again after the last step"


def prepared(blocks: int) -> Tracker:
    tracker = tracker_of(blocks)
    insert(tracker, (1, 1, 1), (2, CHUNK_BLOCKS - 2, 6), (3, 2 * CHUNK_BLOCKS + 5, 10), (4, 2, 1))
    tracker.acknowledge(1)
    return tracker


class Model(RuleBasedStateMachine):
    """The tracker against dictionaries of lists, with any writes, acknowledgements, deletes and halts."""

    BLOCKS = 2 * CHUNK_BLOCKS

    @initialize(log_slots=st.integers(2, 40))
    def start(self, log_slots: int) -> None:
        self.tracker = tracker_of(self.BLOCKS, log_slots)
        self.lists: dict[int, list[int]] = {}
        self.pending: set[int] = set()
        self.halting: set[int] | None = None
        self.steps = iter(())
        self.sequence = 0
        self.acknowledged = 0

    near_border = st.integers(CHUNK_BLOCKS - 6, CHUNK_BLOCKS + 6)
    count = st.one_of(st.integers(0, 4), st.integers(WIDE_BLOCKS - 1, WIDE_BLOCKS + 2))

    @rule(rows=st.lists(st.tuples(near_border, count), max_size=5))
    def write(self, rows: list[tuple[int, int]]) -> None:
        numbered = [(self.sequence + 1 + place, first, size) for place, (first, size) in enumerate(rows)]
        taken = insert(self.tracker, *numbered)
        assert taken == len(rows) or self.tracker.log.free_slots < 2
        for number, first, size in numbered[:taken]:
            for block in range(first, first + size):
                if self.halting is None:
                    self.lists.setdefault(block, []).append(number)
                else:
                    self.halting.add(block)
        self.sequence += taken
        if taken < len(rows):
            _, first, size = numbered[taken]
            self.tracker.mark_pending(np.array([first]), np.array([size]))
            self.pending |= set(range(first, first + size))

    @rule(more=st.integers(0, 5))
    def acknowledge(self, more: int) -> None:
        self.acknowledged = min(self.sequence, self.acknowledged + more)
        freed = sorted(block for block, numbers in self.lists.items() if numbers[-1] <= self.acknowledged)
        assert self.tracker.acknowledge(self.acknowledged).blocks().tolist() == freed
        self.lists = {
            block: [number for number in numbers if number > self.acknowledged]
            for block, numbers in self.lists.items()
            if numbers[-1] > self.acknowledged
        }

    @precondition(lambda self: self.lists)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(self.lists)))
        number = data.draw(st.sampled_from(self.lists[block]))
        self.lists[block].remove(number)
        assert self.tracker.delete(block, number) is (not self.lists[block])
        if not self.lists[block]:
            del self.lists[block]

    @precondition(lambda self: self.halting is None)
    @rule()
    def begin_halt(self) -> None:
        self.steps = self.tracker.halt_steps()
        assert next(self.steps) is HaltStep.DISCARDED
        self.halting = set(self.lists)
        self.lists = {}

    @precondition(lambda self: self.halting is not None)
    @rule()
    def halt_step(self) -> None:
        if next(self.steps) is HaltStep.LOG_EMPTY:
            self.pending |= self.halting
            self.halting = None
            assert self.tracker.log.active_transactions == 0

    @rule()
    def halt_at_once(self) -> None:
        self.tracker.halt()
        self.pending |= self.lists.keys() | (self.halting or set())
        self.lists, self.halting = {}, None

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "tracker"):
            return
        tracker = self.tracker
        tracker.check()
        if self.halting is None:
            assert tracker.dirty.extents().blocks().tolist() == sorted(self.lists)
            assert tracker.pending.extents().blocks().tolist() == sorted(self.pending)
        differs = self.pending | self.lists.keys() | (self.halting or set())
        union = tracker.pending.copy()
        union.merge(tracker.dirty)
        assert union.extents().blocks().tolist() == sorted(differs)
        assert tracker.out_of_sync_blocks() == len(differs)
        assert len(tracker.lists) == sum(map(len, self.lists.values()))
        for block in sorted(self.lists)[:3]:
            assert tracker.lists.entries(block) == self.lists[block]


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
test_behaves_as_a_plain_model_under_any_writes_acknowledgements_and_halts = Model.TestCase
