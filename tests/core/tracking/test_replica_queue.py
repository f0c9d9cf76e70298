"""The replica queue: order, numbers, and what is unacknowledged."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.tracking.capture_record import RECORD
from pydbt.core.tracking.replica_queue import MAX_BATCH_BYTES, MAX_UPDATE_SECTORS, Segment, StreamQueue, updates_of


def writes(*sectors: int) -> np.ndarray:
    records = np.zeros(len(sectors), dtype=RECORD)
    records["sectors"], records["pieces"], records["kind"] = sectors, 1, 1
    return records


def segment(first: int, *sectors: int) -> Segment:
    records = writes(*sectors)
    return Segment(records, first - 1 + np.cumsum(updates_of(records)), first, arrived=float(first))


@given(st.lists(st.lists(st.integers(1, 9000), min_size=1, max_size=30), min_size=1, max_size=8))
def test_queued_writes_leave_in_order_and_with_consecutive_numbers(batches):
    queue, sequence, given_sectors = StreamQueue(), 1, []
    for batch in batches:
        item = segment(sequence, *batch)
        queue.append(item)
        sequence = item.last_sequence + 1
        given_sectors += batch
    taken, expected = [], 1
    while (item := queue.take()) is not None:
        assert item.first_sequence == expected
        assert len(item.records) == 1 or item.length_bytes <= MAX_BATCH_BYTES
        expected = item.last_sequence + 1
        taken += item.records["sectors"].tolist()
    assert taken == given_sectors and expected == sequence and queue.all_sent


def test_a_write_larger_than_a_frame_takes_a_number_for_every_part():
    assert updates_of(writes(1, MAX_UPDATE_SECTORS, MAX_UPDATE_SECTORS + 1, 3 * MAX_UPDATE_SECTORS)).tolist() == [
        1,
        1,
        2,
        3,
    ]


def test_a_discard_of_any_size_is_one_update():
    record = writes(0xFFFFFFFF)
    record["pieces"] = 0
    assert updates_of(record).tolist() == [1]


def test_lag_is_counted_until_the_acknowledgement_and_not_until_the_send():
    queue = StreamQueue()
    queue.append(segment(1, 8, 8))
    queue.take()
    assert queue.unacknowledged_bytes == 2 * 4096 and queue.oldest_arrival() == 1.0
    queue.acknowledge(2)
    assert queue.unacknowledged_bytes == 0 and queue.oldest_arrival() is None


def test_discarding_the_queue_returns_exactly_what_was_never_sent():
    queue = StreamQueue()
    queue.append(segment(1, 8))
    queue.take()
    queue.append(segment(2, 16, 24))
    assert queue.clear()[0]["sectors"].tolist() == [16, 24]
    assert queue.unsent_bytes == queue.unacknowledged_bytes == 0


def test_an_acknowledgement_tells_when_the_writes_were_captured_that_it_is_for() -> None:
    queue = StreamQueue()
    queue.append(segment(1, 8, 8))
    queue.append(segment(3, 8))
    queue.append(segment(4, 8))
    assert queue.acknowledge(3) == [], "nothing was sent"
    while queue.take() is not None:
        pass
    assert queue.acknowledge(3) == [(1.0, 2), (3.0, 1)]
    assert queue.acknowledge(3) == []
    assert queue.acknowledge(4) == [(4.0, 1)]


def test_a_settled_block_is_no_write_that_anybody_waited_for() -> None:
    queue = StreamQueue()
    queue.append(Segment(writes(8), np.array([1]), 1, arrived=1.0, reading=7, settled_bytes=4096))
    queue.take()
    assert queue.acknowledge(1) == [] and not queue.awaiting
