"""The Grafana dashboard: panels that fit, and queries for metrics that exist."""

from __future__ import annotations

import re
from collections import Counter

from pydbt.core.seen.metric_samples import ALL_METRICS
from tests.monitoring.grafana import BOARD, board, queries

LABELS = {label for metric in ALL_METRICS for label in metric.all_labels} | {"le"}
SUFFIXES = ("_bucket", "_count", "_sum", "")


def test_each_query_is_for_metrics_and_labels_that_exist() -> None:
    known = {metric.name for metric in ALL_METRICS}
    for query in queries():
        for name in re.findall(r"\bpydbt_\w+", query.written):
            assert any(name.removesuffix(suffix) in known for suffix in SUFFIXES), f"{query.panel}: {name}"
        for label in re.findall(r"(\w+)\s*[=!]~?\"", query.written):
            assert label in LABELS, f"{query.panel}: {label}"
        assert "$" not in query.sent, f"{query.panel}: a variable that the tests do not know"


def test_every_volume_s_panel_follows_the_choice_of_machine_and_volume() -> None:
    for query in queries():
        if not query.panel.startswith("variable"):
            assert query.written.count("$machine") == query.written.count("$volume") == query.written.count("pydbt_"), (
                query
            )


def test_panels_do_not_overlap_and_each_has_a_number_of_its_own() -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for panel in board()["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24
        taken.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert not [cell for cell, count in taken.items() if count > 1]
    ids = [panel["id"] for panel in board()["panels"]]
    assert len(set(ids)) == len(ids)


def test_it_can_be_imported_anywhere() -> None:
    """Neither an address nor a data source of one installation is in it."""
    text = BOARD.read_text()
    assert "http" not in text and board()["uid"] == "pydbt" and board()["version"] >= 1
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in board()["panels"] if panel["type"] != "row")
    assert {one["name"] for one in board()["templating"]["list"]} == {"datasource", "machine", "volume"}
