"""Sums by one view (by process, by control group, by file), with rates over the last seconds. Bounded, and nothing leaves them.

What was not written to for longest goes into one row for all such, so that the rows go on adding up to everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydbt.core.seen.writers.reading import Amount

ENTRIES_MAX = 4096
WRITER_RATE_S = 5.0

Keyed = TypeVar("Keyed", bound=Hashable)


@dataclass(slots=True)
class Tally:
    """Bytes so far. ``out_of_normal``: those of ``written`` that came since the volume left mode normal."""

    dirtied: int = 0
    written: int = 0
    out_of_normal: int = 0

    def add(self, amount: Amount, out_of_normal: bool) -> None:
        self.dirtied += amount.dirtied
        self.written += amount.written
        if out_of_normal:
            self.out_of_normal += amount.written


@dataclass(frozen=True, slots=True)
class Row(Generic[Keyed]):
    """``subject`` None: all the others together. Rates in bytes per second."""

    subject: Keyed | None
    dirtied: int
    written: int
    out_of_normal: int
    dirtied_rate: float
    written_rate: float


class Ledger(Generic[Keyed]):
    """Every ``turn`` ends one reading; amounts are added before it."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._entries: dict[Keyed, Tally] = {}  # in the order in which they were written to last
        self._others = Tally()
        self._now: dict[Keyed | None, Amount] = {}
        self._recent: deque[tuple[float, dict[Keyed | None, Amount]]] = deque()

    def add(self, subject: Keyed, amount: Amount, out_of_normal: bool) -> None:
        entry = self._entries.pop(subject, None) or Tally()
        entry.add(amount, out_of_normal)
        self._entries[subject] = entry
        before = self._now.get(subject, Amount(0, 0))
        self._now[subject] = Amount(before.dirtied + amount.dirtied, before.written + amount.written)

    def turn(self, seconds: float) -> None:
        """``seconds``: since the last turn, in which all this was written."""
        while len(self._entries) > self._entries_max:
            oldest = self._entries.pop(next(iter(self._entries)))
            self._others.dirtied += oldest.dirtied
            self._others.written += oldest.written
            self._others.out_of_normal += oldest.out_of_normal
        self._recent.append((seconds, self._now))
        self._now = {}
        while sum(one for one, _ in self._recent) > WRITER_RATE_S and len(self._recent) > 1:
            self._recent.popleft()

    def back_to_normal(self) -> None:
        """The volume is in mode normal: what comes from outside of it begins at 0."""
        for entry in (*self._entries.values(), self._others):
            entry.out_of_normal = 0

    def entries(self) -> Iterable[tuple[Keyed, Tally]]:
        """Everything that is kept by itself, that which was written to last at the end."""
        return self._entries.items()

    def rates(self) -> dict[Keyed | None, tuple[float, float]]:
        """Dirtied and written per second over the last seconds, of those that wrote in them."""
        seconds = sum(one for one, _ in self._recent)
        sums: dict[Keyed | None, Amount] = {}
        for _, amounts in self._recent:
            for subject, amount in amounts.items():
                before = sums.get(subject, Amount(0, 0))
                sums[subject] = Amount(before.dirtied + amount.dirtied, before.written + amount.written)
        if seconds <= 0:
            return {}
        return {subject: (one.dirtied / seconds, one.written / seconds) for subject, one in sums.items()}

    def rows(self, shown_max: int) -> list[Row[Keyed]]:
        """Those that write most now come first, then those that wrote most; the last row is that of all others, if any.

        The sums of the rows are those of everything that was added.
        """
        rates = self.rates()

        def row(subject: Keyed, entry: Tally) -> Row[Keyed]:
            dirtied, written = rates.get(subject, (0.0, 0.0))
            return Row(subject, entry.dirtied, entry.written, entry.out_of_normal, dirtied, written)

        rows = [row(subject, entry) for subject, entry in self._entries.items()]
        rows.sort(key=lambda one: (-one.written_rate, -one.dirtied_rate, -one.written, -one.dirtied))
        shown, hidden = rows[:shown_max], rows[shown_max:]
        others = self._others
        if hidden or others.written or others.dirtied:
            shown.append(
                Row(
                    None,
                    others.dirtied + sum(one.dirtied for one in hidden),
                    others.written + sum(one.written for one in hidden),
                    others.out_of_normal + sum(one.out_of_normal for one in hidden),
                    sum(one.dirtied_rate for one in hidden),
                    sum(one.written_rate for one in hidden),
                )
            )
        return shown
