"""``/metrics``: what the dashboard knows, in Prometheus' text format."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import itemgetter

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry

from pydbt.core.seen.metric import Buckets, Metric, MetricKind
from pydbt.core.seen.metric_samples import BUILD_INFO, Samples, samples_of
from pydbt.version import VERSION


class Exposition:
    """Writes one text after the other.

    prometheus-client takes most of its time for names, labels and their quoting, which are the same in each text, and so for
    five lines of six of a histogram. So it writes each kind of line once, with places for labels and values (``_unlabelled``).
    """

    def __init__(self) -> None:
        self._build = _text_of([_build_info()])
        self._known: dict[str, _Written] = {}

    def text_of(self, machines: Iterable[object]) -> bytes:
        """The text for the machines of ``/api/overview``. Never fails on what they tell: what is damaged has no value."""
        text = [self._build]
        for samples in samples_of(machines):
            name = samples.metric.name
            if name not in self._known:
                self._known[name] = _Written(_text_of([_empty(samples.metric)]))
            self._known[name].add(samples, text)
        return "".join(text).encode()


@dataclass(frozen=True, slots=True)
class _Lines:
    """Of one series, or of a histogram with these bounds. ``form % pick(figures)`` is its text."""

    bounds: tuple[float, ...]
    form: str
    pick: Callable[[tuple[float, ...]], object]


@dataclass(slots=True)
class _Written:
    """What is known of one metric: of the labels that its newest text had, so that it does not grow for ever."""

    head: str
    lines: dict[tuple[str, ...], _Lines] = field(default_factory=dict)

    def add(self, samples: Samples, text: list[str]) -> None:
        """The lines of the metric, with these values."""
        text.append(self.head)
        used = {}
        for labels, value in samples.values:
            if isinstance(value, Buckets):
                bounds, figures = value.bounds, (*value.cumulative, value.total)
            else:
                bounds, figures = (), (value,)
            lines = self.lines.get(labels)
            if lines is None or lines.bounds != bounds:
                unlabelled = _unlabelled(samples.metric, bounds)
                lines = replace(unlabelled, form=unlabelled.form.format(*map(_quoted, labels)))
            used[labels] = lines
            # All figures are finite, and Python writes such a number as Prometheus reads it.
            text.append(lines.form % lines.pick(figures))
        self.lines = used


@lru_cache(maxsize=256)
def _unlabelled(metric: Metric, bounds: tuple[float, ...]) -> _Lines:
    """As prometheus-client writes them. The form is one that takes the labels first."""
    family = _empty(metric)
    labels = [f"<{place}>" for place in range(len(metric.all_labels))]
    if isinstance(family, HistogramMetricFamily):
        names = [*(repr(float(bound)) for bound in bounds), "+Inf"]
        family.add_metric(labels, [(name, place) for place, name in enumerate(names)], len(names))
    else:
        family.add_metric(labels, 0)
    parts = [line.rpartition(" ") for line in _text_of([family]).splitlines() if not line.startswith("#")]
    lines = "".join(f"{line.replace('{', '{{').replace('}', '}}')} %s\n" for line, _, _ in parts)
    places = [int(float(place)) for _, _, place in parts]
    return _Lines(bounds, re.sub(r'"<(\d+)>"', r'"{\1}"', lines), itemgetter(*places))


@lru_cache(maxsize=4096)
def _quoted(label: str) -> str:
    """As prometheus-client writes the value of a label, for a form."""
    family = GaugeMetricFamily("a", "", labels=["b"])
    family.add_metric([label], 0)
    return _text_of([family]).partition('a{b="')[2].rpartition('"}')[0].replace("%", "%%")


class _Known(Collector):
    """What prometheus-client asks for the values."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families


def _text_of(families: list[Family]) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Known(families))
    return generate_latest(registry).decode()


def _build_info() -> Family:
    build = GaugeMetricFamily(BUILD_INFO, "1; versions of pydbt and of Python", labels=["version", "python"])
    build.add_metric([VERSION, platform.python_version()], 1)
    return build


def _empty(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    match metric.kind:
        case MetricKind.COUNTER:
            return CounterMetricFamily(metric.name, metric.words, labels=metric.all_labels)
        case MetricKind.HISTOGRAM:
            return HistogramMetricFamily(metric.name, metric.words, labels=metric.all_labels)
        case MetricKind.GAUGE:
            return GaugeMetricFamily(metric.name, metric.words, labels=metric.all_labels)
