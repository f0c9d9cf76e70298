"""A repeated task is never put off for longer than one interval, for any reading of the clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.primary.schedule import LONGEST_REST_S, TaintRests, due_in_s

YEARS_S = 10 * 365 * 86400.0


@pytest.mark.parametrize(
    ("since_s", "due_s"), [(None, 0.0), (0.0, 60.0), (20.0, 40.0), (60.0, 0.0), (YEARS_S, 0.0), (-YEARS_S, 60.0)]
)
def test_the_next_time_is_counted_from_the_last_one(since_s: float | None, due_s: float) -> None:
    assert due_in_s(60.0, since_s) == due_s


@given(st.floats(min_value=1.0, max_value=YEARS_S), st.floats(min_value=-YEARS_S, max_value=YEARS_S))
def test_the_next_time_is_due_within_one_interval(every_s: float, since_s: float) -> None:
    assert 0.0 <= due_in_s(every_s, since_s) <= every_s


BELOW, OTHER = "the file behind loop0 was changed past it", "a write of an unknown kind"


def test_a_cause_that_does_not_end_is_answered_after_rests_that_double_up_to_an_hour_and_is_told_once() -> None:
    rests, now, waited, told = TaintRests(), 0.0, [], []
    for _ in range(14):
        rest = rests.look([BELOW], now)
        waited.append(0.0 if rest is None else rest.until - now)
        if rest is not None:
            assert rest.reason == BELOW and rests.look([BELOW], rest.until - 0.1) is not None
            told.append(rest.told)
            now = rest.until
            assert rests.look([BELOW], now) is None, "it begins then"
        rests.answered([BELOW], now, now + 10.0)
        now += 10.0
    assert waited[:5] == [0.0, 0.0, 10.0, 20.0, 40.0], (
        "the first at once, and so is one that answers what came up during it"
    )
    assert waited[-3:] == [LONGEST_REST_S] * 3 and max(waited) == LONGEST_REST_S
    assert told == [False, *[True] * (len(told) - 1)]


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 5e3)), min_size=3, max_size=30))
def test_comparisons_take_no_more_than_half_of_the_time_and_wait_for_no_longer_than_an_hour(
    rounds: list[tuple[float, float]],
) -> None:
    rests, now, before_s = TaintRests(), 0.0, 0.0
    for number, (took_s, _) in enumerate(rounds):
        rest = rests.look([BELOW], now)
        rest_s = rest.until - now if rest is not None else 0.0
        assert rest_s <= LONGEST_REST_S + 1e-6
        if number >= 2:
            assert rest_s >= min(before_s, LONGEST_REST_S) * 0.999
        now, before_s = now + rest_s + took_s, took_s
        rests.answered([BELOW], now - took_s, now)


def test_other_words_are_answered_at_once_and_what_rests_with_them() -> None:
    rests = TaintRests()
    for ended_at in (10.0, 20.0):
        assert rests.look([BELOW], ended_at) is None
        rests.answered([BELOW], ended_at - 10.0, ended_at)
    assert rests.look([BELOW], 21.0) is not None and rests.look([BELOW, OTHER], 21.0) is None
    rests.answered([BELOW, OTHER], 21.0, 31.0)
    assert rests.look([OTHER], 31.0) is None, "its first comparison was with the other's"
    rest = rests.look([BELOW], 31.0)
    assert rest is not None and rest.until == 51.0


def test_a_cause_that_was_quiet_for_an_hour_is_a_new_one() -> None:
    for quiet_s, is_new in ((LONGEST_REST_S - 1, False), (LONGEST_REST_S + 1, True)):
        rests = TaintRests()
        for ended_at in (100.0, 200.0, 400.0):
            rests.answered([BELOW], ended_at - 100.0, ended_at)
        now = 400.0 + quiet_s
        assert rests.look([], now) is None and rests.look([BELOW], now) is None, "an hour is the longest rest"
        rests.answered([BELOW], now, now + 100.0)
        assert (rests.look([BELOW], now + 100.0) is None) == is_new


def test_a_cause_that_came_again_soon_and_could_not_be_answered_for_hours_is_the_same_one() -> None:
    rests = TaintRests()
    for ended_at in (100.0, 200.0):
        rests.answered([BELOW], ended_at - 100.0, ended_at)
    assert rests.look([BELOW], 201.0) is not None
    later = 200.0 + 5 * LONGEST_REST_S  # the secondary was away
    assert rests.look([BELOW], later) is None
    rests.answered([BELOW], later, later + 100.0)
    rest = rests.look([BELOW], later + 100.0)
    assert rest is not None and rest.until == later + 300.0
