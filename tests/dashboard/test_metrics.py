"""``/metrics``: text that Prometheus reads, with the names that are promised, whatever the names of volumes are."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pydbt.controller.primary.combined import MODES, REPLICA_STATES
from pydbt.core.primary.acknowledgement_latency import LATENCY_BOUNDS_SECONDS
from pydbt.core.secondary.status import OFFLINE, RESTARTING
from pydbt.core.seen.io_totals import BOUNDS_SECONDS
from pydbt.core.seen.metric_samples import ALL_METRICS
from pydbt.core.seen.metric_table import PRIMARY_MODES, SECONDARY_MODES, STATES_OF_A_REPLICA
from pydbt.core.seen.sight import Asked, sight_of
from pydbt.dashboard.metrics import text_of

PROJECT = Path(__file__).resolve().parent.parent.parent
REFERENCE = PROJECT / "docs/reference/metrics.md"
GOLDEN = json.loads((PROJECT / "tests/controller/golden/several.json").read_text())
NOW = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
HOSTILE = ['"}\npydbt_up 7\n#', "back\\slash", "\x1b[31mred", "\ud800", "ä漢字\u202e", "x" * 4096, "", '{a="b"}', "\\n"]


def machines(*names: str) -> list[dict[str, Any]]:
    status = {**GOLDEN, "running": True, "last_in_sync": "2026-01-02T04:04:04Z"}
    volumes = [sight_of(Asked(status, 0.2), f"{number:016x}", "alpha", name, NOW) for number, name in enumerate(names)]
    return [
        {
            "name": "alpha",
            "reachable": True,
            "problem": "",
            "heard_seconds": 0.0,
            "volumes": [one.to_json() for one in volumes],
        }
    ]


def samples(*names: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    made: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text_of(machines(*names)).decode()):
        for sample in family.samples:
            made.setdefault(sample.name, []).append((sample.labels, sample.value))
    return made


def test_prometheus_own_reader_finds_the_values() -> None:
    made = samples("data")
    assert [value for labels, value in made["pydbt_mode"] if labels["mode"] == GOLDEN["mode"]] == [1.0]
    assert {labels["secondary"] for labels, _ in made["pydbt_secondary_connected"]} == {
        one["secondary"] for one in GOLDEN["secondaries"]
    }
    bounds = [labels["le"] for labels, _ in made["pydbt_acknowledgement_latency_seconds_bucket"]]
    assert [float(bound) for bound in bounds] == [*LATENCY_BOUNDS_SECONDS, float("inf")]
    assert made["pydbt_build_info"][0][1] == 1


def test_hostile_names_stay_labels_of_one_line_and_bounded_length() -> None:
    text = text_of(machines(*HOSTILE)).decode()
    shown = [labels["volume"] for labels, _ in samples(*HOSTILE)["pydbt_up"]]
    assert len(shown) == len(HOSTILE) and set(value for _, value in samples(*HOSTILE)["pydbt_up"]) == {1.0}
    assert all(len(name) <= 200 and name.isprintable() for name in shown)
    assert all(re.fullmatch(r"#.*|pydbt_\w+(\{.*\})? \S+|", line) for line in text.split("\n"))


def rows() -> dict[str, tuple[str, str, bool]]:
    """Of the document: name -> kind, labels, and whether it has a star."""
    found = re.findall(r"^\| `(pydbt_\w+)`(\*?) \| (\w+) \| (.*?) \| .+ \|$", REFERENCE.read_text(), re.MULTILINE)
    assert len(found) == len({name for name, *_ in found}), "a name twice"
    return {name: (kind, labels.replace("`", ""), bool(star)) for name, star, kind, labels in found}


def test_the_document_lists_exactly_the_metrics_that_there_are() -> None:
    made = {metric.name: (str(metric.kind), ", ".join(metric.all_labels), metric.lasting) for metric in ALL_METRICS}
    made["pydbt_build_info"] = ("gauge", "version, python", False)
    assert rows() == made


def test_the_document_names_the_bounds_of_the_histogram() -> None:
    (row,) = (line for line in REFERENCE.read_text().splitlines() if "`pydbt_acknowledgement_latency_seconds`" in line)
    named = re.findall(r"\d+(?:\.\d+)?", row.split("Bounds:")[1])
    assert tuple(map(float, named)) == LATENCY_BOUNDS_SECONDS


def test_the_document_names_the_first_and_the_last_bound_of_block_io() -> None:
    (row,) = (line for line in REFERENCE.read_text().splitlines() if "`pydbt_block_io_latency_seconds`" in line)
    first, last = re.findall(r"\d+(?:\.\d+)?", row.split("Bounds:")[1])
    assert (float(first) / 1e6, float(last)) == (BOUNDS_SECONDS[0], BOUNDS_SECONDS[-1])


@pytest.mark.parametrize("metric", ALL_METRICS, ids=lambda metric: metric.name)
def test_a_name_follows_the_conventions_of_prometheus(metric: Any) -> None:
    """prometheus.io/docs/practices/naming: base units, ``_total`` of counters alone, ``_info`` for what is 1."""
    assert metric.name.startswith("pydbt_") and re.fullmatch(r"[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(ms|milliseconds|kib|mib|percent)(_|$)", metric.name)


def test_the_states_and_modes_are_those_that_a_status_can_have() -> None:
    assert STATES_OF_A_REPLICA == REPLICA_STATES
    assert set(MODES) <= set(PRIMARY_MODES)
    assert set(SECONDARY_MODES) == {OFFLINE, RESTARTING, "ready", "streaming", "staging", "direct", "promoted"}
