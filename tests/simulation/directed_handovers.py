"""Stories of a change of places that is cut off: worlds in which nobody takes the place are too rare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pydbt.core.protocol import frames as f
from pydbt.core.protocol.role import ASKS_ROLE
from pydbt.core.secondary import events as e
from pydbt.core.secondary.open_handover import HandoverStage
from pydbt.core.secondary.promotion import why_not_promote
from pydbt.core.secondary.replica import ReplicaState
from tests.core.secondary.test_open_handover import TAKEN_BACK, Side, kinds, withdrawing
from tests.core.secondary.test_takeover import ASK, FINAL, HELLO


def who_is_asked_to_take_over_can_tell_it_after_a_kill() -> None:
    """Its primary goes on as soon as it has the answer."""
    side = Side()
    side.connects()
    assert kinds(side.hears(ASK)) == [e.KeepHandover, e.Send], "written down, and then answered"
    assert side.stage is HandoverStage.ASKED


def the_last_word_of_a_primary_leaves_the_question_open() -> None:
    """This side is killed before it has taken the place, and the old primary waits as a replica."""
    side = Side()
    side.connects()
    side.hears(ASK)
    side.hears(f.Bye("stopping"))
    side.connects()
    side.hears(FINAL)
    assert side.stage is HandoverStage.ASKED


def a_question_that_is_taken_back_is_over() -> None:
    """The change of places was given up: a cut soon after it means nothing more than any other cut."""
    side = Side()
    withdrawing(side)
    side.hears(ASK)
    side.hears(TAKEN_BACK)
    assert side.stage is None


def a_change_of_places_that_takes_long_is_not_forgotten() -> None:
    """It drains for ten minutes. Then this side is killed, and its primary becomes a replica."""
    side = Side()
    withdrawing(side)
    side.hears(ASK)
    side.hears(f.Ping(1), 600.0)
    assert side.stage is HandoverStage.ASKED


def a_primary_that_asked_before_a_mount_counts_until_one_is_heard() -> None:
    """It was told that this side is a replica, so that it may be mounted and written by now, and no controller runs there yet."""
    side = Side()
    first, *_ = side._do(e.Connected(9, replace(HELLO, features=(*HELLO.features, ASKS_ROLE)), bytes(32)), 0.0)
    assert first == e.KeepGateQuestion(open=True), "written down before it is answered"
    side.watch.note_gate_question("2026-01-02T16:18:58+00:00")
    found = why_not_promote("/dev/vdb", ReplicaState.CONSISTENT, "", lives=False, gate_asked=side.watch.gate_asked)
    assert found is not None and found.may_be_forced
    side.connects()
    assert e.KeepGateQuestion(open=False) in side.hears(f.Ping(1))


STORIES: dict[str, Callable[[], None]] = {
    "a question that was taken back stays open": a_question_that_is_taken_back_is_over,
    "a change of places that takes long is forgotten": a_change_of_places_that_takes_long_is_not_forgotten,
    "who is asked to take over does not write that down": who_is_asked_to_take_over_can_tell_it_after_a_kill,
    "the last word of a primary counts as one that goes on": the_last_word_of_a_primary_leaves_the_question_open,
    "a primary that asks before a mount is forgotten": a_primary_that_asked_before_a_mount_counts_until_one_is_heard,
    "a primary that asked before a mount counts for ever": a_primary_that_asked_before_a_mount_counts_until_one_is_heard,
}
