"""Stories of a change of places that is cut off: worlds in which nobody takes the place are too rare."""

from __future__ import annotations

from collections.abc import Callable

from pydbt.core.protocol import frames as f
from pydbt.core.secondary import events as e
from pydbt.core.secondary.open_handover import HandoverStage
from tests.core.secondary.test_open_handover import Side, kinds
from tests.core.secondary.test_takeover import ASK, FINAL


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


STORIES: dict[str, Callable[[], None]] = {
    "who is asked to take over does not write that down": who_is_asked_to_take_over_can_tell_it_after_a_kill,
    "the last word of a primary counts as one that goes on": the_last_word_of_a_primary_leaves_the_question_open,
}
