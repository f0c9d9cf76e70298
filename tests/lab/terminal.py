"""A terminal for tests: a program on a pseudo terminal, and what a person would see of it, cell by cell."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyte

from tests.lab.patience import PATIENCE_S

_READ_BYTES = 65536
_QUIET_S = 0.3


class Terminal:
    """A running program and its screen. ``sent``: every byte that it wrote."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], columns: int, rows: int) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.sent = bytearray()
        self._master, follower = os.openpty()
        self._set_size(columns, rows)
        self.settings_before = termios.tcgetattr(follower)
        self.process = os.fork()
        if self.process == 0:  # pragma: no cover
            os.setsid()
            fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
            for descriptor in (0, 1, 2):
                os.dup2(follower, descriptor)
            os.closerange(3, 1024)
            os.execvpe(words[0], list(words), dict(environment))
        self._follower = follower

    def type(self, keys: str | bytes) -> None:
        os.write(self._master, keys if isinstance(keys, bytes) else keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        self._set_size(columns, rows)
        os.kill(self.process, signal.SIGWINCH)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def text(self) -> str:
        """The screen, one line per row."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def settings(self) -> list[Any]:
        """As ``stty`` has them."""
        return termios.tcgetattr(self._follower)

    def read(self, seconds: float) -> None:
        """Take in what the program writes meanwhile."""
        if select.select([self._master], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                got = os.read(self._master, _READ_BYTES)
                self.sent += got
                self._stream.feed(got)

    def until(self, holds: Callable[[str], bool], what: str) -> str:
        """Wait until the screen is so; AssertionError with the screen when it never is. The screen."""
        give_up = time.monotonic() + PATIENCE_S
        while not holds(self.text):
            assert time.monotonic() < give_up, f"never on the screen: {what}\n{self.text}"
            self.read(0.1)
        return self.text

    def until_shown(self, words: str) -> str:
        return self.until(lambda text: words in text, words)

    def until_quiet(self) -> None:
        """Until nothing was written for a moment."""
        before = -1
        while before != len(self.sent):
            before = len(self.sent)
            self.read(_QUIET_S)

    def end(self, number: int | None = None) -> int:
        """Wait for its end, after this signal if one is given; its exit code, or the negative number of the signal."""
        if number is not None:
            os.kill(self.process, number)
        give_up = time.monotonic() + PATIENCE_S
        while (ended := os.waitpid(self.process, os.WNOHANG))[0] == 0:
            assert time.monotonic() < give_up, f"it does not end\n{self.text}"
            self.read(0.05)
        self.until_quiet()
        self.process = 0
        return os.waitstatus_to_exitcode(ended[1])

    def close(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self._master)
        os.close(self._follower)


@contextlib.contextmanager
def terminal(words: Sequence[str], *, columns: int = 80, rows: int = 24, **environment: str) -> Iterator[Terminal]:
    """A program on a terminal of this size; it is killed at the end if it still runs."""
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LINES", "COLUMNS")}
    made = Terminal(words, {**known, "TERM": "xterm", "LC_ALL": "C.UTF-8", **environment}, columns, rows)
    try:
        yield made
    finally:
        made.close()
