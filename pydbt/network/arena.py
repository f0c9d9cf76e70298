"""A bounded piece of memory for frames between the socket and the disk.

Ranges are given out in a circle and come back by themselves when the last view of them is gone, in any order.
Who asks for more than is free waits: that is the back-pressure on the primary.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque

import numpy as np

ALIGN = 64


class ArenaClosed(Exception):
    """Nobody will free anything any more."""


class Arena:
    """``size_bytes`` of memory; ``allocate`` blocks until the range asked for is free."""

    def __init__(self, size_bytes: int) -> None:
        self._memory = np.empty(size_bytes, dtype=np.uint8)
        self._size = size_bytes
        self._head = 0
        self._live: deque[list[int]] = deque()  # [begin, end, freed], in order of allocation
        self._changed = threading.Condition(threading.RLock())  # a finalizer may run inside of allocate
        self._closed = False

    @property
    def used_bytes(self) -> int:
        with self._changed:
            return sum(end - begin for begin, end, freed in self._live if not freed)

    def allocate(self, size_bytes: int) -> memoryview:
        """A view of exactly ``size_bytes``. Raises ArenaClosed after ``close``."""
        room = -(-max(size_bytes, 1) // ALIGN) * ALIGN
        assert room <= self._size, "a frame fits the arena"
        with self._changed:
            while (begin := self._place(room)) is None:
                if self._closed:
                    raise ArenaClosed
                self._changed.wait()
            if self._closed:
                raise ArenaClosed
            entry = [begin, begin + room, 0]
            self._live.append(entry)
            self._head = begin + room
        chunk = self._memory[begin : begin + size_bytes]
        # Views are made of a memoryview of the chunk, which keeps this very array alive (numpy's own
        # slices would refer to the whole memory instead).
        weakref.finalize(chunk, self._free, entry).atexit = False
        return memoryview(chunk)

    def close(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _place(self, room: int) -> int | None:
        while self._live and self._live[0][2]:
            self._live.popleft()
        if not self._live:
            return 0
        first = self._live[0][0]
        if self._head > first:
            if self._size - self._head >= room:
                return self._head
            return 0 if first >= room else None
        return self._head if first - self._head >= room else None

    def _free(self, entry: list[int]) -> None:
        with self._changed:
            entry[2] = 1
            self._changed.notify_all()
