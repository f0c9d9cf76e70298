"""The Grafana dashboard: panels that fit, and queries for metrics that exist."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from pydbt.core.seen.metric_samples import ALL_METRICS
from tests.monitoring.grafana import BOARD, board, queries
from tests.monitoring.test_alert_rules import promtool

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


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """Neither an address nor a data source of one installation is in it."""
    text = BOARD.read_text()
    assert "http" not in text and board()["uid"] == "pydbt" and board()["version"] >= 1
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in board()["panels"] if panel["type"] != "row")
    assert {one["name"] for one in board()["templating"]["list"]} == {"datasource", "machine", "volume"}


@pytest.mark.prometheus
@pytest.mark.parametrize(
    ("levels", "shown"),
    [({}, None), ({"good": 1}, 0), ({"good": 0, "bad": 1}, 1)],
    ids=["nothing is known", "all are good", "one is bad"],
)
def test_not_good_is_0_only_where_something_is_known(levels: dict[str, int], shown: int | None, tmp_path: Path) -> None:
    """A dashboard that died leaves no volume, and a green 0 would be better than the truth."""
    (query,) = (query for query in queries() if query.panel == "Not good")
    series = [
        {"series": f'pydbt_level{{machine="a",role="primary",volume="d",level="{level}"}}', "values": f"{value}x5"}
        for level, value in levels.items()
    ]
    samples = [] if shown is None else [{"labels": "{}", "value": shown}]
    expected = {"expr": query.sent, "eval_time": "2m", "exp_samples": samples}
    case = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [expected]}]}
    (tmp_path / "case.yml").write_text(json.dumps(case))
    done = promtool("test", "rules", tmp_path / "case.yml")
    assert done.returncode == 0, done.stdout + done.stderr
