"""The names that people's hooks, alerts and dashboards rely on, against lists that no table of the code is made of.

A new name is added to its list. A line of a list is never changed and never taken away: that breaks what people have written.
"""

from __future__ import annotations

from pathlib import Path

from pydbt.core.primary.acknowledgement_latency import LATENCY_BOUNDS_SECONDS
from pydbt.core.seen.event_names import NAMES, TOLD_BY_THE_COMMAND
from pydbt.core.seen.io_totals import BOUNDS_SECONDS
from pydbt.core.seen.metric_samples import ALL_METRICS

SAMPLES = Path(__file__).parents[2] / "samples"
BOUNDS = {"acknowledgement_latency": LATENCY_BOUNDS_SECONDS, "block_io_latency": BOUNDS_SECONDS}


def promised(file: str) -> list[list[str]]:
    lines = [line.split() for line in (SAMPLES / file).read_text().splitlines()]
    return [line for line in lines if line[0] != "bounds"]


def test_events_have_the_names_and_figures_that_were_promised() -> None:
    known = NAMES | TOLD_BY_THE_COMMAND
    lists = {name: figures for name, *figures in promised("promised-events.txt")}
    assert lists.keys() - known.keys() == set(), "this name is gone"
    assert known.keys() - lists.keys() == set(), "a new name: add it to the list, and it is promised"
    assert {name: figures for name, figures in lists.items() if not set(figures) <= set(known[name].figures)} == {}


def test_metrics_have_the_names_kinds_and_labels_that_were_promised() -> None:
    known = {metric.name: [str(metric.kind), *metric.all_labels] for metric in ALL_METRICS}
    lists = {name: rest for name, *rest in promised("promised-metrics.txt")}
    assert lists.keys() - known.keys() == set(), "this name is gone"
    assert known.keys() - lists.keys() == set(), "a new name: add it to the list, and it is promised"
    assert {name: rest for name, rest in lists.items() if known[name] != rest} == {}


def test_histograms_have_the_bounds_that_were_promised() -> None:
    lines = [line.split() for line in (SAMPLES / "promised-metrics.txt").read_text().splitlines()]
    found = {name: tuple(map(float, bounds)) for kind, name, *bounds in lines if kind == "bounds"}
    assert found == {name: tuple(map(float, bounds)) for name, bounds in BOUNDS.items()}
