"""The bell: the programs' way to wake a controller that sleeps because nothing is written.

It is a ring buffer of the kernel (kernel/bpf/ringbuf.c) of one page, whose file descriptor can be polled. Nobody reads its
content. A program rings only when the controller has asked for it, once; a volume that is written to costs nothing for it.
"""

from __future__ import annotations

import mmap
import threading

import numpy as np


class Bell:
    """``config``: one element of dtype CONFIG, mapped."""

    def __init__(self, fd: int, config: np.ndarray) -> None:
        self.fd = fd
        self._config = config
        self._control = mmap.mmap(fd, mmap.PAGESIZE)
        self._memory = mmap.mmap(fd, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._consumer = np.frombuffer(self._control, "<u8", 1)
        self._producer = np.frombuffer(self._memory, "<u8", 1)
        self._fence = threading.Lock()

    def close(self) -> None:
        """Unmap. The descriptor is its owner's."""
        self._config["waiting"] = 0
        del self._consumer, self._producer, self._config
        self._control.close()
        self._memory.close()

    def ask(self) -> None:
        """The next record rings. Look for records after this: one that was emitted before does not ring."""
        self._config["waiting"] = 1
        with self._fence:  # a locked instruction: the look at the ring cannot happen before the flag is seen
            pass

    def quiet(self) -> None:
        """No record rings; what has rung is forgotten."""
        self._config["waiting"] = 0
        self._consumer[0] = self._producer[0]
