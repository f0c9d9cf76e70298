"""The landing on the stream: S0, the last sweep, S1, and nothing before its time."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from pydbt.core.primary.events import BlocksRead, Flushed, PayloadArmed, ReadBlocks, SetPayload, TakeQuiet
from pydbt.core.primary.flight_watch import FlightWatch
from pydbt.core.primary.landing import Enter, Landed
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.resync import READ_RETRY_S, Resync
from pydbt.core.primary.stream_landing import MIXED_PATIENCE_S, StreamLanding
from pydbt.core.tracking.capture_record import RecordKind
from tests.core.primary.parts import fresh_map, only, pending_of, records, state_of, taken_effects, write


class Story:
    """A resynchronization whose first map is on disk. The brain's part is played by ``go``."""

    def __init__(self, *pending: int, certain: bool = True) -> None:
        self.state = state_of(mode=Mode.RESYNCHRONIZING, digests=False)
        self.state.in_flight.certain = certain
        self.state.phase = Phase.SWEEPING
        self.state.tracker.pending.set_blocks(np.array(pending, np.int64))
        self.quiet = QuietBitmap(self.state, 0.0)
        self.landing = StreamLanding(self.state, FlightWatch(self.state, 0.0))
        self.resync = Resync(self.state, self.quiet, 1, 0.0)
        assert self.landing.ready(0.0) and self.landing.begin() == ()
        self.resync.ask_for_map()
        self.fresh_map()
        taken_effects(self.state)

    def fresh_map(self) -> None:
        fresh_map(self.quiet, self.resync)

    def go(self, outcome: object) -> None:
        assert isinstance(outcome, Enter), outcome
        self.state.phase = outcome.phase

    def advance(self, now: float = 0.0) -> object:
        return self.landing.advance(self.resync, now)

    def to_settling(self) -> None:
        self.go(self.landing.try_landing(self.resync, 0.0))
        self.go(self.landing.told(PayloadArmed(self.state.position), self.resync, 0.0))

    def to_last_sweep(self) -> None:
        self.to_settling()
        self.fresh_map()
        self.go(self.advance())
        assert self.state.phase is Phase.LAST_SWEEP

    def sent_and_acknowledged(self) -> None:
        for reading in list(self.resync.sweep.readings):
            self.resync.read(BlocksRead(reading, self.state.position, 4096), 0.0, every_block=False)
        self.resync.acknowledged(1 << 30)


def test_with_little_left_payload_is_switched_on_and_s0_is_where_it_is_armed() -> None:
    story = Story(1, 2)
    story.go(story.landing.try_landing(story.resync, 0.0))
    assert story.state.phase is Phase.ARMING and taken_effects(story.state) == [SetPayload(True)]
    write(story.state, 5, completed=False)
    story.go(story.landing.told(PayloadArmed(1), story.resync, 0.0))
    assert story.state.phase is Phase.SETTLING and story.state.queue.sent_through == story.state.acknowledged == 1
    assert taken_effects(story.state) == [TakeQuiet(flip=True)]
    assert 5 in pending_of(story.state), "what is in flight may have been swept before it reached the disk"


def test_with_much_left_another_pass_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(*range(64))
    monkeypatch.setattr(story.resync.sweep, "may_end", lambda *_: False)
    assert story.landing.try_landing(story.resync, 0.0) is None
    assert only(taken_effects(story.state), ReadBlocks).runs.total() == 64
    assert story.advance() is None, "the pass goes on"


def test_while_it_is_not_known_what_is_in_flight_the_landing_waits_and_holds_no_stream() -> None:
    story = Story(1, certain=False)
    assert story.landing.try_landing(story.resync, 0.0) is None and not taken_effects(story.state)
    assert "an instant with no write in flight" in story.landing.waiting_for()
    assert story.advance() is None
    story.state.in_flight.trust()
    assert story.advance() == Enter(Phase.ARMING)


def test_armed_outside_of_a_landing_is_an_answer_that_came_too_late() -> None:
    story = Story(1)
    assert story.landing.told(PayloadArmed(0), None, 0.0) is None
    assert story.landing.told(PayloadArmed(0), story.resync, 0.0) is None


