"""Peers that are turned away: nobody hides the line about another, and nobody floods the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.secondary.turned_away import (
    INTERVAL_S,
    MAX_PROVEN_REASONS,
    MAX_STRANGER_REASONS,
    TurnedAwayLines,
)


def test_a_reason_has_one_line_per_minute_and_the_next_line_counts_what_had_none() -> None:
    lines = TurnedAwayLines()
    assert [lines.line("", "no frame", now) for now in (0.0, 1.0, 59.9)] == [0, None, None]
    assert lines.line("", "no frame", INTERVAL_S) == 2
    assert lines.line("", "no frame", 2 * INTERVAL_S) == 0


def test_strangers_who_come_all_the_time_hide_neither_a_proven_machine_nor_another_reason() -> None:
    lines = TurnedAwayLines()
    for number in range(1000):
        lines.line("", f"reason {number}", 0.0)
    assert lines.line("alpha", "other-key", 0.0) == 0
    assert lines.line("alpha", "revoked", 0.0) == 0, "each reason has its own"
    assert lines.line("beta", "other-key", 0.0) == 0, "each machine has its own"
    assert lines.line("alpha", "other-key", 1.0) is None


def test_proven_machines_hide_no_stranger() -> None:
    lines = TurnedAwayLines()
    for number in range(1000):
        lines.line(f"m{number}", "other-name", 0.0)
    assert lines.line("", "no frame", 0.0) == 0


def test_reasons_whose_minute_is_over_make_room_for_others() -> None:
    lines = TurnedAwayLines()
    for number in range(MAX_STRANGER_REASONS):
        assert lines.line("", f"reason {number}", 0.0) == 0
    assert lines.line("", "one more", 1.0) == 0 and lines.line("", "yet another", 2.0) is None, "they share one"
    assert lines.line("", "a new one", INTERVAL_S) == 0 and len(lines._strangers) == 2
    assert lines.line("", "reason 1", INTERVAL_S) == 0, "it begins anew"


PEERS = st.tuples(st.sampled_from(["", "", "alpha", "beta"]) | st.text(max_size=3), st.text(max_size=2) | st.just("x"))


@given(st.lists(st.tuples(PEERS, st.floats(0, 20)), max_size=400))
def test_lines_and_memory_are_bounded_whoever_comes(comers: list[tuple[tuple[str, str], float]]) -> None:
    lines, now = TurnedAwayLines(), 0.0
    written: list[float] = []
    for (name, reason), pause in comers:
        now += pause
        if lines.line(name, reason, now) is not None:
            written.append(now)
        most = MAX_STRANGER_REASONS + MAX_PROVEN_REASONS + 2
        assert len(lines._strangers) + len(lines._proven) <= most
        assert sum(at > now - INTERVAL_S for at in written) <= most


@given(st.integers(1, 200), st.integers(1, 5))
def test_nobody_is_left_out_of_the_count(crowd: int, minutes: int) -> None:
    lines = TurnedAwayLines()
    told = 0
    for minute in range(minutes):
        for _ in range(crowd):
            unlogged = lines.line("", "no frame", minute * INTERVAL_S)
            told += 0 if unlogged is None else 1 + unlogged
    assert told == crowd * (minutes - 1) + 1
