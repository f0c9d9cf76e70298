"""The landing on a snapshot: the image is of one moment, whatever the hold is worth, and a hold never stays behind."""

from __future__ import annotations

from math import inf

import numpy as np
import numpy.typing as npt
import pytest

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.primary import snapshot_landing
from pydbt.core.primary.events import (
    BlocksRead,
    Flush,
    Flushed,
    Held,
    Hold,
    PayloadArmed,
    ReadBlocks,
    Release,
    Released,
    TakeQuiet,
)
from pydbt.core.primary.landing import Enter, Landed
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.snapshot_comparison import SnapshotComparison
from pydbt.core.primary.snapshot_landing import FIRST_PAUSE_S, TELL_AFTER, SnapshotLanding
from pydbt.core.tracking.capture_record import RecordKind
from tests.core.primary.parts import fresh_map, lines, only, pending_of, records, runs, state_of, taken_effects, write

INTERVAL_S, LIMIT_S = 10.0, 2.0


def words_of(*blocks: int) -> npt.NDArray[np.uint64]:
    return np.array([sum(1 << block for block in blocks)], np.uint64)


class Story:
    """A resynchronization whose first map is on disk. The brain's part is played by ``go`` and ``flip``."""

    def __init__(self, *pending: int, apart: bool = False, mode: Mode = Mode.INITIAL_SYNC) -> None:
        self.state = state_of(mode=mode, digests=False, snapshot_interval_s=INTERVAL_S, hold_limit_s=LIMIT_S)
        self.state.tracker.pending.set_blocks(np.array(pending, np.int64))
        self.quiet = QuietBitmap(self.state, 0.0)
        self.comparison = SnapshotComparison(self.state)
        self.landing = SnapshotLanding(self.state, self.quiet, self.comparison, INTERVAL_S)
        self.apart = apart
        self.begin()

    def begin(self, now: float = 0.0) -> None:
        assert not self.landing.ready(now) and only(taken_effects(self.state), Flush) == Flush()
        assert not self.landing.ready(now) and not taken_effects(self.state), "it is under way"
        self.landing.told(Flushed("snapshot" if self.apart else "freeze", self.apart), None, now)
        assert self.landing.ready(now)
        self.state.phase = Phase.SWEEPING
        self.landing.begin()
        self.resync = Resync(self.state, self.quiet, 1, now)
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

    def told(self, event: Held | Released | Flushed, now: float = 0.0) -> object:
        return self.landing.told(event, self.resync, now)

    def hold(self, now: float = 0.0) -> Hold:
        """It is asked for."""
        self.go(self.landing.try_landing(self.resync, now))
        assert self.state.phase is Phase.HOLDING
        return only(taken_effects(self.state), Hold)

    def held(self, now: float = 0.0) -> object:
        kind = "snapshot" if self.apart else "freeze"
        return self.told(Held(self.landing._holds, kind, self.state.position, self.apart), now)

    def flip(self, *written: int, now: float = 0.0) -> object:
        assert taken_effects(self.state) == [TakeQuiet(flip=True)] and self.landing.flipping
        self.quiet.taken(asked=True, in_log=False)
        self.state.tracker.pending.merge_words(words_of(*written))
        return self.landing.flipped(words_of(*written), self.resync, now)

    def to_last_sweep(self, *written: int) -> None:
        self.hold()
        outcome = self.held()
        if not self.apart:
            self.go(outcome)
            assert self.state.phase is Phase.SETTLING and self.advance() is None
        self.go(self.flip(*written))
        assert self.state.phase is Phase.LAST_SWEEP

    def all_read(self) -> ReadBlocks:
        asked = only(taken_effects(self.state), ReadBlocks)
        self.resync.read(BlocksRead(asked.reading, self.state.position, 4096), 0.0, every_block=False)
        return asked

    def release(self) -> None:
        self.go(self.advance())
        assert self.state.phase is Phase.RELEASING
        assert only(taken_effects(self.state)[-1:], Release) == Release(self.landing._holds)

    def commit(self, now: float = 0.0) -> int:
        self.go(self.told(Released(self.landing._holds, 3.0), now))
        assert self.state.phase is Phase.DRAINING
        assert self.advance() is None or not self.resync.in_transit()
        self.resync.acknowledged(1 << 30)
        outcome = self.advance()
        assert isinstance(outcome, Landed)
        self.state.phase = Phase.COMMITTING
        assert self.advance() is None
        self.landing.committed(now)
        self.state.acknowledged = outcome.sequence
        self.state.mode, self.state.phase = Mode.SNAPSHOTS, Phase.IDLE
        return outcome.sequence


