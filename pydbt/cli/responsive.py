"""Keeps a command that runs for long from ever waiting for whoever reads its stderr."""

from __future__ import annotations

import contextlib
import os
import select
import sys

from pydbt.cli.logs import missing_line
from pydbt.posix.background_stream import BackgroundStream
from pydbt.posix.descriptor_stream import DescriptorStream

# At its end a command waits for its last lines to go out, and no longer than this.
LAST_LINES_S = 2.0


def write_in_background() -> None:
    """From here on nothing in this process waits for its stderr, or fails because of it.

    The log, the live progress line, and the sentence about an error all go there.
    """
    if isinstance(sys.stderr, BackgroundStream):
        return
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # closed at the start, or replaced by somebody who is no descriptor
        return
    sys.stderr = BackgroundStream(descriptor, missing_line)


class _Unhurried(DescriptorStream):
    """In the place of ``sys.stderr`` where no thread may be: a line that nobody takes at once is dropped."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            if select.select([], [self._descriptor], [], 0)[1]:
                os.write(self._descriptor, text.encode(self.encoding, self.errors))
        return len(text)


def write_without_waiting() -> None:
    """From here on this process, which has no other thread, never waits for its stderr."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr = _Unhurried(sys.stderr.fileno())


def write_as_at_the_start() -> None:
    """In a process that was forked from one with another stderr."""
    sys.stderr = sys.__stderr__


def finish_writing() -> None:
    """The end of a command: let the last lines go out, if somebody takes them."""
    if isinstance(sys.stderr, BackgroundStream):
        sys.stderr.drain(LAST_LINES_S)
        sys.stderr = sys.__stderr__
