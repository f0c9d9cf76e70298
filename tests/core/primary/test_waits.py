"""Waits are over when their writes are durable and settled."""

from __future__ import annotations

from pydbt.core.primary.waits import Waits


def test_a_wait_is_over_only_when_its_position_is_known_and_its_writes_are_durable_and_settled():
    waits = Waits()
    waits.add(1, position=100)
    assert waits.done(acknowledged=50, oldest_unsettled=None) == []
    waits.reached(99, sequence=9)
    assert waits.done(50, None) == []
    waits.reached(100, sequence=10)
    assert waits.done(9, None) == []
    assert waits.done(10, oldest_unsettled=10) == []
    assert waits.done(10, oldest_unsettled=11) == [1] and waits
    waits.drop(1)
    waits.drop(1)
    assert not waits