def test_a_frozen_source_is_flipped_once_nothing_is_in_flight_and_read_at_once() -> None:
    story = Story(1)
    assert story.hold() == Hold(1, LIMIT_S, gently=True) and "to be held" in story.landing.waiting_for()
    write(story.state, 7, completed=False)
    story.go(story.held())
    assert story.advance() is None and not taken_effects(story.state), "a write is in flight"
    assert "an instant with no write" in story.landing.waiting_for()
    story.state.in_flight.apply(records((RecordKind.COMPLETE, 7)))
    assert story.advance() is None
    story.go(story.flip(7))
    assert story.all_read().runs.blocks().tolist() == [1, 7]
    story.release()
    assert "let go" in story.landing.waiting_for()
    assert story.commit(5.0) == 1 and story.landing.number == 1


def test_both_maps_of_a_snapshot_are_read_and_blocks_of_the_second_stay_out_of_sync() -> None:
    story = Story(1, apart=True)
    story.to_last_sweep(7)
    asked = story.all_read()
    assert asked.from_snapshot and asked.runs.blocks().tolist() == [1, 7]
    write(story.state, 9)  # the source is written to meanwhile, which a snapshot does not mind
    assert story.landing.kept_blocks == 1
    combined = DirtyMap(64)
    for unproved in story.landing.unproved:
        combined.merge(unproved)
    assert combined.extents().blocks().tolist() == [1, 7]
    story.release()
    assert story.commit() == 0
    assert pending_of(story.state) == [7] and story.landing.kept_blocks == 0


def test_a_snapshot_that_was_not_whole_gives_no_image_and_everything_read_from_it_is_pending() -> None:
    story = Story(1, apart=True)
    story.to_last_sweep(7)
    story.all_read()
    story.release()
    story.resync.acknowledged(1 << 30)
    assert story.told(Released(1, 3.0, "the snapshot's store was full"), 1.0) == Enter(Phase.SWEEPING)
    assert pending_of(story.state) == [1, 7] and story.landing.problem == "the snapshot's store was full"
    assert story.state.reads_rest_until == 1.0 + FIRST_PAUSE_S


@pytest.mark.parametrize("what", ["written", "lost", "unread"])
def test_a_live_source_that_did_not_rest_until_the_last_read_gives_no_image(what: str) -> None:
    story = Story(1)
    story.to_last_sweep()
    asked = only(taken_effects(story.state), ReadBlocks)
    if what == "written":
        write(story.state, 30)
    elif what == "lost":
        story.state.lost = 1
    else:
        story.resync.read(BlocksRead(asked.reading, 0, 0, error="bad sector"), 0.0, every_block=False)
    assert story.advance() == Enter(Phase.SWEEPING)
    assert only(taken_effects(story.state), Release) == Release(1)
    story.state.phase = Phase.SWEEPING
    assert "a moment that can be held" in story.landing.waiting_for()
    assert story.landing.try_landing(story.resync, 100.0) is None, "the hold is still being let go"
    assert story.told(Released(1, 9.0), 100.0) is None and story.landing.held_ms_max == 9.0
    taken_effects(story.state)
    story.resync.abandon()
    assert story.landing.try_landing(story.resync, 100.0) == Enter(Phase.HOLDING)
    assert not only(taken_effects(story.state), Hold).gently, "the second attempt may hold writers up"


def test_a_hold_that_lasts_too_long_is_let_go() -> None:
    story = Story(1)
    story.hold()
    write(story.state, 7, completed=False)
    story.go(story.held())
    assert story.landing.deadline() == LIMIT_S and story.advance(LIMIT_S) is None
    assert story.advance(LIMIT_S + 0.1) == Enter(Phase.SWEEPING)
    story = Story(1)
    story.to_last_sweep()
    assert story.advance(LIMIT_S) is None
    assert story.advance(LIMIT_S + 0.1) == Enter(Phase.SWEEPING), "a read that does not come back"


def test_blocks_that_become_pending_while_a_live_source_is_read_belong_to_the_image() -> None:
    story = Story(1)
    story.to_last_sweep()
    story.all_read()
    story.state.tracker.pending.set_range(40, 1)
    assert story.advance() is None
    assert story.all_read().runs.blocks().tolist() == [40]
    story.release()


def test_too_much_at_the_last_moment_is_swept_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_landing, "HELD_BYTES", 4096)
    story = Story(1)
    story.hold()
    story.go(story.held())
    story.advance()
    assert story.flip(1, 2, 3) == Enter(Phase.SWEEPING)


def test_with_much_left_another_pass_is_swept_but_a_snapshot_is_no_burden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_landing, "HELD_BYTES", 4096)
    for apart in (False, True):
        story = Story(1, 2, 3, apart=apart)
        assert story.landing.try_landing(story.resync, 0.0) is None, "the bulk first"
        assert only(taken_effects(story.state), ReadBlocks).from_snapshot is False
        assert story.advance() is None
        story.resync.abandon()
        outcome = story.landing.try_landing(story.resync, 0.0)
        assert outcome == (Enter(Phase.HOLDING) if apart else None)


