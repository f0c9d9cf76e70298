"""Waiting that ends when a person has had enough: Ctrl-C and SIGTERM are noticed at every step, never in the middle."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from types import FrameType

from pydbt.core.errors import PydbtError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_S = 0.05
# For whatever takes seconds: it bounds a hang, on slow and busy machines too.
PATIENCE_S = 120.0


class Interrupted(PydbtError):
    """A person ended the demo."""

    exit_code = 130


class StepFailed(PydbtError):
    """A step of the demo did not work."""


class Patience:
    """Whether it was asked to end. ``check`` and every wait raise Interrupted then, until ``ignore`` is called.

    A signal only leaves a note: what is being made is made to its end, and can so be taken away again.
    """

    def __init__(self) -> None:
        self._asked = False
        self._ignored = False

    def listen(self) -> None:
        """From now on signals leave their note here."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def ignore(self) -> None:
        """Taking down is not to be disturbed, neither we nor the programs that are run for it."""
        self._ignored = True
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def check(self) -> None:
        if self._asked and not self._ignored:
            raise Interrupted("interrupted")

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _LOOK_S))

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Poll until it comes true. StepFailed with ``what`` was waited for when it does not in time."""
        end = time.monotonic() + timeout_s
        while not condition():
            self.check()
            if time.monotonic() > end:
                raise StepFailed(f"not within {timeout_s:g} s: {what}")
            time.sleep(_LOOK_S)

    def run(self, *command: object, timeout_s: float = PATIENCE_S) -> str:
        """A program's output. StepFailed with its own words when it fails. It does not see the terminal's Ctrl-C."""
        words = [str(word) for word in command]
        with _start(words) as process:
            end = time.monotonic() + timeout_s
            while True:
                try:
                    output, errors = process.communicate(timeout=_LOOK_S)
                    break
                except subprocess.TimeoutExpired:
                    late = time.monotonic() > end
                    if late or (self._asked and not self._ignored):
                        process.terminate()
                        process.communicate()
                        self.check()
                        raise StepFailed(f"`{' '.join(words)}` did not end within {timeout_s:g} s") from None
        if process.returncode:
            self.check()
            said = " / ".join((errors.strip() or output.strip() or "no word").splitlines())
            raise StepFailed(f"`{' '.join(words)}` ended with exit code {process.returncode}: {said}")
        return output


def _start(words: Sequence[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise StepFailed(f"`{words[0]}` cannot be run: {error.strerror}") from None
