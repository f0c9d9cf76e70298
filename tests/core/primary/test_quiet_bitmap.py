"""The quiet bitmap is given up only when its bits are acknowledged, or in a map on disk."""

from __future__ import annotations

import numpy as np
import pytest

from pydbt.core.primary.events import KeepLeftOut, Persist, Persisted, ScanUsed, TakeQuiet, ZeroQuiet
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.quiet_bitmap import (
    PERSIST_RETRY_S,
    RETIRE_INTERVAL_S,
    Bits,
    FindingUsed,
    QuietBitmap,
    TakingBitmap,
    WritingLeftOut,
    WritingMap,
)
from pydbt.core.primary.state import State
from tests.core.primary.parts import lines, runs, state_of, taken_effects, write


def quiet_of(mode: Mode = Mode.NORMAL, **settings: object) -> tuple[State, QuietBitmap]:
    state = state_of(mode=mode, **settings)
    return state, QuietBitmap(state, 0.0)


def flipped(state: State, quiet: QuietBitmap, now: float = 0.0) -> None:
    """In normal mode: a write, and the flip that follows it."""
    write(state, 3)
    quiet.retire(now)
    assert taken_effects(state) == [TakeQuiet(flip=True)] and quiet.request == TakingBitmap()
    quiet.taken(asked=True, in_log=True)


def test_in_normal_mode_the_bitmaps_flip_at_intervals_and_only_when_something_was_written() -> None:
    state, quiet = quiet_of()
    quiet.retire(0.0)
    assert not taken_effects(state) and quiet.next_retire == RETIRE_INTERVAL_S
    write(state, 3)
    quiet.retire(1.0)
    assert not taken_effects(state)
    quiet.retire(RETIRE_INTERVAL_S)
    assert taken_effects(state) == [TakeQuiet(flip=True)]


def test_before_an_end_they_also_flip_when_only_completions_have_set_bits() -> None:
    state, quiet = quiet_of()
    quiet.retire_every_bit(1.0)
    quiet.retire(1.0)
    assert taken_effects(state) == [TakeQuiet(flip=True)]
    quiet.taken(asked=True, in_log=True)
    quiet.retire(1.0)
    assert quiet.bits is None
    quiet.retire(1.0 + RETIRE_INTERVAL_S)
    assert TakeQuiet(flip=True) not in taken_effects(state), "once"


def test_bits_that_the_log_has_are_given_up_with_their_acknowledgement_and_not_before() -> None:
    state, quiet = quiet_of()
    flipped(state, quiet)
    assert quiet.bits == Bits(retire_at=1) and quiet.idle
    quiet.retire(0.1)
    assert not taken_effects(state)
    state.acknowledged = 1
    quiet.retire(0.1)
    assert taken_effects(state) == [ZeroQuiet()] and quiet.bits is None


def test_with_unsettled_blocks_the_map_is_written_first() -> None:
    state, quiet = quiet_of()
    flipped(state, quiet)
    state.acknowledged = 1
    state.unsettled.add(np.array([3]), 1, 0.0)
    quiet.retire(0.1)
    assert taken_effects(state) == [Persist(zero_quiet=True)] and quiet.request == WritingMap(1)
    assert quiet.written(Persisted(number=quiet.writes, zeroed=True), 0.1)
    assert quiet.bits is None and quiet.idle


def left_out_and_written(block: int) -> tuple[State, QuietBitmap]:
    """In normal mode: a block that was left out is written, the bitmaps are flipped, and the write is acknowledged."""
    state, quiet = quiet_of()
    state.left_out.add(runs((0, 8)))
    write(state, block)
    quiet.retire(0.0)
    assert taken_effects(state) == [TakeQuiet(flip=True)]
    quiet.taken(asked=True, in_log=True)
    state.acknowledged = state.sequence
    return state, quiet


def test_a_bit_of_free_space_that_was_written_is_kept_until_it_is_on_disk_that_it_is_no_longer_left_out() -> None:
    state, quiet = left_out_and_written(3)
    quiet.retire(0.1)
    assert taken_effects(state) == [KeepLeftOut()] and isinstance(quiet.request, WritingLeftOut)
    quiet.retire(0.1)
    assert not taken_effects(state) and quiet.bits is not None
    write(state, 4)  # of a later flip
    quiet.left_out_kept("", 0.2)
    quiet.retire(0.2)
    assert taken_effects(state) == [ZeroQuiet()] and quiet.bits is None
    assert state.left_out.unsaved, "the later flip is to be answered as well"


