"""Logs that kernels wrote are changed at random: a moment of it in the gate, a minute in the full lane."""

from __future__ import annotations

from tests.core.transactions import fuzz
from tests.lab.rounds import ROUNDS


def test_changed_logs_raise_nothing_and_both_ways_tell_the_same() -> None:
    fuzz.main(60.0 if ROUNDS > 1 else 0.5, [])
