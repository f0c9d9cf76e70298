"""``/metrics``: what the dashboard knows, in Prometheus' text format."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry

from pydbt.core.seen.metric import Buckets, Metric, MetricKind
from pydbt.core.seen.metric_samples import BUILD_INFO, Samples, samples_of
from pydbt.version import VERSION


def text_of(machines: Iterable[object]) -> bytes:
    """The text for the machines of ``/api/overview``. Never fails on what they tell: what is damaged has no value."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Known(samples_of(machines)))
    return generate_latest(registry)


class _Known(Collector):
    """What prometheus-client asks for the values."""

    def __init__(self, samples: list[Samples]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Family]:
        build = GaugeMetricFamily(BUILD_INFO, "1; versions of pydbt and of Python", labels=["version", "python"])
        build.add_metric([VERSION, platform.python_version()], 1)
        yield build
        for one in self._samples:
            yield _family_of(one)


def _family_of(samples: Samples) -> Family:
    family = _empty(samples.metric)
    for labels, value in samples.values:
        if isinstance(family, HistogramMetricFamily) and isinstance(value, Buckets):
            bounds = [("+Inf" if bound is None else repr(float(bound)), count) for bound, count in value.cumulative]
            family.add_metric(labels, bounds, value.total)
        elif not isinstance(value, Buckets) and isinstance(family, CounterMetricFamily | GaugeMetricFamily):
            family.add_metric(labels, value)
    return family


def _empty(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    match metric.kind:
        case MetricKind.COUNTER:
            return CounterMetricFamily(metric.name, metric.words, labels=metric.all_labels)
        case MetricKind.HISTOGRAM:
            return HistogramMetricFamily(metric.name, metric.words, labels=metric.all_labels)
        case MetricKind.GAUGE:
            return GaugeMetricFamily(metric.name, metric.words, labels=metric.all_labels)
