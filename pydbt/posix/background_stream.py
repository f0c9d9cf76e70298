"""Text for whoever reads a file descriptor, written by a thread of its own, so that nobody who writes has to wait.

A terminal that is stopped (Ctrl-S), a pipe that nobody reads, a log service that hangs, a full disk: each of them makes a
write wait or fail. Text waits in a queue of bounded size instead. What finds no room in it, or cannot be written, is dropped
and counted. When text can be written again, a line says how much is missing.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from pydbt.posix.descriptor_stream import DescriptorStream
from pydbt.posix.privileges import keep_only

# Some thousand log lines: more than any burst of them.
QUEUE_BYTES = 512 * 1024

Missing = Callable[[int], str]
"""The line that says that this many lines are missing."""


class BackgroundStream(DescriptorStream):
    """In the place of ``sys.stderr``. ``write`` neither waits nor fails, and may be called from every thread.

    The descriptor stays open, and is not the stream's to close.
    """

    def __init__(self, descriptor: int, missing: Missing, queue_bytes: int = QUEUE_BYTES) -> None:
        super().__init__(descriptor)
        self._missing, self._queue_bytes = missing, queue_bytes
        # Reentrant: a signal handler may write while this thread is in write().
        self._changed = threading.Condition(threading.RLock())
        self._pieces: deque[tuple[bytes, int]] = deque()  # with how many lines are missing before each
        self._waiting_bytes = 0
        self._refused = 0  # lines that found no room since the last piece in the queue
        self._torn = False  # the last line that was written lacks its end
        self.dropped_lines = 0
        threading.Thread(target=self._run, name="stderr", daemon=True).start()

    # --- for those who write ------------------------------------------------------------------------------
    def write(self, text: str) -> int:
        piece = text.encode(self.encoding, self.errors)
        with self._changed:
            if self._waiting_bytes + len(piece) > self._queue_bytes:
                self._refused += self._drop(piece)
            elif piece:
                self._pieces.append((piece, self._refused))
                self._refused = 0
                self._waiting_bytes += len(piece)
                self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Nothing: text goes out as soon as it can. See ``drain``."""

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything is written or dropped. False: it takes longer."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._waiting_bytes:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    # --- the thread ---------------------------------------------------------------------------------------
    def _run(self) -> None:
        with contextlib.suppress(OSError):
            keep_only((), runs_programs=False)  # its thread is there before the others, with all that the start needs
        unwritten = 0
        while True:
            with self._changed:
                while not self._pieces:
                    self._changed.wait()
                piece, refused = self._pieces.popleft()
            lost = unwritten + refused
            told = not lost or self._put(self._missing(lost).encode(self.encoding, self.errors))
            written = told and self._put(piece)
            with self._changed:
                unwritten = (0 if told else lost) + (0 if written else self._drop(piece))
                self._waiting_bytes -= len(piece)
                self._changed.notify_all()

    def _put(self, piece: bytes) -> bool:
        """Write all of it, however long that takes. False: it cannot be written now."""
        begun = b"\n" if self._torn else b""  # so that the line begins a line of its own
        left = memoryview(begun + piece)
        try:
            while left:
                left = left[self._write(left) :]
        except OSError:
            written = len(begun + piece) - len(left)
            self._torn = written > len(begun) if written else self._torn
            return False
        self._torn = False
        return True

    def _write(self, piece: memoryview) -> int:
        try:
            return os.write(self._descriptor, piece)
        except BlockingIOError:  # another process of the terminal has made it so
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0

    def _drop(self, piece: bytes) -> int:
        lines = piece.count(b"\n")
        self.dropped_lines += lines
        return lines
