"""A frame for a secondary waits for the write of the state that it rests on, and nothing else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.volume.saves import Resting, Saves, Withheld


def test_a_write_that_ends_well_has_what_an_earlier_one_that_failed_was_asked_for() -> None:
    saves = Saves()
    assert (saves.ask(), saves.ask()) == (1, 2)
    saves.ended(1, well=False)
    assert saves.durable == 0
    saves.ended(2, well=True)
    assert saves.durable == 2


def test_nothing_of_one_that_failed_is_durable() -> None:
    saves = Saves()
    saves.ended(saves.ask(), well=True)
    saves.ended(saves.ask(), well=False)
    assert saves.durable == 1


def test_a_frame_that_rests_on_no_write_goes_at_once() -> None:
    held, done = Withheld(), list[str]()
    held.give(lambda: done.append("ping"))
    held.rest_on(1)
    assert held.waits
    held.saved(1)
    held.give(lambda: done.append("pong"))
    assert done == ["ping", "pong"] and not held.waits


def test_a_frame_that_rests_on_a_write_waits_for_it_and_no_later_frame_is_sent_earlier() -> None:
    held, done = Withheld(), list[str]()
    held.rest_on(3)
    held.give(lambda: done.append("name"), 10)
    held.give(lambda: done.append("write"), 5)
    held.saved(2)
    assert not done and held.bytes == 15
    held.rest_on(4)
    held.give(lambda: done.append("next name"), 1)
    held.saved(3)
    assert done == ["name", "write"] and held.bytes == 1 and held.waits
    held.saved(4)
    assert done == ["name", "write", "next name"] and held.bytes == 0


def test_an_action_that_was_held_back_may_give_another_that_waits_again() -> None:
    held, done = Withheld(), list[str]()
    held.rest_on(1)
    held.give(lambda: held.rest_on(2))
    held.give(lambda: held.give(lambda: done.append("later")))
    held.saved(1)
    assert not done
    held.saved(2)
    assert done == ["later"]


def test_a_frame_for_a_connection_that_is_lost_is_not_sent_on_the_next_one() -> None:
    held, done = Withheld(), list[str]()
    held.rest_on(1)
    held.give(lambda: done.append("of the old connection"), 7)
    held.drop()
    held.give(lambda: done.append("of the new one"))
    assert held.bytes == 0 and not done
    held.saved(1)
    assert done == ["of the new one"]


@given(st.lists(st.sampled_from(("name", "frame", "saved", "failed")), max_size=60))
def test_everything_is_sent_in_its_order_and_never_before_what_it_tells_of_is_durable(steps: list[str]) -> None:
    saves, held = Saves(), Withheld()
    sent: list[int] = []
    given_at: list[int] = []
    open_saves: list[int] = []
    newest = 0

    def act(place: int, rests_on: int) -> None:
        assert rests_on <= saves.durable
        sent.append(place)

    for step in steps:
        if step == "name":
            newest = saves.ask()
            open_saves.append(newest)
            held.rest_on(newest)
        elif step == "frame":
            place, rests_on = len(given_at), newest
            given_at.append(rests_on)
            held.give(lambda place=place, rests_on=rests_on: act(place, rests_on))  # type: ignore[misc]
        elif open_saves:
            number = open_saves.pop(0)
            saves.ended(number, well=step == "saved")
            if step == "saved":
                held.saved(saves.durable)
    saves.ended(saves.ask(), well=True)
    held.saved(saves.durable)
    assert sent == list(range(len(given_at)))


def test_an_answer_that_rests_on_a_write_is_given_once_and_also_after_a_later_write_that_ends_well() -> None:
    resting = Resting()
    resting.rest(2, 1)
    resting.rest(2, 2)
    resting.rest(4, 3)
    assert resting.take(1) == []
    assert resting.take(3) == [1, 2] and resting.take(3) == []
    assert resting.take(5) == [3]
