"""Figures of a history: gathered from looks at the status into rows, and thinned for who asks for a span of time.

Of each figure a row keeps the least and the most. Where one look of a row did not know a figure, the most is unknown: the figure
may have been worse then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pydbt.core.seen.history import (
    COLUMNS,
    TIERS,
    EntryKind,
    Floats,
    HistoryEntry,
    PlacedBytes,
    history_rows_of,
    row_bytes,
    row_offset,
)
from pydbt.core.units import is_figure

POINTS_MAX = 5000
SHOWN_EVENTS = 1000
GAP_STEPS = 2.5
"""A controller at rest is looked at each ten seconds: one row more or less is no gap."""
STATES = ("up-to-date", "consistent", "outdated", "inconsistent")
"""Of a replica, from the best to the worst: their places are the figures in the rows."""

Rows = npt.NDArray[np.void]


# --- gathering ----------------------------------------------------------------------------------------------------
class Rates:
    """Bytes per second on the wire, between one status and the next."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None

    def rate(self, at: float, bytes_so_far: float | None) -> float | None:
        """``at``: of the monotonic clock, which nobody sets. None at the first look, and when the count went backwards."""
        last, self._last = self._last, None if bytes_so_far is None else (at, bytes_so_far)
        if last is None or bytes_so_far is None or at <= last[0] or bytes_so_far < last[1]:
            return None
        return (bytes_so_far - last[1]) / (at - last[0])


def figures_of(status: Mapping[str, Any], at: float, wire: Rates) -> Floats:
    """The figures of a status, in the order of ``COLUMNS``; NaN where it knows or has none. ``at``: as of ``Rates``."""
    log, queue, journal = (_part(status, name) for name in ("log", "queue", "journal"))
    sent = _number(status, "sent_bytes")
    found: dict[str, float | None] = {
        **{name: _number(status, name) for name in COLUMNS},
        "wire_rate_bytes": wire.rate(at, _number(status, "received_bytes") if sent is None else sent),
        "log_used_bytes": _number(log, "used"),
        "queue_used_bytes": _number(queue, "used"),
        "journal_used_bytes": _number(journal, "used"),
        "replica_state": STATES.index(status["replica_state"]) if status.get("replica_state") in STATES else None,
        "disconnected": {True: 0.0, False: 1.0}.get(status.get("connected")),  # type: ignore[arg-type]
    }
    return np.array([np.nan if (one := found[name]) is None else one for name in COLUMNS], np.float64)


