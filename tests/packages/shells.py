"""Completion as a person at a terminal gets it: a shell on a terminal, keys that are typed, and what it then shows."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import time
from pathlib import Path
from types import TracebackType

# How long an answer takes is no part of what is tested; this is for one that never comes.
PATIENCE_S = 200.0
_MARKS = re.compile(r"\x1b\[[0-9;?>=]*[a-zA-Z]|\x1b[=>]|\x1b\][^\x07]*\x07|\r|\x07")


class Terminal:
    """A shell on a terminal, as for a person. It reads no files of the user."""

    def __init__(self, words: list[str], home: Path, **environment: str) -> None:
        given = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm", "COLUMNS": "200", "LC_ALL": "C.UTF-8"}
        self.shown = ""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            with contextlib.suppress(BaseException):
                os.chdir(home)
                os.execvpe(words[0], words, {**given, **environment})
            os._exit(127)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)

    def keys(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until(self, words: str) -> str:
        """What it has shown since the last call, up to these words."""
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.shown:
            assert time.monotonic() < deadline, f"no {words!r} in {self.shown!r}"
            if select.select([self._terminal], [], [], 1.0)[0]:
                self.shown = _MARKS.sub("", self.shown + os.read(self._terminal, 65536).decode(errors="replace"))
        before, _, self.shown = self.shown.partition(words)
        return before + words
