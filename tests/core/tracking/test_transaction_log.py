"""The transaction log does what Figs. 2 and 5 show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.runs import Runs
from pydbt.core.tracking.transaction_log import SLOT_BYTES, LogRecordKind, TransactionLog


def append(log: TransactionLog, *rows: tuple[int, int, int], kind: LogRecordKind = LogRecordKind.WRITE) -> int:
    """Rows of sequence, first block, count."""
    table = np.array(rows, np.int64).reshape(-1, 3)
    return log.append(table[:, 0].astype(np.uint64), table[:, 1], table[:, 2], kind)


def contents(log: TransactionLog) -> list[tuple[str, int]]:
    return [(record.kind.name, record.transaction) for record in log.records()]


def figure_2(capacity_slots: int) -> TransactionLog:
    """Transactions 1 to 5 write blocks D1 to D5; 1, 3 and 4 are done before 5 begins."""
    log = TransactionLog(capacity_slots)
    append(log, (1, 101, 1), (2, 102, 1), (3, 103, 1), (4, 104, 1))
    log.remove_block(103)
    log.remove_block(101)
    log.remove_block(104)
    append(log, (5, 105, 1))
    return log


def test_figure_2_start_waits_for_transaction_2_and_end_is_where_6_will_go() -> None:
    log = figure_2(16)
    # Transaction 1's own record is free space again; its DONE record lies behind the start and stays (¶52).
    assert contents(log) == [
        ("WRITE", 2), ("WRITE", 3), ("WRITE", 4), ("DONE", 3), ("DONE", 1), ("DONE", 4), ("WRITE", 5),
    ]  # fmt: skip
    assert (log.start, log.end, log.active_transactions) == (1, 8, 2)
    assert [record.transaction for record in log.records() if record.active] == [2, 5]
    append(log, (6, 106, 1))
    assert list(log.records())[-1].position % 16 == 8


def test_figure_2_wraps_transaction_5_stands_at_the_top_and_transaction_1_just_before_the_start() -> None:
    """The figure's own places: 1 DONE record next to the bottom, 5 at the top, free space between end and start."""
    log = TransactionLog(12)
    append(log, *((number, 50, 1) for number in range(1, 6)))
    log.complete_through(5)  # five updates and a DONE: the figure begins at slot 6 of a log that has been used
    assert (log.start, log.end, log.used_slots) == (6, 6, 0)
    append(log, (11, 1, 1))
    assert log.end == 7
    append(log, (12, 2, 1), (13, 3, 1))
    log.remove_block(3)
    log.remove_block(1)
    append(log, (14, 4, 1))
    assert log.end == 0
    append(log, (15, 5, 1))
    by_slot = {record.position % 12: (record.kind.name, record.first_block) for record in log.records()}
    assert by_slot[0] == ("WRITE", 5)
    assert by_slot[10] == ("DONE", 0)
    assert (log.start, by_slot[log.start]) == (7, ("WRITE", 2))
    assert (log.end, log.end in by_slot, log.start - 1 in by_slot) == (1, False, False)


def test_figure_2_finishing_transaction_2_moves_the_start_to_5() -> None:
    log = figure_2(16)
    log.remove_block(102)
    assert next(iter(log.records())).transaction == 5
    assert log.start == 7
    log.remove_block(105)
    assert (log.used_slots, log.active_transactions, log.start) == (0, 0, log.end)


def test_figure_2_the_log_fills_while_the_start_waits_and_goes_on_when_2_is_done() -> None:
    """¶53: "new transactions can proceed only when the earlier transactions are completed"."""
    log = figure_2(15)
    number = 6
    while append(log, (number, 100 + number, 1)):
        log.remove_block(100 + number)
        number += 1
    assert number == 9
    assert log.start == 1, "the start still points to transaction 2"
    assert log.free_slots == 0
    # Both waiting transactions still get their DONE records: that of 5 first, which frees nothing.
    log.remove_block(105)
    assert (log.start, log.used_slots, log.active_transactions) == (1, 14, 1)
    assert append(log, (number, 1, 1)) == 0
    log.remove_block(102)
    assert (log.used_slots, log.free_slots) == (0, 15)
    assert append(log, (number, 1, 1)) == 1


