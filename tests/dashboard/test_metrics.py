"""``/metrics``: text that Prometheus reads, with the names that are promised, whatever the names of volumes are."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from pydbt.controller.primary.combined import MODES, REPLICA_STATES
from pydbt.core.primary.acknowledgement_latency import LATENCY_BOUNDS_SECONDS
from pydbt.core.secondary.status import OFFLINE, RESTARTING
from pydbt.core.seen.io_totals import BOUNDS_SECONDS
from pydbt.core.seen.metric import Buckets
from pydbt.core.seen.metric_samples import ALL_METRICS, samples_of
from pydbt.core.seen.metric_table import PRIMARY_MODES, SECONDARY_MODES, STATES_OF_A_REPLICA
from pydbt.core.seen.sight import Asked, sight_of
from pydbt.dashboard.metrics import Exposition

PROJECT = Path(__file__).resolve().parent.parent.parent
REFERENCE = PROJECT / "docs/reference/metrics.md"
GOLDEN = json.loads((PROJECT / "tests/controller/golden/several.json").read_text())
NOW = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
HOSTILE = ['"}\npydbt_up 7\n#', "back\\slash", "\x1b[31mred", "\ud800", "ä漢字\u202e", "x" * 4096, "", '{a="b"}', "\\n",
           "{0}", "}{", '"<0>"', "%s"]  # fmt: skip


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
    return samples_in(Exposition().text_of(machines(*names)))


def samples_in(text: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    made: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            made.setdefault(sample.name, []).append((sample.labels, sample.value))
    return made


def the_library_writes(told: list[dict[str, Any]]) -> bytes:
    """The same values, each line of them written by prometheus-client."""
    kinds = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}
    families = []
    for one in samples_of(told):
        family = kinds[one.metric.kind](one.metric.name, one.metric.words, labels=one.metric.all_labels)
        for labels, value in one.values:
            if isinstance(value, Buckets):
                bounds = [*map(str, value.bounds), "+Inf"]
                family.add_metric(labels, list(zip(bounds, value.cumulative, strict=True)), value.total)
            else:
                family.add_metric(labels, value)
        families.append(family)

    class Values(Collector):
        def collect(self) -> list[Any]:
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Values())
    return generate_latest(registry)


def test_prometheus_own_reader_finds_the_values() -> None:
    made = samples("data")
    assert [value for labels, value in made["pydbt_mode"] if labels["mode"] == GOLDEN["mode"]] == [1.0]
    assert {labels["secondary"] for labels, _ in made["pydbt_secondary_connected"]} == {
        one["secondary"] for one in GOLDEN["secondaries"]
    }
    bounds = [labels["le"] for labels, _ in made["pydbt_acknowledgement_latency_seconds_bucket"]]
    assert [float(bound) for bound in bounds] == [*LATENCY_BOUNDS_SECONDS, float("inf")]
    assert made["pydbt_build_info"][0][1] == 1


def with_block_io(told: list[dict[str, Any]], factor: int, bounds: list[float]) -> list[dict[str, Any]]:
    for place, volume in enumerate(told[0]["volumes"]):
        histogram = {
            "bounds_seconds": bounds,
            "counts": [factor * (place + 1)] * (len(bounds) + 1),
            "sum_seconds": 0.1 * factor,
        }
        write = {
            "requests": factor,
            "bytes": factor * 1e15,
            "errors": 0,
            "latency": {"total": histogram, "queue": histogram},
        }
        volume["status"] = {**volume["status"], "block_io": {"state": "attached", "operations": {"write": write}}}
    return told


def test_each_text_is_that_of_the_library_whatever_was_written_before() -> None:
    exposition = Exposition()
    bounds = list(BOUNDS_SECONDS)
    texts = [
        machines(*HOSTILE),
        with_block_io(machines(*HOSTILE), 3, bounds),
        with_block_io(machines(*HOSTILE), 10**7, bounds),
        with_block_io(machines(*HOSTILE[3:]), 5, bounds[1:]),
        [],
        with_block_io(machines(*HOSTILE), 7, bounds),
    ]
    for told in texts:
        written, expected = exposition.text_of(told), the_library_writes(told)
        found = samples_in(written)
        assert found.pop("pydbt_build_info")
        assert found == samples_in(expected)
        assert [line for line in written.splitlines() if line.startswith(b"#") and b"build_info" not in line] == [
            line for line in expected.splitlines() if line.startswith(b"#")
        ]


def test_hostile_names_stay_labels_of_one_line_and_bounded_length() -> None:
    text = Exposition().text_of(machines(*HOSTILE)).decode()
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
