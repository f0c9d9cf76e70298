"""Where the loop sleeps while nothing is written: until the kernel has a record, the inbox something, or a deadline comes."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from typing import Protocol

TOGETHER_S = 0.005
"""What comes within this time of a sleeper's waking is taken together with it."""


class Ringing(Protocol):
    """pydbt.kernel.bell.Bell"""

    fd: int

    def ask(self) -> None: ...
    def quiet(self) -> None: ...


class Rest:
    """``wait`` is called from the loop's thread alone, ``ring`` from every thread and from signal handlers."""

    def __init__(self, bell: Ringing) -> None:
        self._bell = bell
        self._own = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        for descriptor in (bell.fd, self._own):
            self._poll.register(descriptor, select.EPOLLIN)
        self._records = select.poll()
        self._records.register(bell.fd, select.POLLIN)
        self._asleep = False

    def close(self) -> None:
        """After the last ``ring``."""
        self._poll.close()
        os.close(self._own)

    def ring(self) -> None:
        """Something was put into the inbox."""
        if self._asleep:
            os.eventfd_write(self._own, 1)

    def wait(self, seconds: float, has_work: Callable[[], bool]) -> None:
        """Sleep, unless there is work: what comes after the look at it rings.

        What another thread brings rarely comes alone: a secondary answers to all that it was sent together. So a moment is
        waited for the rest of it, and a turn takes it all. A record of the kernel waits for nothing.
        """
        self._asleep = True
        try:
            self._bell.ask()
            if not has_work() and [descriptor for descriptor, _ in self._poll.poll(seconds)] == [self._own]:
                self._records.poll(1000 * TOGETHER_S)
        finally:
            self._asleep = False
            self._bell.quiet()
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._own)
