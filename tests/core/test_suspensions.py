"""A moment before a suspension of the machine is told as at least as old as it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.suspensions import Suspensions

HOURS_8 = 8 * 3600.0


def test_a_suspension_counts_for_moments_before_it_and_not_for_later_ones() -> None:
    clocks = Suspensions()
    clocks.read(100.0, 100.0)
    clocks.read(105.0, 105.0 + HOURS_8)
    assert clocks.passed_s(99.0, 106.0) == 7.0 + HOURS_8
    assert clocks.passed_s(105.5, 106.0) == 0.5


def test_the_last_end_of_a_suspension_is_the_reading_that_found_it() -> None:
    clocks = Suspensions()
    clocks.read(100.0, 100.0)
    clocks.read(101.0, 101.0)
    assert clocks.woke_at is None
    for at, slept_s in ((105.0, HOURS_8), (110.0, HOURS_8), (120.0, 2 * HOURS_8)):
        clocks.read(at, at + slept_s)
    assert clocks.woke_at == 120.0


def test_two_readings_one_after_the_other_are_no_suspension() -> None:
    clocks = Suspensions()
    for at in range(1000):
        clocks.read(float(at), at + 50.0 + 0.001 * (at % 2))
    assert clocks.passed_s(0.0, 999.0) == 999.0


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(0.02, 1e6)), min_size=1, max_size=100), st.floats(0, 1))
def test_nothing_is_ever_told_as_younger_than_it_is(steps: list[tuple[float, float]], part: float) -> None:
    """Awake for a time, suspended for a time, and so on; both clocks are read after each suspension."""
    clocks, monotonic, boottime = Suspensions(), 0.0, 0.0
    clocks.read(monotonic, boottime)
    asked: list[tuple[float, float]] = []
    for awake_s, asleep_s in steps:
        asked.append((monotonic + awake_s * part, boottime + awake_s * part))
        monotonic, boottime = monotonic + awake_s, boottime + awake_s + asleep_s
        clocks.read(monotonic, boottime)
    for at, real in asked:
        assert clocks.passed_s(at, monotonic) >= (boottime - real) * (1 - 1e-9) - 0.01 * len(steps)


def test_no_suspension_of_too_many_is_forgotten() -> None:
    clocks = Suspensions()
    for number in range(201):  # the first reading finds none
        clocks.read(number * 10.0, number * 10.0 + number * 100.0)
    assert clocks.passed_s(0.0, 2000.0) == 2000.0 + 200 * 100.0
    assert clocks.passed_s(1995.0, 2000.0) == 5.0 + 100.0, "the last one"
