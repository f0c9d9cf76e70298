"""Acknowledgements: batches count in their order, and an ACK frame is sent only when it has news."""

from __future__ import annotations

from collections import deque

from pydbt.core.protocol.frames import Ack


class BatchOrder:
    """BLOCKS and DIGESTS end in any order. The acknowledged number is the last of the longest run of ended batches."""

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._ended: set[int] = set()
        self._last = -1
        self.through = 0

    def begin(self, batch: int) -> bool:
        """Take a batch's number; False when it does not rise."""
        if batch <= self._last:
            return False
        self._last = batch
        self._open.append(batch)
        return True

    def end(self, batch: int) -> None:
        """This batch is durable (or answered)."""
        self._ended.add(batch)
        while self._open and self._open[0] in self._ended:
            self.through = self._open.popleft()
            self._ended.discard(self.through)


class AckFilter:
    """An ACK is news when anything in it has changed, except for the progress of the target itself."""

    def __init__(self) -> None:
        self._last: tuple[int, ...] | None = None

    def news(self, ack: Ack) -> bool:
        said = (ack.sequence, ack.batch, ack.resync_committed, ack.staged_bytes, ack.replica_state, ack.progress)
        if said == self._last:
            return False
        self._last = said
        return True
