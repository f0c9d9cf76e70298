"""A bounded piece of memory for frames between the socket and the disk.

``allocate`` gives the first range that fits. A range is freed when the last view of it is gone, in any order. A caller that
asks for more than is free waits; this is the back-pressure on the primary.
"""

from __future__ import annotations

import bisect
import threading
import weakref

import numpy as np

ALIGN = 64


class ArenaClosed(Exception):
    """The arena was closed."""


class Arena:
    """``size_bytes`` of memory; ``allocate`` waits until a range of the wanted size is free."""

    def __init__(self, size_bytes: int) -> None:
        self._memory = np.empty(size_bytes, dtype=np.uint8)
        self._size = size_bytes
        self._free: list[tuple[int, int]] = [(0, size_bytes)]  # (begin, end), ascending, never adjacent
        self._changed = threading.Condition(threading.RLock())  # a finalizer may run inside of allocate
        self._closed = False

    @property
    def used_bytes(self) -> int:
        with self._changed:
            return self._size - sum(end - begin for begin, end in self._free)

    def allocate(self, size_bytes: int) -> memoryview:
        """A view of exactly ``size_bytes``. Raises ArenaClosed after ``close``."""
        room = -(-max(size_bytes, 1) // ALIGN) * ALIGN
        assert room <= self._size, "a frame fits the arena"
        with self._changed:
            while not self._closed:
                begin = self._take(room)
                if begin is not None:
                    break
                self._changed.wait()
            else:
                raise ArenaClosed
        chunk = self._memory[begin : begin + size_bytes]
        # Views are made of a memoryview of the chunk, which keeps this very array alive (numpy's own
        # slices would refer to the whole memory instead).
        weakref.finalize(chunk, self._give_back, begin, begin + room).atexit = False
        return chunk.data

    def close(self) -> None:
        """Wake every waiting thread; each gets ArenaClosed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, room: int) -> int | None:
        for index, (begin, end) in enumerate(self._free):
            if end - begin >= room:
                self._free[index : index + 1] = [(begin + room, end)] if end - begin > room else []
                return begin
        return None

    def _give_back(self, begin: int, end: int) -> None:
        with self._changed:
            index = bisect.bisect(self._free, (begin, end))
            if index < len(self._free) and self._free[index][0] == end:
                end = self._free.pop(index)[1]
            if index and self._free[index - 1][1] == begin:
                index -= 1
                begin = self._free.pop(index)[0]
            self._free.insert(index, (begin, end))
            self._changed.notify_all()
