"""A row of the table says what was measured, and whether the bar is reached: at least, or at most."""

from __future__ import annotations

import json

import pytest

from tests.lab.figures.report import figure, ratios, table


@pytest.mark.parametrize(
    ("values", "at_least", "verdict"),
    [
        ([20.0, 19.0, 30.0], True, "reached"),
        ([19.9, 19.0, 30.0], True, "FELL SHORT"),
        ([1.0, 1.03, 9.0], False, "reached"),
        ([1.0, 1.04, 9.0], False, "FELL SHORT"),
    ],
)
def test_the_median_decides_and_a_bar_that_is_met_exactly_is_reached(
    values: list[float], at_least: bool, verdict: str
) -> None:
    bar = 20.0 if at_least else 1.03
    row = figure("name", "what", "measured", "x", values, bar=bar, at_least=at_least)
    assert row.verdict == verdict
    assert (row.lowest, row.highest, row.repetitions) == (min(values), max(values), 3)


def test_pairs_are_compared_with_their_own_neighbour() -> None:
    # Twice as fast in every pair, though the second pair ran on a machine ten times slower.
    assert ratios([200.0, 20.0], [100.0, 10.0]) == [2.0, 2.0]


def test_a_row_for_information_has_no_verdict_and_everything_is_in_the_table_and_the_json() -> None:
    row = figure("name", "what it is", "5 : 1", "MiB", [1.5])
    assert row.verdict == "-"
    assert "what it is" in table([row]) and "1.500 MiB" in table([row]) and "one run" in table([row])
    assert json.loads(json.dumps(row.as_dict()))["value"] == 1.5
