"""An event survives its way over a socket, and what is no event is not taken for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.printable import printable
from pydbt.core.seen.events import Event

FIGURES = st.none() | st.booleans() | st.integers(0, 1 << 60) | st.floats(0, 1e9) | st.text().map(printable)


@given(st.integers(0, 1 << 50), st.text().map(printable), st.dictionaries(st.text(), FIGURES))
def test_an_event_survives_its_way_over_a_socket(number: int, words: str, figures: dict[str, int]) -> None:
    event = Event(number, "2026-01-01T00:00:00.000Z", "in-sync", words, figures)
    assert Event.from_values(json.loads(json.dumps(event.to_json()))) == event


@pytest.mark.parametrize(
    "values", [None, [], {}, {"number": True, "moment": "", "name": "", "words": ""}, {"number": 1, "name": "stopped"}]
)
def test_values_that_are_no_event_are_not_taken_for_one(values: object) -> None:
    assert Event.from_values(values) is None


def test_hostile_text_is_one_line_and_a_figure_that_is_none_is_null() -> None:
    values = {
        "number": 1,
        "moment": "now",
        "name": "stopped",
        "words": "a\nb\x1b[2J",
        "figures": {"s": float("nan"), "t": "\n"},
    }
    event = Event.from_values(values)
    assert event is not None and event.words == "a\\x0ab\\x1b[2J" and event.figures == {"s": None, "t": "\\x0a"}
