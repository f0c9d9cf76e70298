"""What a figure says: the middle of several repetitions against its bar, as a row of a table or as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

_HEADINGS = ("figure", "measured", "value", "min - max", "bar", "verdict")


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. ``value`` is the median of ``repetitions`` values between ``lowest`` and ``highest``.

    ``bar`` None is a row for information. ``goal`` is what the bar is to become.
    """

    name: str
    what: str
    measured: str
    unit: str
    value: float
    lowest: float
    highest: float
    repetitions: int
    bar: float | None = None
    at_least: bool = True
    goal: float | None = None

    @property
    def verdict(self) -> str:
        if self.bar is None:
            return "-"
        reached = self.value >= self.bar if self.at_least else self.value <= self.bar
        return "reached" if reached else "FELL SHORT"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}

    def cells(self) -> tuple[str, ...]:
        spread = f"{_number(self.lowest)} - {_number(self.highest)}" if self.repetitions > 1 else "one run"
        return self.what, self.measured, f"{_number(self.value)} {self.unit}", spread, self._bar_cell(), self.verdict

    def _bar_cell(self) -> str:
        if self.bar is None:
            return "-"
        sign = ">=" if self.at_least else "<="
        goal = f" (goal {_number(self.goal)})" if self.goal is not None else ""
        return f"{sign} {_number(self.bar)} {self.unit}{goal}"


def figure(
    name: str,
    what: str,
    measured: str,
    unit: str,
    values: Sequence[float],
    *,
    bar: float | None = None,
    at_least: bool = True,
    goal: float | None = None,
) -> Figure:
    """A row from the values of all repetitions."""
    middle = statistics.median(values)
    return Figure(
        name, what, measured, unit, middle, min(values), max(values), len(values), bar=bar, at_least=at_least, goal=goal
    )


def ratios(measured: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Pair by pair: each repetition against its own neighbour, so that a slow minute of the machine hits both."""
    return [one / other for one, other in zip(measured, reference, strict=True)]


def table(figures: Sequence[Figure]) -> str:
    """Aligned columns for people."""
    rows = [_HEADINGS, *(row.cells() for row in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
