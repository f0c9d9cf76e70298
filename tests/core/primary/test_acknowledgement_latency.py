"""How long writes waited for their acknowledgement: every write counts once, in the bucket of its time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.primary.acknowledgement_latency import (
    LATENCY_BOUNDS_SECONDS,
    AcknowledgementLatency,
    LatencyFigures,
    latencies_together,
)


def counted(*times: tuple[float, int]) -> LatencyFigures:
    latency = AcknowledgementLatency()
    for seconds, writes in times:
        latency.add(seconds, writes)
    return latency.figures()


def test_a_time_that_is_exactly_a_bound_counts_there_as_prometheus_has_it() -> None:
    figures = counted((0.001, 3), (0.00101, 2))
    assert figures.bounds_seconds == LATENCY_BOUNDS_SECONDS
    assert (figures.counts[1], figures.counts[2]) == (3, 2)


def test_a_write_that_takes_longer_than_every_bound_has_a_bucket_of_its_own() -> None:
    assert counted((3600.0, 4)).counts == (0,) * len(LATENCY_BOUNDS_SECONDS) + (4,)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 1000)), max_size=20))
def test_every_write_counts_once_and_the_sum_is_that_of_all_times(times: list[tuple[float, int]]) -> None:
    figures = counted(*times)
    assert sum(figures.counts) == sum(writes for _, writes in times)
    assert figures.sum_seconds == pytest.approx(sum(seconds * writes for seconds, writes in times), abs=1e-5)


def test_a_clock_that_went_back_makes_no_negative_sum() -> None:
    figures = counted((-5.0, 2))
    assert (figures.counts[0], figures.sum_seconds) == (2, 0.0)


def test_several_secondaries_are_added_up() -> None:
    both = latencies_together([counted((0.001, 3)), counted((0.001, 1), (60.0, 2))])
    assert (both.counts[1], both.counts[-1], both.sum_seconds) == (4, 2, pytest.approx(120.004))
