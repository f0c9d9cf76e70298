"""When something that is repeated is due again, although a clock may have been wrong, or its cause may never end."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

CANCELLED_REST_S = 3600.0
"""A comparison that answers a taint begins again this long after somebody has cancelled one: nothing else ends a taint."""
LONGEST_REST_S = 3600.0
"""Between two comparisons that answer one cause. A cause that was quiet for this long after an answer is a new one."""
_LEAST_REST_S = 1.0


def due_in_s(every_s: float, since_last_s: float | None) -> float:
    """How long to wait before the next time; the caller counts it on the monotonic clock.

    ``since_last_s`` is a difference of dates, the last of which may have been written down by a clock that was years ahead: it
    is less than nothing then, and says nothing. None: there was no last time.
    """
    if since_last_s is None:
        return 0.0
    return min(max(0.0, every_s - since_last_s), every_s)


@dataclass(frozen=True, slots=True)
class TaintRest:
    """Taints are not answered before ``until``, of the monotonic clock. ``told``: it was told already that this one rests."""

    until: float
    reason: str
    told: bool = True


@dataclass(slots=True)
class _Row:
    """One comparison after the other answered the same words."""

    ended_at: float
    rest_s: float = 0.0
    told: bool = False
    came_again: bool = False


class TaintRests:
    """How long a comparison that answers taints waits, so that a cause which does not end leaves disks and network some rest.

    The first answer comes at once, and so does the second: what a comparison has already passed may be written during it. From
    then on the rest is at least as long as the comparison took, and doubles with each answer, up to ``LONGEST_REST_S``.
    """

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    def answered(self, reasons: Iterable[str], began_at: float, ended_at: float) -> None:
        """A comparison that was to answer these has ended."""
        for reason in reasons:
            before = self._rows.get(reason)
            if before is None:
                self._rows[reason] = _Row(ended_at)
                continue
            rest_s = min(max(_LEAST_REST_S, ended_at - began_at, 2 * before.rest_s), LONGEST_REST_S)
            self._rows[reason] = _Row(ended_at, rest_s, before.told)

    def look(self, reasons: Collection[str], now: float) -> TaintRest | None:
        """What keeps these taints from being answered now. One without a rest is answered at once, and all others with it."""
        for reason, row in list(self._rows.items()):
            if now - row.ended_at > LONGEST_REST_S and not row.came_again:
                del self._rows[reason]
            elif reason in reasons:
                row.came_again = True
        rows = [(self._rows[reason], reason) for reason in reasons if reason in self._rows]
        if len(rows) < len(reasons) or not rows:
            return None
        row, reason = min(rows, key=lambda one: one[0].ended_at + one[0].rest_s)
        if now >= (until := row.ended_at + row.rest_s):
            return None
        told, row.told = row.told, True
        return TaintRest(until, reason, told)