def _part(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = status.get(name)
    return part if isinstance(part, Mapping) else {}


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and is_figure(value) else None


class Gathering:
    """The rows that are under way, one for each step of time. ``kept``: what the file has; a row that it has begun goes on."""

    def __init__(self, kept: bytes = b"") -> None:
        self._rows: list[tuple[int, int, Floats, Floats] | None] = [None] * len(TIERS)
        self._found = [history_rows_of(kept, tier)[-1:] for tier in range(len(TIERS))]

    def add(self, moment: float, figures: Floats) -> list[PlacedBytes]:
        """Take in a look. The writes of all rows, when one of the shortest has come to its end."""
        step = TIERS[0].step_s
        shortest = self._rows[0]
        ended = self.writes() if shortest is not None and shortest[0] != int(moment) // step * step else []
        for tier, one in enumerate(TIERS):
            begin = int(moment) // one.step_s * one.step_s
            row = self._rows[tier] or self._of_the_file(tier)
            if row is None or row[0] != begin:
                self._rows[tier] = begin, 1, figures, figures
            else:
                _, looks, least, most = row
                self._rows[tier] = begin, min(looks + 1, _LOOKS_MAX), np.fmin(least, figures), np.maximum(most, figures)
        return ended

    def _of_the_file(self, tier: int) -> tuple[int, int, Floats, Floats] | None:
        for row in self._found[tier]:
            return int(row["moment"]), int(row["looks"]), row["least"], row["most"]
        return None

    def writes(self) -> list[PlacedBytes]:
        """Of the rows as they are now."""
        return [
            (row_offset(tier, row[0]), row_bytes(*row))
            for tier, row in enumerate(self._rows)
            if row is not None and row[0] > 0
        ]


# --- answering ----------------------------------------------------------------------------------------------------
def history_answer(
    tiers: Sequence[Rows], entries: Sequence[HistoryEntry], first: float, until: float, now: float, points: int
) -> dict[str, Any]:
    """The answer to ``history``: at most ``points`` rows from ``first`` to ``until``, a row of nulls in each gap."""
    moments, steps, least, most = _chosen(tiers, first, until, now)
    for share in (1, 2):
        thinned = _thinned(moments, steps, least, most, first, until, max(1, points // share))
        gaps = _gaps(*thinned[:2])
        if len(thinned[0]) + len(gaps) <= points:
            break
    else:
        gaps = np.zeros(0, np.int64)  # a single row
    known = np.asarray(~np.isnan(np.concatenate((thinned[2], thinned[3]))).all(axis=0))
    inside = [entry for entry in entries if first <= entry.moment <= until]
    events = [entry.values for entry in inside if entry.kind is EntryKind.EVENT]
    return {
        "columns": ["unix", *(name for name, is_known in zip(COLUMNS, known, strict=True) if is_known)],
        "rows": _with_gaps(thinned[0], thinned[1], thinned[3][:, known], gaps),
        "least": _with_gaps(thinned[0], thinned[1], thinned[2][:, known], gaps),
        "events": events[-SHOWN_EVENTS:],
        "events_left_out": max(0, len(events) - SHOWN_EVENTS),
        "restarts": [entry.moment for entry in inside if entry.kind is EntryKind.RESTART][-SHOWN_EVENTS:],
    }


_Span = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats, Floats]


def _chosen(tiers: Sequence[Rows], first: float, until: float, now: float) -> _Span:
    """The finest rows there are for each time; a slot that was not written for a whole round of its ring is no row of now."""
    parts: list[Rows] = []
    steps: list[npt.NDArray[np.int64]] = []
    oldest = np.inf
    for tier, rows in zip(TIERS, tiers, strict=True):
        moments = rows["moment"]
        fresh = (moments > now - tier.step_s * tier.rows) & (moments + tier.step_s <= oldest)
        oldest = min([oldest, *moments[fresh][:1].tolist()])
        chosen = rows[fresh & (moments + tier.step_s > first) & (moments <= until)]
        parts.insert(0, chosen)
        steps.insert(0, np.full(len(chosen), tier.step_s, np.int64))
    rows = np.concatenate(parts)
    return rows["moment"], np.concatenate(steps), rows["least"], rows["most"]


def _thinned(
    moments: npt.NDArray[np.int64], steps: npt.NDArray[np.int64], least: Floats, most: Floats,
    first: float, until: float, points: int,
) -> _Span:  # fmt: skip
    if len(moments) <= points:
        return moments, steps, least, most
    width = max((until - first) / points, 1e-9)
    place = np.minimum(np.maximum(((moments - first) / width).astype(np.int64), 0), points - 1)
    heads = np.flatnonzero(np.append(True, place[1:] != place[:-1]))
    wide = np.maximum(np.maximum.reduceat(steps, heads), int(width))
    return moments[heads], wide, np.fmin.reduceat(least, heads), np.maximum.reduceat(most, heads)


def _gaps(moments: npt.NDArray[np.int64], steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows behind which some are missing."""
    return np.flatnonzero(np.diff(moments) > GAP_STEPS * np.maximum(steps[1:], steps[:-1]))


def _with_gaps(
    moments: npt.NDArray[np.int64], steps: npt.NDArray[np.int64], figures: Floats, gaps: npt.NDArray[np.int64]
) -> list[list[float | int | None]]:
    behind = set(gaps.tolist())
    made: list[list[float | int | None]] = []
    for index, (moment, step, row) in enumerate(zip(moments.tolist(), steps.tolist(), figures.tolist(), strict=True)):
        made.append([moment, *map(_told, row)])
        if index in behind:
            made.append([moment + step, *[None] * len(row)])
    return made


def _told(figure: float) -> float | int | None:
    if not is_figure(figure):
        return None
    return int(figure) if figure == int(figure) else round(figure, 3)


_LOOKS_MAX = (1 << 32) - 1
