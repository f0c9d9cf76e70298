"""Latencies in buckets: the same rule as in the kernel's programs, and percentiles within an eighth of the truth."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.latency import BUCKETS, EDGES_NS, UNKNOWN_NS, Spread, bucket_of, counts_of, percentile_ns

PROGRAM = Path(__file__).resolve().parents[3] / "bpf" / "block_io.bpf.c"


def bucket_in_the_kernel(ns: int) -> int:
    """bucket_of() of bpf/block_io.bpf.c, as it is written there."""
    if ns < 256:
        return 0
    if ns >= 14 << 36:
        return BUCKETS - 1
    power = ns.bit_length() - 1
    return (power - 8) * 8 + (ns >> (power - 3) & 7) + 1


@given(st.integers(0, 1 << 45))
def test_core_and_kernel_put_a_latency_into_the_same_bucket(ns: int) -> None:
    assert bucket_of(np.array([ns], np.uint64))[0] == bucket_in_the_kernel(ns)


def test_the_numbers_of_buckets_are_those_of_the_program() -> None:
    assert re.search(r"#define BUCKETS (\d+)", PROGRAM.read_text())[1] == str(BUCKETS)  # type: ignore[index]


def test_edges_grow_and_no_bucket_is_wider_than_an_eighth_of_its_start() -> None:
    edges = EDGES_NS.astype(float)
    assert len(edges) == BUCKETS + 1 and (np.diff(edges) > 0).all()
    assert (np.diff(edges[1:-1]) <= edges[1:-2] / 8).all()


@given(
    st.lists(st.integers(256, 1 << 38), min_size=1, max_size=200), st.sampled_from([1.0, 50.0, 95.0, 99.0, 99.9, 100.0])
)
def test_a_percentile_is_at_most_an_eighth_off(values: list[int], percent: float) -> None:
    exact = sorted(values)[max(0, int(np.ceil(len(values) * percent / 100)) - 1)]
    found = percentile_ns(counts_of(np.array(values, np.uint64)), percent)
    assert found is not None and exact * 7 / 8 - 1 <= found <= exact * 9 / 8 + 1


def test_without_any_latency_nothing_is_known() -> None:
    nothing = Spread.of(np.zeros(BUCKETS, np.uint64))
    assert nothing.to_json() == {"count": 0, "p50": None, "p95": None, "p99": None, "p99.9": None, "max": None}


def test_an_unknown_latency_is_in_no_bucket() -> None:
    assert counts_of(np.array([UNKNOWN_NS, 1000], np.uint64)).sum() == 1


def test_the_longest_is_in_the_last_bucket_and_sets_the_maximum() -> None:
    spread = Spread.of(counts_of(np.array([300, 1 << 50], np.uint64)))
    assert spread.count == 2 and spread.max_ns == float(15 << 36)


@pytest.mark.parametrize(
    "ns, bucket",
    [(0, 0), (255, 0), (256, 1), (288, 2), (512, 9), ((14 << 36) - 1, 254), (14 << 36, 255), (1 << 60, 255)],
)
def test_bounds_of_buckets(ns: int, bucket: int) -> None:
    assert bucket_of(np.array([ns], np.uint64))[0] == bucket