def test_what_was_left_out_is_kept_once_more_for_bits_that_come_with_the_flip_of_another_meanwhile() -> None:
    state, quiet = left_out_and_written(3)
    quiet.retire(0.1)
    assert taken_effects(state) == [KeepLeftOut()]
    write(state, 4)
    quiet.taken(asked=False, in_log=True)
    state.acknowledged = state.sequence
    quiet.left_out_kept("", 0.2)
    quiet.retire(0.2)
    assert taken_effects(state) == [KeepLeftOut()], (
        "block 4 is left out on disk, and the kernel's bit alone tells of it"
    )
    quiet.left_out_kept("", 0.3)
    quiet.retire(0.3)
    assert taken_effects(state) == [ZeroQuiet()] and quiet.bits is None


def test_where_it_cannot_be_written_the_bits_stay_and_it_is_tried_again() -> None:
    state, quiet = left_out_and_written(3)
    quiet.retire(0.1)
    taken_effects(state)
    quiet.left_out_kept("no space left on device", 0.2)
    assert quiet.error and lines(state, "error")
    quiet.retire(0.3)
    assert not taken_effects(state) and quiet.bits is not None
    quiet.retire(0.2 + PERSIST_RETRY_S)
    assert taken_effects(state) == [KeepLeftOut()]
    quiet.left_out_kept("", 0.2 + PERSIST_RETRY_S)
    quiet.retire(0.3 + PERSIST_RETRY_S)
    assert ZeroQuiet() in taken_effects(state) and not quiet.error


def test_a_map_has_with_it_what_was_left_out_and_one_that_covers_for_others_is_not_relied_on() -> None:
    state, quiet = left_out_and_written(3)
    quiet.cover()
    assert state.left_out.unsaved
    quiet.persist(zero_quiet=True)
    assert not state.left_out.unsaved
    quiet.written(Persisted(number=quiet.writes, zeroed=False, error="no space left on device"), 0.2)
    assert state.left_out.unsaved
    quiet.bits = None
    quiet.keep_left_out()
    quiet.left_out_kept("", 9.0)
    assert quiet.idle and quiet.bits is None


def test_bits_that_no_log_has_wait_for_a_map_on_disk() -> None:
    state, quiet = quiet_of(Mode.RESYNCHRONIZING, quiet_held=True)
    quiet.take()
    assert taken_effects(state) == [TakeQuiet(flip=False)], "those from before come first"
    quiet.taken(asked=True, in_log=False)
    assert quiet.bits == Bits(retire_at=None) and not quiet.idle
    quiet.persist(zero_quiet=True)
    assert quiet.written(Persisted(number=quiet.writes, zeroed=True), 0.0) and quiet.bits is None


def test_a_flip_for_another_secondary_is_taken_and_tells_nothing_of_a_pass_of_this_one() -> None:
    _, quiet = quiet_of(Mode.RESYNCHRONIZING)
    quiet.taken(asked=False, in_log=False)
    quiet.persist(zero_quiet=True)
    assert not quiet.written(Persisted(number=quiet.writes, zeroed=True), 0.0) and quiet.bits is None


def test_a_flip_for_another_secondary_leaves_its_own_request_open_in_normal_mode() -> None:
    state, quiet = quiet_of()
    write(state, 3)
    quiet.retire(0.0)
    quiet.taken(asked=False, in_log=True)
    assert quiet.request == TakingBitmap() and quiet.bits == Bits(retire_at=1, asked=False)


def test_a_map_that_could_not_be_written_is_tried_again_later_and_told_once() -> None:
    state, quiet = quiet_of()
    quiet.bits = Bits()
    quiet.persist(zero_quiet=True)
    for now in (0.0, 0.1):
        assert not quiet.written(Persisted(zeroed=False, error="no space left", number=quiet.writes), now)
    assert len(lines(state, "error")) == 1 and quiet.error == "no space left" and quiet.idle
    assert quiet.bits == Bits(retire_at=0), "in normal mode an acknowledgement does as well"
    assert not quiet.at_rest(PERSIST_RETRY_S) and quiet.at_rest(PERSIST_RETRY_S + 0.1)
    assert not quiet.written(Persisted(zeroed=False), 6.0), "progress, which gives nothing up"
    assert not quiet.error


def test_outside_of_normal_mode_no_acknowledgement_covers_the_bits_of_a_map_that_failed() -> None:
    _, quiet = quiet_of(Mode.RESYNCHRONIZING)
    quiet.bits = Bits()
    quiet.written(Persisted(zeroed=False, error="no space left"), 0.0)
    assert quiet.bits == Bits(retire_at=None)


