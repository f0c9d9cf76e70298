"""What a metric is here: its name, kind, labels and meaning, and how its values are read out of a status.

The names follow Prometheus' conventions (prometheus.io/docs/practices/naming): base units, ``_total`` for what only grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate

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
    """A histogram: upper bounds; how many values are at most each of them and, last, how many there are; their sum."""

    bounds: tuple[float, ...]
    cumulative: tuple[int, ...]
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
    *above, name = path

    def read(source: Scraped) -> Values:
        part = source.status
        for one in above:
            part = part.part(one)
        value = part.number(name)
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
        value = _buckets_of(_parent(source.status, (*path, "")))
        return () if value is None else (((), value),)

    return read


def each_histogram(*path: str, names: Iterable[str], inner: str, parts: Iterable[str]) -> Callable[[Scraped], Values]:
    """Of the objects at this path, of which these names alone are taken, the histograms of these parts of ``inner``."""
    known, all_parts = tuple(names), tuple(parts)

    def read(source: Scraped) -> Values:
        objects = _parent(source.status, (*path, ""))
        for name in known:
            histograms = objects.part(name).part(inner)
            for part in all_parts:
                if (value := _buckets_of(histograms.part(part))) is not None:
                    yield (name, part), value

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


def _buckets_of(part: View) -> Buckets | None:
    bounds, counts = _bounds_of(tuple(part.numbers("bounds_seconds"))), part.numbers("counts")
    total, whole = part.number("sum_seconds"), [*map(int, counts)]
    if not bounds or total is None or len(counts) != len(bounds) + 1 or whole != counts or min(whole) < 0:
        return None
    return Buckets(bounds, tuple(accumulate(whole)), total)


@lru_cache(maxsize=64)
def _bounds_of(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """The same when they can be those of a histogram, else none. Kept, because all volumes have the same ones."""
    return bounds if len(bounds) < BUCKETS_MAX and sorted(set(bounds)) == [*bounds] else ()


def _parent(status: View, path: tuple[str, ...]) -> View:
    for name in path[:-1]:
        status = status.part(name)
    return status
