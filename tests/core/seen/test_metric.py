"""A value is read out of a status as it is, or is absent: whatever a stranger or another version has put there."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.primary.statistics import UnsettledFigures
from pydbt.core.seen.metric import (
    LABEL_CHARACTERS_MAX,
    Buckets,
    Scraped,
    Values,
    each_of,
    figure,
    has_words,
    histogram,
    label_of,
    named_by,
    one_hot,
    timestamp,
    truth,
)
from pydbt.core.seen.metric_table import UNSETTLED_CAUSES, VOLUME_METRICS
from pydbt.core.seen.view import View

LATENCY = {"bounds_seconds": [0.1, 1], "counts": [1, 2, 3], "sum_seconds": 7.5}


def source(status: Any, live: bool = True) -> Scraped:
    return Scraped(View(status), View({}), live)


def read(reader: Any, status: Any) -> list[tuple[tuple[str, ...], Any]]:
    return list(reader(source(status)))


@pytest.mark.parametrize("damaged", [None, "7", float("nan"), [7], {"a": 7}, 1 << 70])
def test_a_figure_is_absent_where_none_is_known(damaged: Any) -> None:
    assert read(figure("lag_seconds"), {"lag_seconds": damaged}) == []
    assert read(figure("log", "used"), {"log": damaged}) == []


def test_a_figure_flag_and_words_are_read_at_their_place() -> None:
    assert read(figure("log", "used", scale=512), {"log": {"used": 3}}) == [((), 1536)]
    assert read(truth("tainted"), {"tainted": False}) == [((), 0.0)] and read(truth("tainted"), {}) == []
    assert read(has_words("refused"), {"refused": "split-brain"}) == [((), 1.0)]
    assert read(has_words("refused"), {"refused": ""}) == [((), 0.0)] and read(has_words("refused"), {}) == []
    assert read(named_by("generations", "current"), {"generations": {"current": "ab"}}) == [(("ab",), 1.0)]
    assert read(named_by("generations", "current"), {}) == []


@pytest.mark.parametrize("text", ["1970-01-01T00:01:40Z", "1970-01-01T01:01:40+01:00", "1970-01-01T00:01:40"])
def test_a_moment_is_in_seconds_since_1970(text: str) -> None:
    assert read(timestamp("last_in_sync"), {"last_in_sync": text}) == [((), 100.0)]


@pytest.mark.parametrize("text", [None, "", "never", 0, "9999999-01-01T00:00:00Z", "0.500 s ago"])
def test_a_moment_that_is_not_known_is_absent_and_not_the_year_1970(text: Any) -> None:
    assert read(timestamp("last_in_sync"), {"last_in_sync": text}) == []


@pytest.mark.parametrize(
    ("chosen", "told_as"), [("a", "a"), ("b", "b"), ("of a later version", "unknown"), (None, "unknown")]
)
def test_exactly_one_of_the_states_holds(chosen: str | None, told_as: str) -> None:
    values = read(one_hot(("a", "b"), lambda _: chosen), {})
    assert values == [((name,), float(name == told_as)) for name in ("a", "b", "unknown")]


def test_a_choice_that_is_called_unknown_itself_has_one_value() -> None:
    assert len(read(one_hot(("a", "unknown"), lambda _: None), {})) == 2


def test_only_names_that_are_known_become_labels() -> None:
    losses = {"losses": {"data": 3, "x" * 4096: 4, "missed": None}}
    assert read(each_of("losses", choices=("data", "missed")), losses) == [(("data",), 3)]


def test_a_histogram_is_cumulative_and_its_last_bucket_has_no_bound() -> None:
    (values,) = read(histogram("latency"), {"latency": LATENCY})
    assert values == ((), Buckets((0.1, 1), (1, 3, 6), 7.5))


@pytest.mark.parametrize(
    "damage",
    [
        {"counts": [1, 2]},
        {"counts": [1, 2, -3]},
        {"counts": [1, 2, "3"]},
        {"counts": [1, 2, 0.5]},
        {"counts": [1, float("nan"), 3]},
        {"counts": [float("nan"), 1, 3]},
        {"counts": [1, 2, float("inf")]},
        {"counts": [1, 2, 1 << 70]},
        {"counts": [1, [2], 3]},
        {"counts": None},
        {"bounds_seconds": [0.1, float("inf")]},
        {"bounds_seconds": []},
        {"bounds_seconds": [1, 0.1]},
        {"bounds_seconds": [1, 1]},
        {"bounds_seconds": "01"},
        {"sum_seconds": None},
        {"bounds_seconds": list(range(100)), "counts": [0] * 101},
    ],
)
def test_a_damaged_histogram_has_no_value(damage: dict[str, Any]) -> None:
    assert read(histogram("latency"), {"latency": {**LATENCY, **damage}}) == []


def test_a_label_has_a_bounded_length() -> None:
    assert label_of("x" * LABEL_CHARACTERS_MAX) == "x" * LABEL_CHARACTERS_MAX
    assert len(label_of("x" * 4096)) == LABEL_CHARACTERS_MAX and label_of("x" * 4096).endswith("...")


def test_the_causes_are_those_that_the_status_has() -> None:
    assert tuple(field.name for field in fields(UnsettledFigures)) == UNSETTLED_CAUSES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["progress", "verify", "log", "audit", "statistics", "losses", "mode", "last_in_sync", "generations", "running"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_no_status_makes_a_metric_fail(status: dict[str, Any]) -> None:
    for metric in VOLUME_METRICS:
        values: Values = metric.read(source(status))
        for labels, _ in values:
            assert len(labels) == len(metric.labels), metric.name