def test_a_log_full_to_the_last_slot_keeps_every_record_and_is_not_taken_for_empty() -> None:
    log = TransactionLog(4)
    assert append(log, (1, 1, 1), (2, 2, 1), (3, 3, 1)) == 2
    log.remove_block(2)
    assert (log.used_slots, log.active_transactions, log.free_slots) == (3, 1, 0)
    assert append(log, (3, 3, 1)) == 0
    assert contents(log) == [("WRITE", 1), ("WRITE", 2), ("DONE", 2)]
    log.remove_block(1)
    assert (log.used_slots, log.free_slots, log.start) == (0, 4, log.end)


def test_a_full_log_takes_whole_transactions_from_the_front_and_nothing_of_the_next() -> None:
    log = TransactionLog(7)
    assert append(log, (1, 1, 1), (2, 2, 1), (2, 9, 1), (3, 3, 1), (3, 5, 1)) == 3
    assert (log.active_transactions, log.used_slots, log.free_slots) == (2, 3, 2)
    assert append(log, (3, 3, 1), (3, 5, 1)) == 0
    assert append(log, (3, 3, 1)) == 1


def test_figure_5_a_block_leaves_each_active_transaction_and_the_empty_ones_are_done() -> None:
    log = TransactionLog(32)
    append(log, (1, 10, 1), (2, 10, 3), (3, 11, 1), (4, 12, 1), (4, 10, 1))
    assert log.remove_block(10) == 1
    assert [(r.transaction, r.remaining) for r in log.records() if r.active] == [(2, 2), (3, 1), (4, 1), (4, 0)]
    assert log.remove_block(10) == 0, "a block that is gone is not taken out twice"
    assert log.remove_block(11) == 1
    assert log.remove_block(12) == 2
    assert log.used_slots == 0


def test_a_transaction_of_the_file_system_fits_with_all_its_extents() -> None:
    """Its journal commit is one transaction of many extents in the same order as the writes."""
    log = TransactionLog(32)
    append(log, (1, 5, 2))
    assert append(log, (2, 5, 1), (2, 100, 50), (2, 1000, 3), kind=LogRecordKind.FILE_SYSTEM) == 3
    append(log, (3, 7, 1))
    assert contents(log) == [("WRITE", 1), *[("FILE_SYSTEM", 2)] * 3, ("WRITE", 3)]
    assert log.active_transactions == 3
    log.remove_extents(Runs(np.array([5, 100]), np.array([2, 50])))
    assert [record.remaining for record in log.records() if record.active] == [0, 0, 3, 1]
    assert log.remove_extents(Runs(np.array([1000]), np.array([3]))) == 1
    assert [record.transaction for record in log.records() if record.active] == [3]


def test_a_transaction_of_the_file_system_is_active_until_its_commit_has_completed() -> None:
    log = TransactionLog(32)
    kinds = np.array(
        [LogRecordKind.WRITE, LogRecordKind.FILE_SYSTEM, LogRecordKind.WRITE, LogRecordKind.FILE_SYSTEM], np.uint8
    )
    table = np.array([(1, 5, 1), (1, 5, 1), (2, 6, 1), (2, 6, 1)], np.int64)
    log.append(table[:, 0].astype(np.uint64), table[:, 1], table[:, 2], kinds, uncommitted=True)
    assert log.active_transactions == 4, "one sequence number of two kinds is two transactions"
    assert log.complete_through(2) == 2
    assert [(r.transaction, r.remaining) for r in log.records() if r.active] == [(2, 0), (4, 0)]
    assert log.remove_block(5) == 0
    assert log.committed_through(2, 2, first=2) == 1
    assert [record.transaction for record in log.records() if record.active] == [2]
    assert log.committed_through(1, 0) == 0, "committed, and not acknowledged"
    assert log.complete_through(1) == 1
    assert log.used_slots == 0 and log.committed_through(9, 9) == 0


def test_a_commit_that_nobody_waits_for_any_more_holds_nothing() -> None:
    log = TransactionLog(32)
    row = np.array([1], np.uint64), np.array([5]), np.array([2])
    log.append(*row, LogRecordKind.FILE_SYSTEM, uncommitted=True)
    log.abandon_uncommitted()
    assert log.remove_extents(Runs(np.array([5]), np.array([2]))) == 1
    assert log.used_slots == 0


