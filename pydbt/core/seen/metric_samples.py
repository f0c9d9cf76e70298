"""The values of all metrics, out of what the dashboard knows of its machines.

Whatever a status has in it, each series has one value, and their number is bounded: a scrape with a series twice would be
refused as a whole, and each new name of somebody else's would cost memory for as long as Prometheus keeps its data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydbt.core.seen.metric import Buckets, Metric, MetricKind, Scope, Scraped, label_of
from pydbt.core.seen.metric_table import VOLUME_METRICS
from pydbt.core.seen.view import View

MACHINES_MAX = 64
VOLUMES_MAX = 256
SECONDARIES_MAX = 16

BUILD_INFO = "pydbt_build_info"
LEFT_OUT = Metric(
    "pydbt_left_out",
    MetricKind.GAUGE,
    Scope.MACHINE,
    "volumes and secondaries beyond the bound, without values",
    lambda _: (),
)
REACHABLE = Metric(
    "pydbt_machine_reachable",
    MetricKind.GAUGE,
    Scope.MACHINE,
    "1 while the dashboard reaches the machine",
    lambda _: (),
)
HEARD = Metric(
    "pydbt_machine_heard_seconds", MetricKind.GAUGE, Scope.MACHINE, "since when nothing was heard of it", lambda _: ()
)
ALL_METRICS: tuple[Metric, ...] = (REACHABLE, HEARD, LEFT_OUT, *VOLUME_METRICS)
_OF_A_VOLUME = tuple(metric for metric in VOLUME_METRICS if metric.scope is not Scope.SECONDARY)
_OF_A_SECONDARY = tuple(metric for metric in VOLUME_METRICS if metric.scope is Scope.SECONDARY)


@dataclass(slots=True)
class Samples:
    """All values of one metric: those of its labels, in their order, and the value."""

    metric: Metric
    values: list[tuple[tuple[str, ...], float | Buckets]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Volume:
    labels: tuple[str, ...]
    seen: View
    live: bool


def samples_of(machines: Iterable[object]) -> list[Samples]:
    """Of the machines as the overview has them (``/api/overview``), each metric once, in the order of the table."""
    known = [View(machine) for machine in machines][:MACHINES_MAX]
    made = {metric.name: Samples(metric) for metric in ALL_METRICS}
    names = _distinct((label_of(machine.text("name") or ""),) for machine in known)
    for (name,), machine in zip(names, known, strict=True):
        made[REACHABLE.name].values.append(((name,), float(machine.flag("reachable") is True)))
        if (heard := machine.number("heard_seconds")) is not None:
            made[HEARD.name].values.append(((name,), heard))
        made[LEFT_OUT.name].values.append(((name,), float(_add_volumes(name, machine, made))))
    return list(made.values())


def _add_volumes(machine_name: str, machine: View, made: dict[str, Samples]) -> int:
    """How many volumes and secondaries were left out."""
    everything = machine.parts("volumes")
    volumes = everything[:VOLUMES_MAX]
    left_out = len(everything) - len(volumes)
    keys = _distinct(
        ((machine_name, label_of(one.text("role") or "unknown"), label_of(one.text("name") or "")) for one in volumes),
    )
    reachable = machine.flag("reachable") is True
    for labels, seen in zip(keys, volumes, strict=True):
        live = reachable and seen.flag("stale") is False and seen.part("status").flag("running") is True
        left_out += _add_volume(_Volume(labels, seen, live), made)
    return left_out


def _add_volume(volume: _Volume, made: dict[str, Samples]) -> int:
    status = volume.seen.part("status")
    everything = status.parts("secondaries")
    secondaries = everything[:SECONDARIES_MAX]
    keys = _distinct((*volume.labels, label_of(one.text("secondary") or "")) for one in secondaries)
    _read(_OF_A_VOLUME, volume.labels, Scraped(status, volume.seen, volume.live), made)
    for labels, one in zip(keys, secondaries, strict=True):
        _read(_OF_A_SECONDARY, labels, Scraped(one, volume.seen, volume.live), made)
    return len(everything) - len(secondaries)


def _read(metrics: Iterable[Metric], labels: tuple[str, ...], source: Scraped, made: dict[str, Samples]) -> None:
    for metric in metrics:
        if source.live or metric.lasting:
            values = made[metric.name].values
            for own, value in metric.read(source):
                values.append((labels + own, value))


def _distinct(keys: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The labels, the last one with a number where they have occurred before."""
    taken: set[tuple[str, ...]] = set()
    for key in keys:
        one, number = key, 1
        while one in taken:
            number += 1
            one = (*key[:-1], f"{key[-1]} ({number})")
        taken.add(one)
        yield one
