"""Records of one size in the kernel's ring buffer (kernel/bpf/ringbuf.c), read as an array.

Its file descriptor maps as one page with the reader's position, one with the writers', and the data twice in a row, so that no
record wraps. Before each record the kernel writes its length, with a bit that stays set until the record is complete.
Memory order: see pydbt/kernel/ring.py.
"""

from __future__ import annotations

import mmap

import numpy as np

from pydbt.kernel.record import BUSY, RING_HEADER_BYTES


class IoRing:
    """``dtype``: of a record, whose size is a multiple of 8. For one thread at a time."""

    def __init__(self, fd: int, size_bytes: int, dtype: np.dtype) -> None:
        assert dtype.itemsize % 8 == 0
        self._size = size_bytes
        self._placed = np.dtype([("length", "<u4"), ("unused", "<u4"), ("record", dtype)])
        assert self._placed.itemsize == RING_HEADER_BYTES + dtype.itemsize
        page = mmap.PAGESIZE
        self._control = mmap.mmap(fd, page)
        self._memory = mmap.mmap(fd, page + 2 * size_bytes, prot=mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._control, "<u8", 1)
        self._producer = np.frombuffer(self._memory, "<u8", 1)
        self._data = np.frombuffer(self._memory, "u1", 2 * size_bytes, page)

    def close(self) -> None:
        """Unmap. The descriptor is its owner's."""
        del self._consumer, self._producer, self._data
        self._control.close()
        self._memory.close()

    def drain(self) -> np.ndarray:
        """A copy of the records that are complete, in their order; their room is free again."""
        start, step = int(self._consumer[0]), self._placed.itemsize
        count = (int(self._producer[0]) - start) // step
        offset = start % self._size
        placed = self._data[offset : offset + count * step].view(self._placed)
        busy = placed["length"] & BUSY != 0
        if busy.any():
            placed = placed[: int(busy.argmax())]
        records: np.ndarray = placed["record"].copy()
        self._consumer[0] = start + len(records) * step
        return records
