"""Records taken in: every update has its number, and the log is told what it cannot have."""

from __future__ import annotations

import numpy as np

from pydbt.core.primary.events import Captured
from pydbt.core.primary.intake import take_in, unloggable
from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from tests.core.primary.parts import records, runs, state_of, write


def test_write_requests_get_consecutive_numbers_and_completions_none() -> None:
    state = state_of()
    taken = write(state, 3, 5)
    assert taken.segment.last_sequences.tolist() == [1, 2] and state.sequence == 2 and state.position == 4
    assert taken.written(state).blocks().tolist() == [3, 5] and state.in_flight.empty
    assert write(state).segment.first_sequence == 3 and state.statistics.written_requests == 2


def test_a_batch_that_the_log_can_have_names_no_reason() -> None:
    state = state_of()
    assert unloggable(state, write(state, 3), too_many_unsettled=False) == ""


def test_each_reason_is_named() -> None:
    state = state_of(completed_first=True)
    rows = records((RecordKind.SUBMIT, 3))
    assert "2 records" in unloggable(state, take_in(state, Captured(rows, 1, 2), 0.0), False)
    rows = records((RecordKind.SUBMIT, 4))
    rows["flags"] = RecordFlag.NO_PAYLOAD
    assert "data found no room" in unloggable(state, take_in(state, Captured(rows, 2, 2), 0.0), False)
    stranger = take_in(state, Captured(records((RecordKind.COMPLETE, 9)), 3, 2), 0.0)
    assert "not seen submitted" in unloggable(state, stranger, False)
    rows = records((RecordKind.COMPLETE, 3))
    rows["flags"] = RecordFlag.ERROR
    assert "a write failed" in unloggable(state, take_in(state, Captured(rows, 4, 2), 0.0), False)
    assert "uncertain content" in unloggable(state, write(state, 5), too_many_unsettled=True)


def test_after_lost_records_a_stranger_is_no_surprise() -> None:
    state = state_of()
    state.in_flight.reset()
    assert unloggable(state, take_in(state, Captured(records((RecordKind.COMPLETE, 9)), 1, 0), 0.0), False) == ""


def test_where_a_write_has_to_complete_first_it_is_held_back_by_its_number() -> None:
    state = state_of(completed_first=True)
    made = records((RecordKind.SUBMIT, 3), (RecordKind.SUBMIT, 4))
    made["cookie"] = 1, 2
    take_in(state, Captured(made, 2, 0), 0.0)
    assert state.uncompleted.sendable_through == 0


def test_the_state_moves_are_mechanical() -> None:
    state = state_of()
    write(state, 3, completed=False)
    state.mark_in_flight_pending()
    assert state.tracker.pending.contains(3)
    state.tracker.mark_pending(*runs((5, 2)))
    assert [state.next_batch(), state.next_batch(), state.next_reading()] == [1, 2, 1]
    for on in (True, True, False):
        state.switch_payload(on)
    assert len(state.effects.items) == 2 and np.array_equal(state.in_flight.extents().firsts, [3])