def test_a_map_that_covers_for_a_slow_secondary_has_the_log_in_it_until_that_is_acknowledged() -> None:
    state, quiet = quiet_of()
    flipped(state, quiet)
    quiet.persist(zero_quiet=False)
    assert quiet.cover() == Persist(zero_quiet=True, cover=True) and quiet.maps_unacknowledged
    assert not quiet.written(Persisted(number=quiet.writes, zeroed=True, cover=True), 0.0), "no pass was waiting for it"
    assert quiet.bits is None and quiet.request == WritingMap(1), "its own request is still open"
    state.acknowledged = 1
    assert not quiet.maps_unacknowledged


@pytest.mark.parametrize("retire_at", [None, 4])
def test_after_a_landing_the_map_is_written_and_bits_of_another_secondarys_flip_wait_for_the_log(retire_at) -> None:
    state, quiet = quiet_of()
    quiet.bits = Bits(retire_at)
    quiet.enter_normal(10.0)
    assert taken_effects(state) == [Persist(zero_quiet=retire_at is None)]
    assert quiet.next_retire == 10.0 + RETIRE_INTERVAL_S


def test_when_replication_halts_nothing_is_acknowledged_any_more() -> None:
    _, quiet = quiet_of()
    quiet.halt()
    quiet.bits = Bits(retire_at=3)
    quiet.halt()
    assert quiet.bits == Bits(retire_at=None)


def test_the_landing_may_leave_the_bits_for_a_later_pass() -> None:
    state, quiet = quiet_of(Mode.SNAPSHOTS)
    quiet.take()
    quiet.taken(asked=True, in_log=False)
    quiet.set_aside()
    assert quiet.idle and quiet.bits is not None
    quiet.scan(whole=True)
    assert taken_effects(state)[-1] == ScanUsed(True) and quiet.request == FindingUsed()


def test_a_map_that_was_written_before_a_flip_gives_up_none_of_its_bits() -> None:
    _, quiet = quiet_of(Mode.RESYNCHRONIZING)
    quiet.taken(asked=False, in_log=False)
    quiet.persist(zero_quiet=True)
    earlier = quiet.writes
    quiet.taken(asked=False, in_log=False)
    quiet.persist(zero_quiet=True)
    assert not quiet.written(Persisted(zeroed=True, number=earlier), 0.0)
    assert quiet.bits is not None, "the second flip's bits are in the second map alone"
    assert not quiet.written(Persisted(zeroed=True, number=quiet.writes), 0.0), "both flips were other secondaries'"
    assert quiet.bits is None


def test_its_own_flip_gets_to_disk_with_the_bits_of_another_secondarys_flip() -> None:
    _, quiet = quiet_of(Mode.RESYNCHRONIZING)
    quiet.take()
    quiet.taken(asked=True, in_log=False)
    quiet.persist(zero_quiet=True)
    earlier = quiet.writes
    quiet.taken(asked=False, in_log=False)
    quiet.persist(zero_quiet=True)
    assert not quiet.written(Persisted(zeroed=True, number=earlier), 0.0)
    assert quiet.written(Persisted(zeroed=True, number=quiet.writes), 0.0), "its pass may begin"


def test_an_earlier_write_s_answer_leaves_a_later_request_open() -> None:
    _, quiet = quiet_of()
    quiet.persist(zero_quiet=False)
    earlier = quiet.writes
    quiet.take()
    assert not quiet.written(Persisted(zeroed=False, number=earlier), 0.0) and quiet.request == TakingBitmap()
    quiet.taken(asked=True, in_log=False)
    quiet.persist(zero_quiet=True)
    quiet.persist(zero_quiet=False)
    assert quiet.written(Persisted(zeroed=True, number=quiet.writes - 1), 0.0) and not quiet.idle, (
        "the last one is on its way"
    )
    quiet.written(Persisted(zeroed=False, number=quiet.writes), 0.0)
    assert quiet.idle


def test_the_answer_to_a_write_that_was_put_aside_ends_no_later_request() -> None:
    state, quiet = left_out_and_written(3)
    quiet.retire(0.1)
    assert isinstance(quiet.request, WritingLeftOut)
    quiet.persist(zero_quiet=False)
    quiet.left_out_kept("", 0.2)
    assert quiet.request == WritingMap(quiet.writes), "the map is still on its way"
    quiet.written(Persisted(zeroed=False, number=quiet.writes, error="no space left on device"), 0.3)
    assert quiet.idle and state.left_out.unsaved
