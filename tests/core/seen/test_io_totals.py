"""Block I/O for metrics: histograms with bounds that are edges of the programs' own buckets, so that nothing is guessed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.io_figures import FIGURES
from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.core.seen.io_totals import BOUNDS_SECONDS, IoTotals
from pydbt.core.seen.latency import counts_of

WRITE, TOTAL = OPERATIONS.index("write"), PARTS.index("total")


def interval(latencies_ns: list[int], **changes: int) -> np.ndarray:
    made = np.zeros(len(OPERATIONS), FIGURES)
    for name, value in {"count": len(latencies_ns), "bytes": 4096 * len(latencies_ns), **changes}.items():
        made[WRITE][name] = value
    made["latency"][WRITE, TOTAL] = counts_of(np.array(latencies_ns, np.uint64))
    return made


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=50))
def test_each_latency_is_in_the_histogram_once_where_it_belongs(latencies_ns: list[int]) -> None:
    totals = IoTotals()
    totals.add(interval(latencies_ns), 1)
    told = totals.operations()["write"]["latency"]["total"]
    bounds = [*told["bounds_seconds"], float("inf")]
    for place, bound in enumerate(bounds):
        assert sum(told["counts"][: place + 1]) == sum(one / 1e9 < bound for one in latencies_ns)
    assert told["sum_seconds"] == pytest.approx(sum(latencies_ns) / 1e9, rel=0.07, abs=256e-9 * len(latencies_ns))


def test_a_timed_sample_stands_for_the_requests_it_was_taken_from_and_the_rest_is_counted_exactly() -> None:
    totals = IoTotals()
    totals.add(interval([100_000] * 3, errors=1), 1)
    totals.add(interval([100_000], count=8, bytes=8 * 4096), 8)
    told = totals.operations()
    assert set(told) == {"write"}, "what did not occur has no values"
    assert [told["write"][name] for name in ("requests", "bytes", "errors")] == [11, 11 * 4096, 1]
    assert set(told["write"]["latency"]) == {"total"}, "a part that is not known has no histogram"
    assert sum(told["write"]["latency"]["total"]["counts"]) == 11


def test_the_bounds_are_those_that_the_document_promises() -> None:
    assert BOUNDS_SECONDS[0] == 32.768e-6 and BOUNDS_SECONDS[-1] == 2.147483648
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(BOUNDS_SECONDS))
