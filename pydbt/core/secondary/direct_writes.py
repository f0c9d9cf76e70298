"""What is written past the journal, straight to the target: on its way, written, and at last durable.

Its acknowledgements wait for a sync of the target. A sync per write would cost more than the writes: little is made durable
some time after the last sync, much at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

from pydbt.core.protocol.frames import Blocks, Stream
from pydbt.core.secondary.config import SecondaryConfig


@dataclass(frozen=True, slots=True)
class DirectWrite:
    """A Write that was handed to the applier for a connection."""

    ticket: int
    frame: Blocks | Stream
    connection: int


class DirectWrites:
    """The direct writes whose end is not known to be durable, in the order of their tickets."""

    def __init__(self, config: SecondaryConfig) -> None:
        self._config = config
        self._under_way: deque[DirectWrite] = deque()
        self._unsynced: deque[DirectWrite] = deque()
        self._unsynced_bytes = 0
        self._resting_until = -inf

    @property
    def under_way(self) -> bool:
        """Is one not written yet?"""
        return bool(self._under_way)

    @property
    def none_left(self) -> bool:
        """Is everything durable?"""
        return not self._under_way and not self._unsynced

    def add(self, write: DirectWrite) -> None:
        self._under_way.append(write)

    def written(self, ticket: int) -> None:
        """The write of ``ticket`` and all before it are written, not yet durable."""
        while self._under_way and self._under_way[0].ticket <= ticket:
            write = self._under_way.popleft()
            self._unsynced.append(write)
            self._unsynced_bytes += write.frame.payload_bytes

    def made_durable(self, ticket: int) -> list[DirectWrite]:
        """These are durable now: those whose ticket is below that of a Sync or Compare."""
        ended: list[DirectWrite] = []
        while self._unsynced and self._unsynced[0].ticket < ticket:
            ended.append(self._unsynced.popleft())
        return ended

    def synced(self, now: float) -> None:
        """A Sync is over: little may rest from here on."""
        self._unsynced_bytes = 0
        self._resting_until = now + self._config.sync_seconds

    def wants_sync(self, now: float) -> bool:
        much = self._config.sync_bytes if self._under_way else self._config.sync_bytes // 4
        rested = not self._under_way and now >= self._resting_until
        return bool(self._unsynced) and (rested or self._unsynced_bytes >= much)

    def deadline(self) -> float | None:
        """When time alone makes a sync due."""
        return self._resting_until if self._unsynced and not self._under_way else None