def test_a_refused_hold_is_tried_again_after_growing_pauses_and_the_operator_is_told_at_last() -> None:
    story, now = Story(1), 0.0
    for attempt in range(1, TELL_AFTER + 1):
        story.hold(now)
        story.go(story.told(Held(attempt, "", 0, error="the tool failed"), now))
        told = lines(story.state, "warning")
        assert story.told(Released(attempt, 0.0), now) is None
        pause = story.landing._retry_at - now
        assert story.landing.try_landing(story.resync, now) is None, "not at once"
        taken_effects(story.state)
        story.resync.abandon()
        now += pause
    assert pause > FIRST_PAUSE_S and len(told) == 1 and story.landing.problem == "the tool failed"


def test_an_answer_to_a_hold_that_was_given_up_is_not_taken() -> None:
    story = Story(1)
    story.hold()
    story.landing.abandon()
    assert only(taken_effects(story.state), Release) == Release(1)
    assert story.held() is None
    story.told(Released(1, 1.0))
    assert story.held() is None, "nothing is held"


def test_a_release_under_way_when_replication_halts_makes_no_image() -> None:
    story = Story(1, apart=True)
    story.to_last_sweep(7)
    story.all_read()
    story.release()
    story.landing.abandon()
    story.resync.abandon()
    assert not [effect for effect in taken_effects(story.state) if isinstance(effect, Release)], "it is on its way"
    assert story.told(Released(1, 1.0, "it was full")) is None and story.landing.problem == "it was full"
    assert pending_of(story.state) == [1, 7]


def test_a_flush_that_failed_is_tried_again_later_and_no_phase_changes_outside_of_a_resynchronization() -> None:
    story = Story(1)
    story.landing._flushing = snapshot_landing.Flushing.NEEDED
    story.state.phase = Phase.IDLE
    assert not story.landing.ready(0.0)
    assert story.told(Flushed("", error="no such mount"), 1.0) is None
    taken_effects(story.state)
    assert not story.landing.ready(1.0) and not taken_effects(story.state)
    assert not story.landing.ready(1.0 + FIRST_PAUSE_S) and taken_effects(story.state) == [Flush()]
    assert story.told(PayloadArmed(0)) is None  # type: ignore[arg-type]


def test_the_next_snapshot_is_due_after_the_interval_when_something_was_written_and_at_once_when_somebody_waits() -> (
    None
):
    story = Story(1)
    story.to_last_sweep()
    story.all_read()
    story.release()
    story.commit()
    landing, state = story.landing, story.state
    assert not landing.due(1000.0) and landing.deadline() == inf and not landing.unmapped
    write(state, 3)
    assert landing.unmapped and not landing.due(INTERVAL_S - 1) and landing.due(INTERVAL_S)
    assert landing.deadline() == INTERVAL_S
    landing.add_wait(1, 0)
    landing.add_wait(2, 0)
    landing.drop_wait(2)
    assert landing.due(0.0) and landing.waited_for and not landing.waits_over()
    story.begin(1.0)
    assert landing.deadline() == inf and not landing.waits_over(), "a resynchronization is under way"
    story.to_last_sweep(3)
    story.all_read()
    story.release()
    story.commit(2.0)
    landing.note_sequence()
    assert landing.waits_over() == [1]
    assert not landing.due(2.0), "one that is over asks for no other image"


def test_a_replica_is_in_sync_now_only_while_nothing_was_written_since_the_last_image() -> None:
    story = Story(1)
    before = story.landing.status(1.0, clean=True)
    assert before is not None and before.instant is before.in_sync_at is None
    story.to_last_sweep()
    story.all_read()
    story.release()
    story.commit()
    for clean, at in ((True, 9.0), (False, 0.0)):
        status = story.landing.status(9.0, clean=clean)
        assert status is not None and status.instant == 0.0 and status.in_sync_at == at
    write(story.state, 3)
    status = story.landing.status(9.0, clean=True)
    assert status is not None and status.in_sync_at == 0.0 and status.number == 1 and status.held_ms_last == 3.0


def test_blocks_that_cannot_be_read_are_read_again_by_an_image_although_nothing_was_written() -> None:
    story = Story(1)
    story.state.mode = Mode.SNAPSHOTS
    assert not story.landing.due(10.0) or story.state.tracker.pending.any()
    story.state.tracker.pending.clear()
    story.state.unreadable.add(np.array([4]), 10.0)
    assert not story.landing.due(10.0) and not story.landing.due(69.0)
    assert story.landing.due(70.0)


def test_a_verification_joins_the_next_snapshot_at_once() -> None:
    story = Story(1)
    story.comparison.begin(runs((0, 4)), True, None, 0.0)
    assert story.landing.due(0.0) and not story.landing.compares_every_block
    story.landing.begin()
    assert story.landing.compares_every_block and pending_of(story.state) == [0, 1, 2, 3]
    story.landing.written(words_of(2))
    story.landing.differed(np.array([2, 3]))
    assert story.comparison.current is not None
