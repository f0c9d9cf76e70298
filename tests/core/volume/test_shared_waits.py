"""A wait for several secondaries is over when each of them has everything, or the first, as was asked."""

from __future__ import annotations

from pydbt.core.primary.events import WaitAsked
from pydbt.core.volume.shared_waits import SharedWaits


def waits(**asked: object) -> SharedWaits:
    """Somebody waits under token 7, of secondaries 1, 2 and 3."""
    shared = SharedWaits()
    shared.add(WaitAsked(7, 0, **asked), [1, 2, 3])
    return shared


def test_every_secondary_is_asked_unless_some_are_named() -> None:
    assert SharedWaits().add(WaitAsked(7, 0), [1, 2, 3]) == [1, 2, 3]
    assert SharedWaits().add(WaitAsked(7, 0, peers=(2, 9)), [1, 2, 3]) == [2]


def test_a_wait_is_over_with_the_last_answer() -> None:
    shared = waits()
    assert shared.answered(7, 2) is None and shared.answered(7, 1) is None
    assert shared.answered(7, 3) == []
    assert shared.answered(7, 3) is None, "it is answered once"


def test_the_first_answer_is_enough_where_that_was_asked_and_the_others_need_not_answer() -> None:
    assert waits(first=True).answered(7, 2) == [1, 3]


def test_a_secondary_that_lacks_a_block_for_good_ends_a_wait_for_all() -> None:
    shared = waits()
    assert shared.answered(7, 1) is None
    assert shared.lacks(7, 2) == [2, 3]
    assert shared.lacks(7, 3) is None and shared.answered(7, 3) is None, "it is answered once"


def test_a_wait_for_the_first_ends_when_every_secondary_lacks_something() -> None:
    shared = waits(first=True)
    assert shared.lacks(7, 1) is None and shared.lacks(7, 1) is None and shared.lacks(7, 2) is None
    assert shared.lacks(7, 3) == [1, 2, 3]
    shared = waits(first=True)
    assert shared.lacks(7, 1) is None
    assert shared.answered(7, 1) == [2, 3], "it got them after all"


def test_a_wait_for_the_first_ends_when_all_others_are_removed() -> None:
    shared = waits(first=True)
    assert shared.lacks(7, 1) is None
    assert shared.forget(2) == [] and shared.forget(3) == [(7, 1)]


def test_nobody_hears_of_a_wait_that_was_given_up() -> None:
    shared = waits()
    shared.drop(7)
    shared.drop(7)
    assert [shared.answered(7, peer) for peer in (1, 2, 3)] == [None, None, None]


def test_a_removed_secondary_ends_the_waits_that_waited_for_it_alone() -> None:
    shared = waits(peers=(1, 2))
    assert shared.forget(1) == [] and shared.forget(3) == []
    assert shared.forget(2) == [(7, None)]
    assert shared.forget(2) == []


def test_a_lost_transaction_ends_a_wait_for_all_and_a_wait_for_the_first() -> None:
    for first in (False, True):
        shared = waits(first=first)
        assert shared.lost(7) == [1, 2, 3]
        assert shared.lost(7) == [] and shared.answered(7, 1) is None, "it is answered once"
