"""A better state counts when it is on the disk."""

from __future__ import annotations

from pydbt.core.primary import events as ev
from pydbt.core.primary.recognition import Recognition
from pydbt.core.primary.reported_state import told_position
from pydbt.core.primary.taints import Taints
from pydbt.core.primary.unwritten import Unwritten, WriteDown
from pydbt.core.protocol.heartbeat import OUT_OF_SYNC
from tests.core.primary.parts import state_of
from tests.core.primary.test_brain import Shell


def test_a_write_is_asked_for_once_and_counts_when_it_was_answered() -> None:
    unwritten = Unwritten()
    assert not unwritten.waits and unwritten.take() == []
    unwritten.add("one")
    assert unwritten.waits and unwritten.take() == [WriteDown(1)] and unwritten.take() == []
    assert unwritten.waits and unwritten.taints == ("one",)
    unwritten.written(1)
    assert not unwritten.waits and unwritten.taints == ()


def test_an_answer_that_comes_during_a_write_asks_for_another_write_and_none_counts_before_that() -> None:
    unwritten = Unwritten()
    unwritten.add("one")
    unwritten.take()
    unwritten.add("two")
    unwritten.written(1)
    assert unwritten.waits and unwritten.taints == ("one", "two"), "it may not say which of them are answered"
    assert unwritten.take() == [WriteDown(2)]
    unwritten.written(2)
    assert not unwritten.waits and unwritten.taints == ()


def test_a_taint_that_is_answered_is_told_until_that_is_written_and_one_that_came_up_again_stays() -> None:
    state = state_of(taints=("one", "two"))
    taints = Taints(state)
    taints.clear(state.taint_numbers)
    assert not state.taints and state.told_taints == ("one", "two")
    taints.add("two")
    assert state.told_taints == ("two", "one")
    state.unwritten.written(state.unwritten.take()[0].number)
    assert state.told_taints == ("two",)


def test_a_comparison_that_answers_nothing_is_not_to_be_written_down() -> None:
    state = state_of()
    Taints(state).clear((1,))
    assert not state.unwritten.waits


class Slow(Shell):
    """Its disk answers when ``written`` is called."""

    number = 0

    def answer(self, effect: ev.Effect) -> list[ev.Event]:
        if isinstance(effect, ev.WriteDown):
            self.number = effect.number
            return []
        return super().answer(effect)

    def written(self) -> list[ev.Effect]:
        return self.feed(ev.WrittenDown(self.number))


def test_until_the_first_image_is_written_down_no_wait_ends_and_nobody_calls_the_replica_up_to_date() -> None:
    shell = Slow()
    shell.connect()
    shell.feed(ev.WaitAsked(1, shell.position))
    assert shell.number and ev.AnswerWait(1) not in shell.done
    assert shell.done.index(ev.WriteDown(1)) > max(
        number for number, effect in enumerate(shell.done) if isinstance(effect, ev.RememberReplica)
    )
    state = shell.brain.state
    assert (
        not shell.brain.status(0.0).fresh
        and told_position(state, repairing=False, answered_at=0.0, now=0.0) == OUT_OF_SYNC
    )
    assert ev.AnswerWait(1) in shell.written()
    assert (
        shell.brain.status(0.0).fresh
        and told_position(state, repairing=False, answered_at=0.0, now=0.0) == state.sequence
    )


def test_the_image_of_a_replica_in_sync_waits_for_no_disk_and_that_of_a_doubtful_one_does() -> None:
    state = state_of()
    recognition = Recognition(state)
    recognition.landed("up-to-date")
    assert not state.unwritten.waits
    state.replica.initial = True
    recognition.landed("up-to-date")
    assert state.unwritten.waits and not state.replica.initial