def test_one_done_record_stands_for_a_whole_run_of_acknowledged_transactions() -> None:
    log = TransactionLog(64)
    append(log, *((number, number, 1) for number in range(1, 21)))
    log.remove_block(5)
    assert log.complete_through(10) == 9
    dones = [(record.transaction, record.count) for record in log.records() if record.kind is LogRecordKind.DONE]
    assert dones == [(5, 1), (1, 4), (6, 5)]
    assert (log.start_position, log.active_transactions) == (10, 10)
    assert log.complete_through(10) == 0
    assert log.complete_through(10**6) == 10
    assert log.used_slots == 0


def test_sizes_are_told_in_bytes() -> None:
    log = TransactionLog(100)
    append(log, (1, 1, 1))
    assert (log.capacity_bytes, log.used_bytes) == (100 * SLOT_BYTES, SLOT_BYTES)


def test_entries_out_of_order_and_a_log_without_room_are_refused() -> None:
    log = TransactionLog(8)
    append(log, (5, 1, 1))
    for attempt in (
        lambda: append(log, (4, 1, 1)),
        lambda: append(log, (6, 1, 1), (5, 1, 1)),
        lambda: append(log, (6, 1, 1), kind=LogRecordKind.DONE),
        lambda: TransactionLog(1),
    ):
        with pytest.raises(ValueError):
            attempt()
    log.complete_through(5)
    assert append(log, (1, 1, 1)) == 1, "an empty log may begin anywhere"


extent = st.tuples(st.integers(0, 12), st.integers(0, 5))
step = st.one_of(
    st.tuples(st.just("append"), st.lists(st.lists(extent, min_size=1, max_size=3), max_size=4)),
    st.tuples(st.just("remove"), st.sets(st.integers(0, 16), max_size=6)),
    st.tuples(st.just("complete"), st.integers(0, 6)),
)


@settings(deadline=None)
@given(st.integers(2, 24), st.lists(step, max_size=40))
@example(3, [("append", [[(0, 2), (0, 3)]]), ("remove", {0}), ("remove", {0, 1})])
def test_behaves_as_a_plain_list_of_transactions(capacity: int, steps: list[tuple[str, object]]) -> None:
    """Any order of work: no transaction is lost or done too early, and each active one can always be finished."""
    log = TransactionLog(capacity)
    ring: list[tuple[int, bool]] = []  # every slot since the start: (transaction, whether an update)
    left: dict[int, list[set[int]]] = {}
    number, sequence_of, highest = 0, {}, 0

    def finish(done: list[int]) -> None:
        runs = [n for n in done if n - 1 not in done]
        for n in done:
            del left[n]
        ring.extend((n, False) for n in runs)
        while ring and not (ring[0][1] and ring[0][0] in left):
            ring.pop(0)

    for name, data in steps:
        match name:
            case "append":
                rows = [(highest + 1 + i, *one) for i, extents in enumerate(data) for one in extents]
                expected, used, active = 0, len(ring), len(left)
                for extents in data:
                    if used + len(extents) + active + 1 > capacity:
                        break
                    used, active, expected = used + len(extents), active + 1, expected + len(extents)
                    number += 1
                    highest += 1
                    sequence_of[number] = highest
                    left[number] = [set(range(first, first + count)) for first, count in extents]
                    ring.extend([(number, True)] * len(extents))
                assert append(log, *rows) == expected
            case "remove" if data or left:
                for pieces in left.values():
                    for piece in pieces:
                        piece -= data
                done = sorted(n for n, pieces in left.items() if not any(pieces))
                assert log.remove_extents(Runs.of_blocks(np.array(sorted(data), np.int64))) == len(done)
                finish(done)
            case "complete" if left:
                through = sequence_of[min(left)] + data - 1
                done = sorted(n for n in left if sequence_of[n] <= through)
                assert log.complete_through(through) == len(done)
                finish(done)
        assert log.active_transactions == len(left)
        assert log.used_slots == len(ring)
        assert [(r.transaction, r.kind is not LogRecordKind.DONE) for r in log.records()] == ring
        assert [r.remaining for r in log.records() if r.active] == [len(p) for n in left for p in left[n]]
        waiting = {b for pieces in left.values() for piece in pieces for b in piece}
        assert set(log.remaining_extents().blocks().tolist()) == waiting
        assert log.used_slots + log.active_transactions <= capacity
