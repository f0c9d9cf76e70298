"""Figures of a run."""

from __future__ import annotations

import numpy as np

from pydbt.core.primary.statistics import Statistics, UnsettledFigures
from pydbt.core.tracking.capture_record import RECORD, Operation


def writes(*sectors: int) -> np.ndarray:
    records = np.zeros(len(sectors), dtype=RECORD)
    records["sectors"], records["pieces"], records["kind"] = sectors, 1, 1
    return records


def test_discarded_and_zeroed_bytes_do_not_count_in_the_rate_of_writes_since_they_take_no_room():
    """A landing that waited for it to sink would be late."""
    statistics, records = Statistics(0.0), writes(8, 1 << 21, 1 << 21)
    records["op"] = Operation.WRITE, Operation.DISCARD, Operation.WRITE_ZEROES
    statistics.captured(records)
    statistics.observe(2.0, 0)
    assert statistics.write_rate_bytes(2.0) == 8 * 512 / 2


def test_sent_compared_and_settled_bytes_are_counted() -> None:
    statistics = Statistics(0.0)
    records = writes(8, 16)
    statistics.sent(records)
    statistics.compared(4096, 512)
    statistics.settled(2)
    statistics.unsettled("unseen", 3)
    figures = statistics.figures(2.0)
    assert (figures.stream_bytes, figures.stream_requests) == (24 * 512, 2)
    assert (figures.compared_bytes, figures.copied_bytes, figures.settled_blocks) == (4096, 512, 2)
    assert figures.unsettled_blocks == UnsettledFigures(unseen=3)


def test_only_the_time_out_of_sync_counts_as_unsynchronized() -> None:
    statistics = Statistics(0.0)
    for in_sync, now in ((True, 2.0), (True, 3.0), (False, 10.0), (False, 11.0)):
        statistics.mode_changed(in_sync, now)
    assert statistics.figures(14.0).unsynchronized_seconds == 6.0
    statistics.mode_changed(True, 15.0)
    assert statistics.figures(99.0).unsynchronized_seconds == 7.0


def test_the_worst_is_kept_and_the_rate_is_that_of_the_last_seconds() -> None:
    statistics = Statistics(0.0)
    for second in range(1, 20):
        if second > 10:
            records = writes(1000)
            records["op"] = Operation.WRITE
            statistics.captured(records)
        statistics.observe(float(second), 100 - second)
        statistics.observe(second + 0.1, 0)
    assert statistics.out_of_sync_max_bytes == 99
    assert statistics.write_rate_bytes(19.0) == 1000 * 512
    assert statistics.written_since_retire() and not statistics.written_since_retire()


def test_an_acknowledged_write_counts_with_the_time_since_its_capture() -> None:
    statistics = Statistics(0.0)
    statistics.acknowledged([(9.0, 2), (9.9, 1)], now=10.0)
    latency = statistics.figures(10.0).acknowledgement_latency
    by_bound = dict(zip(latency.bounds_seconds, latency.counts, strict=False))
    assert (by_bound[1.0], by_bound[0.1], sum(latency.counts)) == (2, 1, 3)
