"""What may be acknowledged: batches in their order, and an ACK frame only when it says something new."""

from __future__ import annotations

from collections import deque

from pydbt.core.protocol.frames import Ack


class BatchOrder:
    """BLOCKS and DIGESTS end in any order; what is acknowledged is the longest run of ended ones."""

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
        """This batch is durable (or answered). Numbers of an earlier connection are ignored."""
        self._ended.add(batch)
        while self._open and self._open[0] in self._ended:
            self.through = self._open.popleft()
            self._ended.discard(self.through)


class AckFilter:
    """Lets an ACK pass when anything in it changed but how far the target itself has come."""

    def __init__(self) -> None:
        self._last: tuple[int, ...] | None = None

    def news(self, ack: Ack) -> bool:
        said = (ack.sequence, ack.batch, ack.resync_committed, ack.staged_bytes, ack.replica_state, ack.progress)
        if said == self._last:
            return False
        self._last = said
        return True
