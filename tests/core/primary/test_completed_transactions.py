"""Transactions on their way into the stream: each once, at a place from which on an image holds it."""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.completed_transactions import TELL_WITHIN_S, CompletedTransactions
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.primary.state import State
from pydbt.core.primary.transaction_events import SendCompleted
from pydbt.core.protocol.completed import LoggedFileSystem
from pydbt.core.tracking.in_flight import InFlightReport
from tests.core.primary.parts import only, runs, state_of, taken_effects

NONE = InFlightReport(*(Runs.none() for _ in range(4)))
ODD = InFlightReport(runs((3, 1)), *(Runs.none() for _ in range(3)))


def normal() -> State:
    state = state_of(mode=Mode.NORMAL)
    state.replica.keeps_history = True
    return state


def one(ordinal: int, sequence: int, name: str = "48211", committed_ns: int | None = 7) -> NamedTransaction:
    number = 48211 if ":" not in name else 3 << 32 | 1024
    return NamedTransaction(name, number, committed_ns, 2.5, sequence, ordinal, batch_end=sequence)


def told(state: State) -> SendCompleted:
    return only(taken_effects(state), SendCompleted)


def test_a_transaction_goes_ahead_of_the_next_update_at_its_own_place() -> None:
    state = normal()
    here = CompletedTransactions(state)
    here.ended([one(1, 4)], NONE)
    here.completed([one(1, 4)])
    here.advance()
    here.tell_before(4)
    assert not taken_effects(state), "the update that ended it is not sent yet"
    here.tell_before(6)
    sent = told(state)
    assert sent.after == 5 and sent.rows.tolist() == [(48211, 4, 4, 2_500_000_000, 7, 0, LoggedFileSystem.EXT4, 0, 0)]
    here.tell_before(7)
    assert not taken_effects(state), "it is told once"


def test_fast_commits_and_those_of_xfs_are_told_as_what_they_are() -> None:
    state = normal()
    here = CompletedTransactions(state)
    both = [one(1, 1, "48211.3"), one(2, 2, "3:1024", committed_ns=None)]
    here.ended(both, NONE)
    here.completed(both)
    here.advance()
    here.tell_before(3)
    rows = told(state).rows
    assert rows["fast"].tolist() == [3, 0] and rows["committed_ns"].tolist() == [7, 0]
    assert rows["file_system"].tolist() == [LoggedFileSystem.EXT4, LoggedFileSystem.XFS]
    assert rows["number"].tolist() == [48211, 3 << 32 | 1024]


def test_where_a_block_was_uncertain_its_own_place_is_too_early() -> None:
    for report, unsettled in ((ODD, False), (NONE, True)):
        state = normal()
        here = CompletedTransactions(state)
        if unsettled:
            state.unsettled.add(np.array([3]), 2, 0.0)
        here.ended([one(1, 4)], report)
        here.advance()
        here.completed([one(1, 4)])
        here.advance()
        if unsettled:
            here.tell_before(9)
            assert not taken_effects(state), "it is not whole yet"
            state.unsettled.clear()
        else:
            here = CompletedTransactions(state)
            here.ended([one(1, 4)], report)
            here.completed([one(1, 4)])
        state.sequence = 8
        here.advance()
        here.tell_before(9)
        assert told(state).rows["whole_from"].tolist() == [8]


def test_without_a_next_update_it_is_told_after_a_while() -> None:
    state = normal()
    here = CompletedTransactions(state)
    here.ended([one(1, 0)], NONE)
    here.completed([one(1, 0)])
    here.advance()
    here.tell_at_the_end()
    assert not taken_effects(state)
    state.now += TELL_WITHIN_S
    here.tell_at_the_end()
    assert told(state).after == 0


def test_a_secondary_of_an_earlier_version_and_one_that_left_the_order_are_told_nothing() -> None:
    state = normal()
    here = CompletedTransactions(state)
    here.completed([one(1, 1)])
    state.mode = Mode.UNSYNCHRONIZED
    here.advance()
    state.mode = Mode.NORMAL
    here.advance()
    here.tell_before(9)
    assert not taken_effects(state)
    state.replica.keeps_history = False
    here.completed([one(2, 2)])
    here.advance()
    here.tell_before(9)
    assert not taken_effects(state)
