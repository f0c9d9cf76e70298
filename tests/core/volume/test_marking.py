"""The marks of a volume: one place for all secondaries, an answer for whoever asked, and nothing promised that is not known."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pydbt.core.primary.mark_events import (
    AnswerMark,
    MarkAsked,
    MarkComing,
    MarkOutcome,
    MarksTold,
    MarkWaitAsked,
    PlaceMark,
    Unable,
    WantedMark,
)
from pydbt.core.primary.marks import AWAITED_S
from pydbt.core.volume.marking import KNOWN_MARKS, Decision, Holding, Marking, Placed, after_a_clean_end

BUSY = Unable("it is in mode resynchronizing")


@dataclass
class Brain:
    """In the place of the marks of a brain."""

    unable: Unable | None = None
    certain: bool = True
    uncertain_bytes: int = 0
    is_sure: bool = True

    def problem(self) -> Unable | None:
        return self.unable


@dataclass
class Volume:
    brains: dict[int, Brain] = field(default_factory=lambda: {1: Brain(), 2: Brain()})
    marking: Marking = field(default_factory=Marking)

    def ask(self, token: int = 1, number: int = 9, **words: object) -> list[Decision]:
        mark = WantedMark(number, f"mark {number}", 1, 2, synced=True)
        self.marking.ask(MarkAsked(token, mark, **words), self.brains)  # type: ignore[arg-type]
        return self.advance()

    def wait(self, token: int = 5, name: str = "mark 9", **words: object) -> list[Decision]:
        self.marking.wait(MarkWaitAsked(token, name, **words), self.brains)  # type: ignore[arg-type]
        return self.advance()

    def advance(self, now: float = 0.0) -> list[Decision]:
        return self.marking.advance(self.brains, now)

    def held(self, peer: int, *numbers: int, all_of_them: bool = False) -> list[Decision]:
        self.marking.told(peer, MarksTold(numbers, all_of_them))
        return self.advance()

    def left(self, peer: int) -> list[Decision]:
        self.marking.left(peer)
        return self.advance()

    def stands(self, number: int = 9) -> dict[int, Holding]:
        return next(known.peers for known in self.marking.known if known.mark.number == number)


def test_a_mark_is_set_for_all_at_once_and_answered_when_all_hold_it() -> None:
    volume = Volume()
    (placed,) = volume.ask()
    assert isinstance(placed, Placed) and placed.peers == (1, 2) and isinstance(placed.event, PlaceMark)
    assert volume.held(1, 9) == []
    assert volume.held(2, 9) == [(None, AnswerMark(1, MarkOutcome.HELD, 9))]
    assert volume.stands() == {1: Holding.HELD, 2: Holding.HELD} and not volume.advance()


def test_the_first_holder_is_enough_with_any_and_secondaries_that_cannot_are_left_out() -> None:
    volume = Volume()
    volume.brains[1].unable = BUSY
    (placed,) = volume.ask(first=True)
    assert isinstance(placed, Placed) and placed.peers == (2,)
    assert volume.held(2, 9) == [(None, AnswerMark(1, MarkOutcome.HELD, 9))]
    (placed,) = Volume().ask(peers=(2,))
    assert isinstance(placed, Placed) and placed.peers == (2,)


def test_a_mark_outside_of_the_order_is_refused_or_waited_for_and_not_set_meanwhile() -> None:
    volume = Volume()
    volume.brains[2].unable = BUSY
    assert volume.ask() == [(2, AnswerMark(1, MarkOutcome.REFUSED, why=BUSY.why))]
    assert volume.ask(patient=True) == [] and not volume.marking.known
    volume.brains[2].unable = None
    (placed,) = volume.advance()
    assert isinstance(placed, Placed) and placed.peers == (1, 2)


def test_a_lasting_hindrance_is_not_waited_for() -> None:
    volume = Volume()
    volume.brains[1].unable, volume.brains[2].unable = BUSY, Unable("an earlier version", lasting=True)
    assert volume.ask(patient=True) == [(2, AnswerMark(1, MarkOutcome.REFUSED, why="an earlier version"))]
    volume = Volume()
    ((peer, answer),) = volume.ask(peers=(7,), patient=True)  # type: ignore[misc]
    assert peer is None and answer.outcome is MarkOutcome.REFUSED


def test_uncertain_blocks_are_settled_first_or_counted_after_a_while() -> None:
    volume = Volume()
    volume.brains[2].uncertain_bytes = 8192
    assert volume.ask() == [Placed((1, 2), MarkComing())]
    assert volume.advance(AWAITED_S / 2) == [] and volume.marking.deadline() == AWAITED_S
    volume.brains[2].uncertain_bytes = 0
    (placed,) = volume.advance(AWAITED_S / 2)
    assert isinstance(placed, Placed) and isinstance(placed.event, PlaceMark) and placed.event.uncertain_bytes == 0
    volume = Volume()
    volume.brains[2].uncertain_bytes = 8192
    volume.ask()
    (placed,) = volume.advance(AWAITED_S)
    assert isinstance(placed, Placed) and isinstance(placed.event, PlaceMark) and placed.event.uncertain_bytes == 8192
    assert volume.marking.known[-1].uncertain_bytes == 8192


def test_while_nobody_knows_what_is_in_flight_no_place_is_exact() -> None:
    volume = Volume()
    volume.brains[1].certain = False
    volume.ask()
    ((_, answer),) = volume.advance(AWAITED_S)  # type: ignore[misc]
    assert answer.outcome is MarkOutcome.REFUSED and "in flight" in answer.why
    volume.ask(patient=True)
    assert volume.advance(AWAITED_S) == []


def test_a_connection_that_is_lost_first_leaves_it_unknown_until_the_secondary_tells() -> None:
    volume = Volume()
    volume.ask()
    volume.held(1, 9)
    assert volume.left(2) == [(2, AnswerMark(1, MarkOutcome.DOUBTFUL, 9))]
    assert volume.wait() == [], "it may hold it: that is waited for"
    assert volume.held(2, 4, 9, all_of_them=True) == [(None, AnswerMark(5, MarkOutcome.HELD, 9))]


def test_a_secondary_that_tells_others_alone_does_not_hold_it_and_one_with_newer_ones_alone_may() -> None:
    volume = Volume()
    volume.ask()
    volume.left(2)
    assert volume.held(2, 12, 13, all_of_them=True) == [] and volume.stands()[2] is Holding.DOUBTFUL
    volume.wait()
    assert volume.held(2, 4, all_of_them=True) == [(2, AnswerMark(5, MarkOutcome.MISSED, 9))]
    volume = Volume()
    volume.ask()
    volume.left(1)
    volume.held(1, all_of_them=True)
    assert volume.stands() == {1: Holding.MISSED, 2: Holding.ON_THE_WAY}
    volume.held(2, 9)
    assert volume.wait(first=True) == [(None, AnswerMark(5, MarkOutcome.HELD, 9))]


def test_while_an_image_is_not_trusted_it_holds_no_mark_for_certain() -> None:
    volume = Volume()
    volume.ask()
    volume.held(1, 9)
    volume.held(2, 9)
    volume.brains[2].is_sure = False
    assert volume.wait() == [] and volume.wait(6, first=True) == [(None, AnswerMark(6, MarkOutcome.HELD, 9))]
    volume.brains[2].is_sure = True
    assert volume.advance() == [(None, AnswerMark(5, MarkOutcome.HELD, 9))]


def test_a_mark_that_was_set_before_a_loss_of_power_is_held_by_nobody_for_certain() -> None:
    volume = Volume()
    volume.marking.restore([], "first boot")
    volume.ask()
    volume.held(1, 9)
    volume.held(2, 9)
    values = volume.marking.to_values()
    for boot, outcome in (("first boot", MarkOutcome.HELD), ("second boot", MarkOutcome.BEFORE_BOOT)):
        volume.marking.restore(values, boot)
        volume.held(1, 9, all_of_them=True)
        assert volume.wait() == [(None, AnswerMark(5, outcome, 9))]


def test_a_wait_is_for_the_newest_of_its_name_and_an_unknown_one_is_told() -> None:
    volume = Volume()
    assert volume.wait() == [(None, AnswerMark(5, MarkOutcome.UNKNOWN))]
    volume.ask()
    volume.held(1, 9)
    volume.held(2, 9)
    assert volume.wait() == [(None, AnswerMark(5, MarkOutcome.HELD, 9))]
    assert volume.wait(token=6, peers=(2,)) == [(None, AnswerMark(6, MarkOutcome.HELD, 9))]


def test_a_client_that_gives_up_is_not_answered_and_its_mark_is_not_set_later() -> None:
    volume = Volume()
    volume.brains[1].unable = BUSY
    volume.ask(patient=True)
    volume.marking.drop(1)
    volume.brains[1].unable = None
    assert volume.advance() == []
    volume.ask()
    volume.marking.drop(1)
    volume.held(1, 9)
    assert volume.held(2, 9) == []


def test_a_secondary_that_is_removed_holds_nobody_up() -> None:
    volume = Volume()
    volume.ask()
    volume.held(1, 9)
    volume.marking.forget(2)
    assert volume.advance() == [(None, AnswerMark(1, MarkOutcome.HELD, 9))]
    volume.brains[2].unable = BUSY
    volume.ask(patient=True, number=10)
    volume.marking.forget(2)
    assert isinstance(volume.advance()[0], Placed)


def test_saved_marks_come_back_and_numbers_rise() -> None:
    volume = Volume()
    assert volume.marking.next_number == 1
    for number in range(1, KNOWN_MARKS + 3):
        volume.ask(token=number, number=number)
    volume.held(1, 5)
    again = Marking()
    again.restore(volume.marking.to_values(), "")
    assert len(again.known) == KNOWN_MARKS and again.next_number == KNOWN_MARKS + 3
    known = next(one for one in again.known if one.mark.number == 5)
    assert known.peers == {1: Holding.HELD, 2: Holding.DOUBTFUL}, "nobody knows of what was on its way"
    assert again.known[-1].mark == volume.marking.known[-1].mark


@pytest.mark.parametrize("values", [None, 7, [{}], [{"number": "x"}], ["a"], {"a": 1}])
def test_saved_marks_that_cannot_be_read_are_forgotten(values: object) -> None:
    marking = Marking()
    marking.restore(values, "")
    assert marking.known == ()


def test_marks_of_a_boot_that_ended_cleanly_are_of_this_one_and_others_stay() -> None:
    kept = after_a_clean_end([{"boot": "a", "name": "x"}, {"boot": "b"}, {}, "no mark"], "a", "c")
    assert kept == [{"boot": "c", "name": "x"}, {"boot": "b"}, {}, "no mark"]
    assert after_a_clean_end({"boot": "a"}, "a", "c") == {"boot": "a"}, "what is no list is refused by who reads it"
