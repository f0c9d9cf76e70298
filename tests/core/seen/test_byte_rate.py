"""The rate of a counter: over the last seconds, unknown before two looks, and never over two runs."""

from __future__ import annotations

from pydbt.core.seen.byte_rate import COUNTER_WINDOW_S, ByteRate


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = ByteRate()
    assert rate.per_second is None
    for second in range(20):
        rate.observe(float(second), 100.0 * second if second < 10 else 1000.0 + 300.0 * (second - 10))
    assert rate.per_second == 300.0
    assert COUNTER_WINDOW_S < 10


def test_the_rate_is_unknown_before_two_looks_at_different_times() -> None:
    rate = ByteRate()
    rate.observe(1.0, 5)
    assert rate.per_second is None
    rate.observe(1.0, 7)
    assert rate.per_second is None


def test_another_run_begins_anew() -> None:
    rate = ByteRate()
    rate.observe(1.0, 500)
    rate.observe(2.0, 600)
    rate.observe(3.0, 10)
    assert rate.per_second is None
    rate.observe(4.0, 20)
    assert rate.per_second == 10.0
    rate.observe(5.0, None)
    rate.observe(6.0, 30)
    assert rate.per_second is None


def test_looks_that_are_far_apart_still_make_a_rate() -> None:
    rate = ByteRate()
    rate.observe(0.0, 0)
    rate.observe(60.0, 6000)
    rate.observe(120.0, 18000)
    assert rate.per_second == 200.0
