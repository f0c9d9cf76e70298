"""What a command prints on stdout: a failure there is told apart from every other error."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any

from pydbt.core.errors import OutputError


class ReaderGone(Exception):
    """Nobody reads the output any more. No OSError: click would end the process on that, with a code of its own."""


class _Output(io.FileIO):
    """What is written after a failure counts as written, so that nothing fails on it again."""

    _failed = False

    def write(self, data: Any, /) -> int:
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except BrokenPipeError:
            self._failed = True
            raise ReaderGone from None
        except OSError as error:
            self._failed = True
            raise OutputError(f"the output cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def output_of_commands() -> Iterator[None]:
    """Within it, ``sys.stdout`` raises ReaderGone and OutputError, and escapes what is no text, as a file's name may be."""
    before = sys.stdout
    if isinstance(before, io.TextIOWrapper):
        try:
            output = _Output(before.fileno(), "w", closefd=False)
        except (OSError, ValueError):  # it is in memory
            before.reconfigure(errors="backslashreplace")
        else:
            before.flush()
            sys.stdout = io.TextIOWrapper(
                io.BufferedWriter(output), before.encoding, "backslashreplace", line_buffering=before.line_buffering
            )
    try:
        yield
    finally:
        with contextlib.suppress(ReaderGone, OutputError):
            if sys.stdout is not None:
                sys.stdout.flush()
        sys.stdout = before
