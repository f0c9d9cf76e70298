"""What a metric is here: its name, kind, labels and meaning, and how its values are read out of a status.

The names follow Prometheus' conventions (prometheus.io/docs/practices/naming): base units, ``_total`` for what only grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pydbt.core.seen.view import View

UNKNOWN = "unknown"
# A label becomes a part of each of its time series: a longer one would only cost memory there.
LABEL_CHARACTERS_MAX = 200
BUCKETS_MAX = 64


class MetricKind(StrEnum):
    """How Prometheus may add it up."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Scope(StrEnum):
    """What one value of a metric belongs to."""

    MACHINE = "machine"
    VOLUME = "volume"
    SECONDARY = "secondary"


SCOPE_LABELS: dict[Scope, tuple[str, ...]] = {
    Scope.MACHINE: ("machine",),
    Scope.VOLUME: ("machine", "role", "volume"),
    Scope.SECONDARY: ("machine", "role", "volume", "secondary"),
}


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: ``(upper bound, this many at most it)``, the last without a bound, and the sum of all values."""

    cumulative: tuple[tuple[float | None, int], ...]
    total: float


@dataclass(frozen=True, slots=True)
class Scraped:
    """Where values are read: ``status`` is that of a volume, or the entry of one secondary in it, or what is known of a machine.

    ``live``: a controller told it just now. What is older tells of the past alone.
    """

    status: View
    seen: View
    live: bool


Values = Iterable[tuple[tuple[str, ...], float | Buckets]]
"""Values, each with those of the metric's own labels."""


@dataclass(frozen=True, slots=True)
class Metric:
    """``lasting``: also true of the past, as the moment of an event is; any other has no value while nothing is known of now."""

    name: str
    kind: MetricKind
    scope: Scope
    words: str
    read: Callable[[Scraped], Values]
    labels: tuple[str, ...] = ()
    lasting: bool = False

    @property
    def all_labels(self) -> tuple[str, ...]:
        return (*SCOPE_LABELS[self.scope], *self.labels)


def figure(*path: str, scale: int = 1) -> Callable[[Scraped], Values]:
    """The number at this path of the status; no value where it is not known."""

    def read(source: Scraped) -> Values:
        value = _parent(source.status, path).number(path[-1])
        return () if value is None else (((), value * scale),)

    return read


def truth(name: str) -> Callable[[Scraped], Values]:
    """1 or 0."""

    def read(source: Scraped) -> Values:
        value = source.status.flag(name)
        return () if value is None else (((), float(value)),)

    return read


def has_words(name: str) -> Callable[[Scraped], Values]:
    """1 while the status has words there, 0 while they are empty."""

    def read(source: Scraped) -> Values:
        words = source.status.text(name)
        return () if words is None else (((), float(bool(words))),)

    return read


def timestamp(*path: str) -> Callable[[Scraped], Values]:
    """A time of RFC 3339, in seconds since 1970. No value where it is not known: 0 would be a time."""

    def read(source: Scraped) -> Values:
        try:
            then = datetime.fromisoformat(_parent(source.status, path).text(path[-1]) or "")
            return (((), (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()),)
        except (ValueError, OverflowError):
            return ()

    return read


def one_hot(choices: Iterable[str], pick: Callable[[Scraped], str | None]) -> Callable[[Scraped], Values]:
    """1 for the one that holds, 0 for each of the others; *unknown* for what this version does not know."""
    known = tuple(dict.fromkeys((*choices, UNKNOWN)))

    def read(source: Scraped) -> Values:
        chosen = pick(source)
        chosen = chosen if chosen in known else UNKNOWN
        return tuple(((one,), float(one == chosen)) for one in known)

    return read


def each_of(*path: str, choices: Iterable[str]) -> Callable[[Scraped], Values]:
    """The figures of an object, by the names of its keys, of which these alone are taken."""
    names = tuple(choices)

    def read(source: Scraped) -> Values:
        part = _parent(source.status, (*path, ""))
        figures = [(name, part.number(name)) for name in names]
        return tuple(((name,), value) for name, value in figures if value is not None)

    return read


def named_by(*path: str) -> Callable[[Scraped], Values]:
    """1, with the text at this path as the label; no value while it is empty."""

    def read(source: Scraped) -> Values:
        words = _parent(source.status, path).text(path[-1])
        return (((label_of(words),), 1.0),) if words else ()

    return read


def histogram(*path: str) -> Callable[[Scraped], Values]:
    """The object of ``acknowledgement_latency`` and its like; no value where it is damaged."""

    def read(source: Scraped) -> Values:
        part = _parent(source.status, (*path, ""))
        bounds, counts = _figures(part.values.get("bounds_seconds")), _figures(part.values.get("counts"))
        total = part.number("sum_seconds")
        if not bounds or total is None or len(counts) != len(bounds) + 1 or sorted(set(bounds)) != bounds:
            return ()
        if len(counts) > BUCKETS_MAX or any(count < 0 or count != int(count) for count in counts):
            return ()
        sums = [int(sum(counts[: place + 1])) for place in range(len(counts))]
        return (((), Buckets(tuple(zip([*bounds, None], sums, strict=True)), total)),)

    return read


def each_histogram(*path: str, names: Iterable[str], inner: str, parts: Iterable[str]) -> Callable[[Scraped], Values]:
    """Of the objects at this path, of which these names alone are taken, the histograms of these parts of ``inner``."""
    known, all_parts = tuple(names), tuple(parts)

    def read(source: Scraped) -> Values:
        return tuple(
            ((name, part), value)
            for name in known
            for part in all_parts
            for _, value in histogram(*path, name, inner, part)(source)
        )

    return read


def each_figure(*path: str, names: Iterable[str], inner: str) -> Callable[[Scraped], Values]:
    """The figure ``inner`` of the objects at this path, of which these names alone are taken."""
    known = tuple(names)

    def read(source: Scraped) -> Values:
        return tuple(((name,), value) for name in known for _, value in figure(*path, name, inner)(source))

    return read


def label_of(text: str) -> str:
    """A value of a label: of bounded length."""
    return text if len(text) <= LABEL_CHARACTERS_MAX else f"{text[: LABEL_CHARACTERS_MAX - 3]}..."


def _figures(values: object) -> list[float]:
    """A list of numbers; empty when anything else is there."""
    if not isinstance(values, list | tuple):
        return []
    figures = [View({"": value}).number("") for value in values]
    known = [value for value in figures if value is not None]
    return known if len(known) == len(figures) else []


def _parent(status: View, path: tuple[str, ...]) -> View:
    for name in path[:-1]:
        status = status.part(name)
    return status
