"""Rates are of the last seconds; a ledger is bounded, and nothing leaves it."""

from __future__ import annotations

import pytest

from pydbt.core.seen.writers.ledger import WRITER_RATE_S, Ledger
from pydbt.core.seen.writers.reading import Amount


def rates(ledger: Ledger[str]) -> dict[str | None, tuple[float, float]]:
    return {row.subject: (row.dirtied_rate, row.written_rate) for row in ledger.rows(99)}


def test_a_rate_is_that_of_the_last_seconds_and_ends() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.add("tar", Amount(200, 100), False)
    ledger.turn(1.0)
    assert rates(ledger) == {"tar": (200, 100)}
    ledger.turn(1.0)
    assert rates(ledger) == {"tar": (100, 50)}
    for _ in range(int(WRITER_RATE_S)):
        ledger.turn(1.0)
    assert rates(ledger) == {"tar": (0, 0)}


def test_before_the_first_turn_there_is_no_rate() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.add("tar", Amount(200, 100), False)
    assert rates(ledger) == {"tar": (0, 0)}


def test_subjects_that_write_most_now_come_first_and_the_others_are_one_row() -> None:
    ledger: Ledger[str] = Ledger()
    for name, written in (("old", 900), ("older", 800)):
        ledger.add(name, Amount(0, written), False)
    for _ in range(7):
        ledger.turn(1.0)
    ledger.add("new", Amount(0, 10), True)
    ledger.turn(1.0)
    assert [row.subject for row in ledger.rows(2)] == ["new", "old", None]
    assert ledger.rows(2)[-1].written == 800
    assert [row.subject for row in ledger.rows(3)] == ["new", "old", "older"]


def test_the_subject_written_longest_ago_joins_the_others_and_its_bytes_stay() -> None:
    ledger: Ledger[int] = Ledger(entries_max=3)
    for number in range(10):
        ledger.add(number, Amount(2, 1), True)
        ledger.add(0, Amount(2, 1), True)
        ledger.turn(1.0)
    rows = ledger.rows(99)
    assert {row.subject for row in rows} == {0, 8, 9, None}
    assert (sum(row.dirtied for row in rows), sum(row.written for row in rows)) == (40, 20)
    assert sum(row.out_of_normal for row in rows) == 20
    ledger.back_to_normal()
    assert sum(row.out_of_normal for row in ledger.rows(99)) == 0


@pytest.mark.parametrize("seconds", [0.5, 2.0, 30.0])
def test_rates_count_with_the_length_of_a_turn(seconds: float) -> None:
    ledger: Ledger[str] = Ledger()
    ledger.add("tar", Amount(0, 60), False)
    ledger.turn(seconds)
    assert rates(ledger)["tar"] == (0, 60 / seconds)