def test_the_last_sweep_waits_for_the_map_and_for_every_write_that_was_submitted_before_s0() -> None:
    story = Story(1)
    write(story.state, 9, completed=False)
    story.to_settling()
    assert story.advance() is None, "the map is not on disk"
    story.fresh_map()
    assert story.advance() is None and "in flight" in story.landing.waiting_for()
    story.state.in_flight.apply(records((RecordKind.COMPLETE, 9)))
    assert not story.landing.waiting_for() and story.advance() == Enter(Phase.LAST_SWEEP)
    assert only(taken_effects(story.state)[-1:], ReadBlocks).runs.total() == 2


def test_blocks_that_are_kept_busy_are_not_waited_for_for_ever() -> None:
    story = Story(1)
    write(story.state, 9, completed=False)
    story.to_settling()
    write(story.state, 9, completed=False)
    story.fresh_map()
    assert story.advance(MIXED_PATIENCE_S) is None
    assert story.advance(MIXED_PATIENCE_S + 0.1) == Enter(Phase.LAST_SWEEP)


def test_s1_comes_when_everything_is_on_the_secondary_and_every_earlier_record_was_taken_in() -> None:
    story = Story(1)
    story.to_last_sweep()
    assert story.advance() is None, "the last block is on its way"
    story.sent_and_acknowledged()
    story.resync.read_position = story.state.position + 1
    assert story.advance() is None, "a record is still to come"
    story.state.queue.append(write(story.state, 20).segment)
    story.go(story.advance())
    assert story.state.phase is Phase.DRAINING and story.advance() is None, "the stream up to S1 is not sent"
    story.state.queue.take()
    assert story.advance() == Landed(1)
    story.landing.committed(0.0)
    assert story.advance() is None


def test_blocks_of_the_last_sweep_that_could_not_be_read_are_swept_once_more() -> None:
    story = Story(1)
    story.to_last_sweep()
    (reading,) = story.resync.sweep.readings
    story.resync.read(BlocksRead(reading, 0, 0, error="bad sector"), 0.0, every_block=False)
    taken_effects(story.state)
    for now in (1.0, READ_RETRY_S):
        story.resync.sweep._cursor = 64  # the pass is over
        assert story.advance(now) is None
    story.resync.feed(READ_RETRY_S)
    assert only(taken_effects(story.state), ReadBlocks).runs.total() == 1


def test_after_an_abandoned_landing_the_next_one_begins_anew() -> None:
    story = Story(1, certain=False)
    story.landing.try_landing(story.resync, 0.0)
    story.landing.abandon()
    story.state.in_flight.trust()
    assert story.advance() is None and not story.landing.waiting_for()


def test_waits_are_over_with_the_acknowledgement_of_what_was_written_before_them() -> None:
    story = Story()
    write(story.state, 3)
    story.landing.add_wait(1, story.state.position)
    story.landing.add_wait(2, story.state.position)
    story.landing.drop_wait(2)
    story.landing.note_sequence()
    assert story.landing.waited_for and not story.landing.waits_over()
    story.state.acknowledged = 1
    assert story.landing.waits_over() == [1]
    story.landing.drop_wait(1)
    assert not story.landing.waited_for


def test_with_a_stream_there_is_nothing_to_hold_and_nothing_kept() -> None:
    story, words = Story(), np.ones(1, np.uint64)
    landing = story.landing
    assert not landing.due(0.0) and landing.deadline() == inf and landing.status(0.0, clean=True) is None
    assert landing.flipped(words, story.resync, 0.0) is None and not landing.flipping and not landing.unmapped
    landing.written(words)
    landing.differed(np.array([1]))
    assert not landing.unproved and landing.kept_blocks == 0 and not landing.compares_every_block


@pytest.mark.parametrize("event", [Flushed("freeze")])
def test_answers_to_the_other_kind_of_landing_change_nothing(event: Flushed) -> None:
    story = Story(1)
    assert story.landing.told(event, story.resync, 0.0) is None
