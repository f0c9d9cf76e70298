"""Taints: told once, and answered by a comparison that began after them."""

from __future__ import annotations

from pydbt.core.primary.taints import Taints
from tests.core.primary.parts import lines, runs, state_of


def test_a_reason_is_told_once_and_counts_each_time() -> None:
    state = state_of()
    taints = Taints(state)
    taints.add("one")
    (first,) = state.taint_numbers
    taints.add("one")
    (again,) = state.taint_numbers
    assert list(state.taints) == ["one"] and len(lines(state, "error")) == 1 and again > first


def test_a_taint_that_comes_up_again_is_not_answered_by_a_comparison_that_had_begun_before() -> None:
    state = state_of()
    taints = Taints(state)
    taints.add("one")
    begun = state.taint_numbers
    taints.add("one")
    taints.clear(begun)
    assert list(state.taints) == ["one"] and "still tainted" in lines(state, "info")[0]
    taints.clear(state.taint_numbers)
    assert not state.taints
    taints.add("one")
    assert state.taint_numbers[0] not in begun, "nor by one of before, when it had been answered in between"
    assert len(lines(state, "error")) == 2, "what is new is told"


def test_a_landing_answers_those_that_its_comparison_began_under_and_no_later_one() -> None:
    state = state_of(taints=("one", "two"), answered=("one",))
    taints = Taints(state)
    taints.answered_by_landing((state.taints["two"],))
    taints.add("three")
    taints.landed()
    assert list(state.taints) == ["three"] and "still tainted" in lines(state, "info")[0]
    taints.landed()
    assert list(state.taints) == ["three"] and len(lines(state, "info")) == 1, "an answer counts once"


def test_a_taint_that_dm_era_answered_is_unanswered_when_it_comes_up_once_more() -> None:
    state = state_of(taints=("one",), answered=("one",))
    taints = Taints(state)
    assert not taints.unanswered
    taints.add("one")
    assert taints.unanswered
    taints.landed()
    assert list(state.taints) == ["one"]


def test_a_scan_of_the_blocks_in_use_answers_everything_from_before_it_began() -> None:
    state = state_of(taints=("one",))
    taints = Taints(state)
    taints.answered_by_scan()
    taints.landed()
    assert not state.taints and lines(state, "info") == ["not tainted any more: everything was compared"]
    taints.clear((1,))
    assert len(lines(state, "info")) == 1


def test_a_taint_that_comes_up_during_the_search_for_blocks_in_use_is_not_answered_by_that_search() -> None:
    state = state_of()
    taints = Taints(state)
    taints.add("before")
    taints.search_begins()
    taints.add("meanwhile")
    taints.answered_by_scan()
    taints.landed()
    assert list(state.taints) == ["meanwhile"]


def test_blocks_that_a_secondary_cannot_compare_are_pending_and_their_landing_answers_the_known_taints() -> None:
    state = state_of(taints=("one",))
    taints = Taints(state)
    known = state.taint_numbers
    assert not taints.answered_by_copy(runs((5, 1)), known) and not state.tracker.pending.any(), "this one compares"
    state.replica.compares = False
    assert taints.answered_by_copy(runs((3, 2), (9, 1)), known)
    assert state.tracker.pending.extents().blocks().tolist() == [3, 4, 9]
    assert len(lines(state, "warning")) == 1
    taints.add("two")
    taints.landed()
    assert list(state.taints) == ["two"]
