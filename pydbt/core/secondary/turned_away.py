"""Which of the peers that are turned away have a line in the log: for each reason one per minute, and proven peers apart.

So strangers who come all the time hide neither the line about the operator's own machine nor each other's reasons. Whatever they
do, the memory and the number of lines are bounded.
"""

from __future__ import annotations

from dataclasses import dataclass

INTERVAL_S = 60.0
MAX_STRANGER_REASONS = 16
MAX_PROVEN_REASONS = 64
"""Reasons at a time; further ones share one line. Proven names come from the authority, and are few."""
_OTHERS = ("", "")


@dataclass(slots=True)
class _Reason:
    quiet_until: float = 0.0
    unlogged: int = 0


class TurnedAwayLines:
    """The lines of one listening socket; times by one clock that only grows."""

    def __init__(self) -> None:
        self._strangers: dict[tuple[str, str], _Reason] = {}
        self._proven: dict[tuple[str, str], _Reason] = {}

    def line(self, name: str, reason: str, now: float) -> int | None:
        """None: no line for this one. Else how many of its kind have had none since the last line.

        ``name`` is the one that the peer has proved, empty for a stranger; ``reason`` names its kind.
        """
        if name:
            entry = _entry(self._proven, (name, reason), MAX_PROVEN_REASONS, now)
        else:
            entry = _entry(self._strangers, (name, reason), MAX_STRANGER_REASONS, now)
        if now < entry.quiet_until:
            entry.unlogged += 1
            return None
        unlogged, entry.unlogged = entry.unlogged, 0
        entry.quiet_until = now + INTERVAL_S
        return unlogged


def _entry(table: dict[tuple[str, str], _Reason], kind: tuple[str, str], most: int, now: float) -> _Reason:
    if kind not in table and len(table) >= most:
        for old in [one for one, entry in table.items() if entry.quiet_until <= now]:
            del table[old]
        if len(table) >= most:
            kind = _OTHERS
    return table.setdefault(kind, _Reason(now))
