"""A mark takes the next number of the stream, and is held when that is acknowledged."""

from __future__ import annotations

import numpy as np

from pydbt.core.primary.completed_transactions import CompletedTransactions
from pydbt.core.primary.events import SendFrame
from pydbt.core.primary.link import Link
from pydbt.core.primary.mark_events import MarkComing, MarksLeft, MarksTold, PlaceMark, WantedMark
from pydbt.core.primary.marks import AWAITED_S, Marks
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.sender import send_stream
from pydbt.core.primary.state import State
from tests.core.primary.parts import only, state_of, taken_effects, write

WANTED = WantedMark(9, "before migration 14", 1, 2, synced=True)


def normal(**settings: object) -> State:
    state = state_of(mode=Mode.NORMAL, **settings)
    state.replica.keeps_history = True
    return state


def test_a_mark_goes_out_behind_the_writes_before_it_and_ahead_of_those_after_it() -> None:
    state = normal()
    marks, link = Marks(state), Link(15.0, 0.0)
    link.connected(0.0)
    state.queue.append(write(state, 3).segment)
    marks.told(PlaceMark(WANTED, 0))
    state.queue.append(write(state, 4).segment)
    send_stream(state, link, CompletedTransactions(state))
    before, sent, after = taken_effects(state)
    assert before.first_sequence == 1 and after.first_sequence == 3  # type: ignore[union-attr]
    assert isinstance(sent, SendFrame) and sent.frame == WANTED.at(2, 0)


def test_a_mark_is_held_when_its_own_number_is_acknowledged_and_no_sooner() -> None:
    state = normal()
    marks = Marks(state)
    marks.told(PlaceMark(WANTED, 0))
    state.acknowledged = 0
    marks.advance()
    assert not taken_effects(state)
    state.acknowledged = 1
    marks.advance()
    assert only(taken_effects(state), MarksTold) == MarksTold((9,))
    marks.advance()
    assert not taken_effects(state), "it is told once"


def test_the_holders_of_a_mark_are_unknown_once_the_stream_is_given_up() -> None:
    state = normal()
    marks = Marks(state)
    marks.told(PlaceMark(WANTED, 0))
    state.mode = Mode.UNSYNCHRONIZED
    marks.advance()
    assert only(taken_effects(state), MarksLeft) == MarksLeft()
    state.mode, state.acknowledged = Mode.NORMAL, 5
    marks.advance()
    assert not taken_effects(state)


def test_the_reason_for_which_no_mark_can_be_set_is_told_and_whether_it_passes() -> None:
    assert Marks(normal()).problem() is None
    found = {}
    for name, state in {
        "mode": state_of(mode=Mode.RESYNCHRONIZING), "snapshots": state_of(mode=Mode.SNAPSHOTS, snapshot_interval_s=1.0),
        "earlier": state_of(mode=Mode.NORMAL), "taint": normal(taints=("a disk was away",)),
    }.items():  # fmt: skip
        problem = Marks(state).problem()
        assert problem is not None
        found[name] = problem
    assert "mode resynchronizing" in found["mode"].why and not found["mode"].lasting
    assert "addresses" in found["snapshots"].why and found["snapshots"].lasting
    assert "earlier version" in found["earlier"].why and found["earlier"].lasting
    assert "a disk was away" in found["taint"].why and not found["taint"].lasting


def test_uncertain_bytes_are_counted_and_settled_in_a_hurry_for_a_while() -> None:
    state = normal()
    marks = Marks(state)
    assert marks.certain and not marks.uncertain_bytes and not marks.awaited
    state.unsettled.add(np.array([3, 4]), 1, 0.0)
    assert marks.uncertain_bytes == 2 * 4096
    marks.told(MarkComing())
    assert marks.awaited
    state.now += AWAITED_S
    assert not marks.awaited
