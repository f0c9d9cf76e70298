"""Taints: told once, and answered by a comparison that began after them."""

from __future__ import annotations

from pydbt.core.primary.taints import Taints
from tests.core.primary.parts import lines, runs, state_of


def test_a_reason_is_told_once() -> None:
    state = state_of()
    taints = Taints(state)
    taints.add("one")
    taints.add("one")
    assert state.taints == ["one"] and len(lines(state, "error")) == 1


def test_a_landing_answers_those_that_its_comparison_began_under_and_no_later_one() -> None:
    state = state_of(taints=("one", "two"), answered=("one",))
    taints = Taints(state)
    taints.answered_by_landing(("two",))
    taints.add("three")
    taints.landed()
    assert state.taints == ["three"] and lines(state, "info") == ["still tainted"]
    taints.landed()
    assert state.taints == ["three"], "an answer counts once"


def test_a_scan_of_the_blocks_in_use_answers_everything_so_far() -> None:
    state = state_of(taints=("one",))
    taints = Taints(state)
    taints.answered_by_scan()
    taints.landed()
    assert not state.taints and lines(state, "info") == ["not tainted any more: everything was compared"]
    taints.clear(("one",))
    assert len(lines(state, "info")) == 1


def test_what_a_secondary_cannot_compare_is_pending_and_its_landing_answers_what_was_known_by_then() -> None:
    state = state_of(taints=("one",))
    taints = Taints(state)
    assert not taints.answered_by_copy(runs((5, 1))) and not state.tracker.pending.any(), "this one compares"
    state.replica.compares = False
    assert taints.answered_by_copy(runs((3, 2), (9, 1)))
    assert state.tracker.pending.extents().blocks().tolist() == [3, 4, 9]
    assert len(lines(state, "warning")) == 1
    taints.add("two")
    taints.landed()
    assert state.taints == ["two"]
