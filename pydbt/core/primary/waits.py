"""Who waits for what: ``controller wait`` ends once every write completed before it is durable on the secondary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Wait:
    position: int
    sequence: int | None = None


class Waits:
    """Waits by token. A wait is for a ring position first, and for the sequence number there once it is known."""

    def __init__(self) -> None:
        self._waits: dict[int, _Wait] = {}

    def __bool__(self) -> bool:
        return bool(self._waits)

    def add(self, token: int, position: int) -> None:
        self._waits[token] = _Wait(position)

    def drop(self, token: int) -> None:
        """Nobody waits for this one any more."""
        self._waits.pop(token, None)

    def reached(self, position: int, sequence: int) -> None:
        """Everything before a ring position was taken in; the last write in it has this sequence number."""
        for wait in self._waits.values():
            if wait.sequence is None and position >= wait.position:
                wait.sequence = sequence

    def done(self, acknowledged: int, oldest_unsettled: int | None) -> list[int]:
        """Waits whose writes are durable and whose blocks are settled; call it in normal mode only."""
        through = acknowledged if oldest_unsettled is None else min(acknowledged, oldest_unsettled - 1)
        return [token for token, wait in self._waits.items() if wait.sequence is not None and wait.sequence <= through]
