"""The count of writes in flight: when it may be trusted, and completions that never show."""

from __future__ import annotations

import numpy as np

from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.flight_watch import LONGEST_FLIGHT_S, FlightWatch
from pydbt.core.primary.state import State
from pydbt.core.tracking.capture_record import RECORD, RecordKind
from pydbt.core.units import Geometry
from tests.core.primary.parts import pending_of, records, state_of, write


def writes(*sectors: int) -> np.ndarray:
    records = np.zeros(len(sectors), dtype=RECORD)
    records["sectors"], records["pieces"], records["kind"] = sectors, 1, 1
    return records


def test_a_write_whose_task_waits_for_the_processor_is_not_taken_for_one_that_ended_unseen():
    """Submitted, and not in the disk's own count yet: taking it for ended would make its completion a stranger."""
    state = State(PrimaryConfig(Geometry(1 << 20), epoch=7), 0.0)
    state.in_flight.trust()
    state.in_flight.apply(writes(8))
    watch = FlightWatch(state, 0.0)
    for now in (10.0, 10.2, 10.8):
        assert not watch.disk_idle(0, now).total()
    assert watch.disk_idle(0, 11.2).total() == 1, "on a disk that stays idle it has ended after all"


def test_after_lost_records_the_count_is_unknown_until_the_disk_was_idle_and_its_records_were_taken_in() -> None:
    state = state_of()
    watch = FlightWatch(state, 0.0)
    write(state, 3, completed=False)
    watch.lose_sight(1.0)
    assert not state.in_flight.certain and pending_of(state) == [3], "nobody knows whether a sweep read it too early"
    watch.disk_idle(state.position, 1.01)
    watch.advance(1.02)
    assert not state.in_flight.certain, "records from before may still be on their way to the ring"
    watch.disk_idle(state.position + 1, 1.1)
    watch.advance(1.1)
    assert not state.in_flight.certain
    state.position += 1
    watch.advance(1.2)
    assert state.in_flight.certain


def test_a_count_that_never_saw_an_idle_disk_is_trusted_once_no_request_can_be_that_old() -> None:
    state = state_of()
    watch = FlightWatch(state, 0.0)
    watch.lose_sight(1.0)
    watch.advance(1.0 + LONGEST_FLIGHT_S)
    assert not state.in_flight.certain
    watch.advance(1.1 + LONGEST_FLIGHT_S)
    assert state.in_flight.certain


def test_a_write_in_flight_for_longer_than_any_request_lasts_has_ended_unseen() -> None:
    state = state_of()
    watch = FlightWatch(state, 0.0)
    write(state, 3, 4, completed=False)
    assert not watch.advance(1.0).total()
    assert not watch.advance(1.0 + LONGEST_FLIGHT_S).total()
    assert watch.advance(1.1 + LONGEST_FLIGHT_S).blocks().tolist() == [3, 4] and state.in_flight.empty
    assert not watch.advance(200.0).total()


def test_a_write_that_has_completed_is_not_waited_for_any_more() -> None:
    state = state_of()
    watch = FlightWatch(state, 0.0)
    write(state, 3, completed=False)
    watch.advance(1.0)
    state.in_flight.apply(records((RecordKind.COMPLETE, 3)))
    watch.advance(2.0)
    write(state, 5, completed=False)
    watch.advance(3.0)
    assert not watch.advance(2.0 + LONGEST_FLIGHT_S).total(), "the second write is younger"
