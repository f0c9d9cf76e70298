"""A wait is answered when everything is on the secondary, and fails when that cannot come to be by itself."""

from __future__ import annotations

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.events import AnswerWait, WaitAsked
from pydbt.core.primary.file_system_transactions import FileSystemTransactions
from pydbt.core.primary.flight_watch import FlightWatch
from pydbt.core.primary.lost_commits import FAILED
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.primary.stream_landing import StreamLanding
from pydbt.core.primary.wait_answers import WaitAnswers
from pydbt.core.transactions.asked_transaction import AskedTransaction
from tests.core.primary.parts import state_of, taken_effects


class Story:
    """A stream that has everything up to 3, for which nobody and nothing waits."""

    def __init__(self, mode: Mode = Mode.NORMAL) -> None:
        self.state = state_of(mode=mode)
        self.landing = StreamLanding(self.state, FlightWatch(self.state, 0.0))
        self.transactions = FileSystemTransactions(self.state)
        self.answers = WaitAnswers(self.state, self.landing, self.transactions)
        self.state.acknowledged = self.state.sequence = 3

    def ask(self, *, patient: bool) -> None:
        self.answers.asked(WaitAsked(1, 0, patient=patient))
        self.landing.note_sequence()

    def answered(self) -> list[AnswerWait]:
        self.answers.answer()
        return [effect for effect in taken_effects(self.state) if isinstance(effect, AnswerWait)]


GOOD, LACKS = [AnswerWait(1)], [AnswerWait(1, lacks=True)]


@pytest.mark.parametrize("patient", [True, False])
def test_a_wait_is_answered_once_and_then_nobody_waits(patient: bool) -> None:
    story = Story()
    story.ask(patient=patient)
    assert story.landing.waited_for
    assert story.answered() == GOOD and story.answered() == []
    assert not story.landing.waited_for


@pytest.mark.parametrize("patient", [True, False])
def test_blocks_that_the_source_cannot_give_end_a_wait_also_when_it_has_time(patient: bool) -> None:
    story = Story()
    story.state.unreadable.add(np.array([4]), 0.0)
    story.ask(patient=patient)
    assert story.answered() == LACKS and story.answered() == []


def test_blocks_that_the_target_does_not_take_end_a_wait_unless_it_has_time() -> None:
    for patient, expected in ((True, []), (False, LACKS)):
        story = Story()
        story.state.replica.unwritable = Runs.of_blocks(np.array([4]))
        story.ask(patient=patient)
        assert story.answered() == expected and story.answered() == []
        story.state.replica.unwritable = Runs.none()
        assert story.answered() == GOOD, "the target took them"


def test_writes_that_are_still_on_their_way_are_waited_for_first() -> None:
    story = Story()
    story.state.unreadable.add(np.array([4]), 0.0)
    story.state.acknowledged = 2
    story.ask(patient=False)
    assert story.answered() == []
    story.state.acknowledged = 3
    assert story.answered() == LACKS


def test_no_wait_is_answered_outside_of_normal_mode_and_while_tainted() -> None:
    story = Story(Mode.UNSYNCHRONIZED)
    story.state.unreadable.add(np.array([4]), 0.0)
    story.ask(patient=False)
    assert story.answered() == []
    story.state.mode = Mode.NORMAL
    story.state.taints["something was missed"] = 1
    assert story.answered() == []


def test_a_secondary_that_refuses_the_volume_is_not_waited_for_and_one_that_rests_is() -> None:
    for mode, expected in ((Mode.REFUSED, LACKS), (Mode.PAUSED, [])):
        story = Story(mode)
        story.state.acknowledged = 0
        story.ask(patient=True)
        assert story.answered() == expected and story.answered() == []


def test_nobody_hears_of_one_that_is_gone_and_one_that_is_asked_again_is_new() -> None:
    story = Story()
    story.state.unreadable.add(np.array([4]), 0.0)
    story.ask(patient=True)
    story.answers.gone(1)
    story.answers.gone(1)
    assert story.answered() == []
    for _ in range(2):
        story.ask(patient=True)
        assert story.answered() == LACKS


def test_a_wait_for_a_transaction_lasts_until_that_one_or_a_later_one_is_held() -> None:
    story = Story()
    story.answers.asked(WaitAsked(1, 0, transaction=AskedTransaction.parse("48211")))
    story.landing.note_sequence()
    assert story.answered() == [], "everything is durable, and nothing is known of the transaction"
    story.transactions.held = NamedTransaction("48210", 48210, None, 0.0, 3, 1, 3)
    assert story.answered() == []
    story.transactions.held = NamedTransaction("48213", 48213, None, 0.0, 3, 2, 3)
    assert story.answered() == GOOD and story.answered() == []


def test_a_wait_for_a_transaction_that_was_lost_ends_with_the_reason_whatever_is_held() -> None:
    story, lost = Story(), story_transactions()
    story.transactions.lost.add(lost[0], FAILED)
    story.transactions.held = lost[1]
    story.answers.asked(WaitAsked(1, 0, transaction=AskedTransaction.parse("48211")))
    story.answers.asked(WaitAsked(2, 0, transaction=AskedTransaction.parse("48212")))
    story.landing.note_sequence()
    assert story.answered() == [AnswerWait(1, lost=FAILED), AnswerWait(2)] and story.answered() == []


def story_transactions() -> list[NamedTransaction]:
    return [NamedTransaction(str(48210 + one), 48210 + one, None, 0.0, 3, one, 3) for one in (1, 2)]


def test_a_wait_for_a_transaction_that_is_gone_holds_up_no_other_one() -> None:
    story = Story()
    story.answers.asked(WaitAsked(2, 0, transaction=AskedTransaction.parse("48211")))
    story.ask(patient=True)
    assert story.answered() == GOOD
    story.answers.gone(2)
    assert not story.landing.waited_for
