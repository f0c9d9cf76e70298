"""A reader that asks again and again for the events since its last question gets each once, or is told that some are missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.change_words import NamedChange
from pydbt.core.seen.event_ring import EVENTS_MAX, EventRing

MOMENT = "2026-01-01T00:00:00Z"


@given(st.lists(st.integers(0, 3), max_size=60))
def test_a_reader_that_keeps_up_gets_each_event_once(bursts: list[int]) -> None:
    ring, seen, asked = EventRing(100), [], 100
    for burst in bursts:
        for _ in range(burst):
            ring.add(NamedChange("connected", ""), MOMENT)
        found = ring.since(asked)
        assert not found.lost
        seen += [event.number for event in found.events]
        asked = found.next
    assert seen == list(range(101, 101 + sum(bursts)))


def test_a_reader_that_is_too_slow_is_told_that_events_are_missing_and_the_ring_is_bounded() -> None:
    ring = EventRing(0)
    for _ in range(EVENTS_MAX + 5):
        ring.add(NamedChange("connected", ""), MOMENT)
    found = ring.since(3)
    assert found.lost and len(found.events) == EVENTS_MAX and found.events[0].number == 6
    assert not ring.since(5).lost and not ring.since(0).lost
    assert ring.since(found.next) == ((), found.next, False)


def test_a_number_of_another_run_is_told_as_lost() -> None:
    ring = EventRing(1000)
    ring.add(NamedChange("started", ""), MOMENT)
    assert ring.since(990).lost and ring.since(5000).lost
    assert [event.number for event in ring.since(5000).events] == [1001]
