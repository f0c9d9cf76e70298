"""Waits for several secondaries: over when each of them has answered, or the first, as was asked.

A secondary that lacks blocks which it cannot get ends a wait for all of them, and one for the first when none is left that
does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydbt.core.primary.events import WaitAsked


@dataclass(slots=True)
class _Wait:
    left: set[int]
    first: bool
    lacking: set[int] = field(default_factory=set)

    @property
    def is_vain(self) -> bool:
        """Whether it cannot end well by itself."""
        return self.left <= self.lacking if self.first else bool(self.left & self.lacking)


class SharedWaits:
    """By token; the brains keep the positions and sequence numbers."""

    def __init__(self) -> None:
        self._waits: dict[int, _Wait] = {}

    def add(self, event: WaitAsked, peers: list[int]) -> list[int]:
        """Whom to ask: those that are named, or all there are."""
        asked = peers if event.peers is None else [peer for peer in peers if peer in event.peers]
        self._waits[event.token] = _Wait(set(asked), event.first)
        return asked

    def drop(self, token: int) -> None:
        """Nobody waits for this one any more."""
        self._waits.pop(token, None)

    def answered(self, token: int, peer: int) -> list[int] | None:
        """One secondary has everything. When that is enough, the wait is over: those that need not answer any more."""
        wait = self._waits.get(token)
        if wait is None:
            return None
        wait.left.discard(peer)
        if wait.left and not wait.first:
            return None
        del self._waits[token]
        return sorted(wait.left)

    def lacks(self, token: int, peer: int) -> list[int] | None:
        """One secondary lacks what it cannot get. When the wait is in vain, it is over: those that need not answer any more."""
        wait = self._waits.get(token)
        if wait is None:
            return None
        wait.lacking.add(peer)
        if not wait.is_vain:
            return None
        del self._waits[token]
        return sorted(wait.left)

    def lost(self, token: int) -> list[int]:
        """What is waited for will be on no secondary, and the wait is over: those that need not answer any more."""
        wait = self._waits.pop(token, None)
        return [] if wait is None else sorted(wait.left)

    def forget(self, peer: int) -> list[tuple[int, int | None]]:
        """A secondary is removed: the waits that waited for nobody else, and are over; with a number, because that secondary
        lacks what it cannot get, and no other one can end them well."""
        over: list[tuple[int, int | None]] = []
        for token, wait in list(self._waits.items()):
            wait.left.discard(peer)
            if not wait.left or wait.is_vain:
                del self._waits[token]
                over.append((token, min(wait.left, default=None)))
        return over
