"""Marks of a volume with several secondaries, of this version and of earlier ones: one place between the same two batches."""

from __future__ import annotations

from pydbt.core.primary import events as ev
from pydbt.core.primary.mark_events import AnswerMark, MarkAsked, MarkOutcome, MarkWaitAsked, WantedMark
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.frames import Ack
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.tracking.capture_record import RecordKind
from pydbt.core.volume.fanout import Addressed, Fanout
from tests.core.primary.parts import records
from tests.core.volume.test_fanout import brain_of

WANTED = WantedMark(9, "before migration 14", 1, 2, synced=True)


def volume(*, older: tuple[int, ...] = ()) -> Fanout:
    """Two secondaries in mode normal; of an earlier version are those in ``older``."""
    made = Fanout(1 << 20, quiet_held=False)
    for number in (1, 2):
        brain = brain_of(number)
        made.add(number, brain)
        brain.state.mode, brain.state.payload_on = Mode.NORMAL, True
        brain.state.in_flight.trust()
        brain.state.replica.keeps_history = number not in older
        brain.link.connected(0.0)
    return made


def frames(effects: list[Addressed]) -> dict[int | None, list[object]]:
    found: dict[int | None, list[object]] = {}
    for number, effect in effects:
        match effect:
            case ev.SendFrame(frame=NamedMark() as mark):
                found.setdefault(number, []).append(mark.sequence)
            case ev.SendStream(first_sequence=first):
                found.setdefault(number, []).append(("write", first))
    return found


def answers(effects: list[Addressed]) -> list[Addressed]:
    return [(number, effect) for number, effect in effects if isinstance(effect, AnswerMark)]


def captured(made: Fanout, *blocks: int, position: int) -> list[Addressed]:
    rows = [row for block in blocks for row in ((RecordKind.SUBMIT, block), (RecordKind.COMPLETE, block))]
    return made.handle(ev.Captured(records(*rows), position, 0), 0.0)


def test_each_secondary_gets_a_mark_behind_the_same_write_and_it_is_held_when_both_acknowledge() -> None:
    made = volume()
    captured(made, 3, position=64)
    assert frames(made.handle(MarkAsked(1, WANTED), 0.0)) == {1: [2], 2: [2]}
    assert frames(captured(made, 4, position=128)) == {1: [("write", 3)], 2: [("write", 3)]}
    assert not answers(made.handle(ev.Received(Ack(2, replica_state=3)), 0.0, 1))
    assert answers(made.handle(ev.Received(Ack(2, replica_state=3)), 0.0, 2)) == [
        (None, AnswerMark(1, MarkOutcome.HELD, 9))
    ]
    assert answers(made.handle(MarkWaitAsked(2, WANTED.name), 0.0)) == [(None, AnswerMark(2, MarkOutcome.HELD, 9))]


def test_a_secondary_of_an_earlier_version_is_sent_none_and_the_answer_names_it() -> None:
    made = volume(older=(2,))
    effects = made.handle(MarkAsked(1, WANTED, patient=True), 0.0)
    ((number, answer),) = answers(effects)
    assert number == 2 and isinstance(answer, AnswerMark) and answer.outcome is MarkOutcome.REFUSED
    assert "earlier version" in answer.why and not frames(effects)
    assert frames(made.handle(MarkAsked(2, WANTED, first=True), 0.0)) == {1: [1]}


def test_a_secondary_that_leaves_before_its_acknowledgement_is_told_and_a_client_that_gave_up_is_not() -> None:
    made = volume()
    made.handle(MarkAsked(1, WANTED), 0.0)
    effects = made.handle(ev.Disconnected("cable"), 0.0, 2)
    assert answers(effects) == [(2, AnswerMark(1, MarkOutcome.DOUBTFUL, 9))]
    made.handle(MarkAsked(3, WANTED, peers=(2,), patient=True), 0.0)
    assert not answers(made.handle(ev.WaitGone(3), 0.0)) and made.deadline() < float("inf")
