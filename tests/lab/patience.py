"""Waiting that has an end, and other programs run to theirs.

A condition is polled until it holds or its time is over. A ``Patience`` notices Ctrl-C and SIGTERM at every step of
such a wait, and never in the middle of one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from pydbt.core.errors import PydbtError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# For whatever takes seconds. It bounds a hang, on slow and busy machines too, and measures nothing.
PATIENCE_S = float(os.environ.get("TORTURE_PATIENCE_S") or 120.0)
_LOOK_S = 0.05
# Between two looks at a condition: soon after the beginning, and later no more often than this.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.005, 0.15
# A look may cost what is waited for, and costs an emulated machine much more: it gets four times its time to itself.
_LONGEST_PAUSE_S = 0.25


class Interrupted(PydbtError):
    """A person ended the demo."""

    exit_code = 130


class StepFailed(PydbtError, AssertionError):
    """A step of the bench did not work: a failure of a test, and one sentence for people in the demo and the figures."""


def wait_until(
    condition: Callable[[], Any],
    description: str,
    timeout_s: float = PATIENCE_S,
    interval_s: float | None = None,
    check: Callable[[], None] | None = None,
) -> None:
    """Poll until it holds. StepFailed with the description when it does not in time. ``check`` may raise in between.

    ``interval_s``: the pause between two looks, for what measures; else see ``pause_s``.
    """
    began = looks_at = time.monotonic()
    while not condition():
        if check is not None:
            check()
        now = time.monotonic()
        if now > began + timeout_s:
            raise StepFailed(f"not within {timeout_s:g} s: {description}")
        time.sleep(pause_s(now - began, now - looks_at) if interval_s is None else interval_s)
        looks_at = time.monotonic()


def pause_s(waited_s: float, look_s: float) -> float:
    """The pause before the next look. It grows with the time waited so far, and with the time that one look takes."""
    return max(_FIRST_PAUSE_S, min(waited_s / 20, _LAST_PAUSE_S), min(4 * look_s, _LONGEST_PAUSE_S))


def until(condition: Callable[[], Any], description: str, timeout_s: float = PATIENCE_S) -> None:
    """``wait_until`` for whatever takes seconds."""
    wait_until(condition, description, timeout_s)


def run(
    *command: object,
    check: bool = True,
    timeout_s: float | None = None,
    ended: Callable[[], bool] = lambda: False,
) -> str:
    """Run a program and return its output. StepFailed with the program's output when it fails, or is late.

    It does not see the terminal's Ctrl-C. ``ended`` is asked again and again, and stops the program when it is true.
    """
    words = [str(word) for word in command]
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with _start(words) as process:
        try:
            while True:
                try:
                    output, errors = process.communicate(timeout=_LOOK_S)
                    break
                except subprocess.TimeoutExpired:
                    if ended() or (deadline is not None and time.monotonic() > deadline):
                        process.terminate()
                        process.communicate()
                        raise StepFailed(f"`{' '.join(words)}` did not end in time") from None
        except BaseException:
            process.kill()
            raise
    if check and process.returncode:
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


class Patience:
    """Whether it was asked to end. ``check`` and every wait raise Interrupted then, until ``ignore`` is called.

    A signal only leaves a note: a thing that is being made is made to its end, and can so be taken away again.
    """

    def __init__(self) -> None:
        self._asked = False
        self._ignored = False

    def listen(self) -> None:
        """From now on signals leave their note here."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def ignore(self) -> None:
        """Taking down is not to be disturbed, neither this process nor the programs that it runs for that."""
        self._ignored = True
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _is_over(self) -> bool:
        return self._asked and not self._ignored

    def check(self) -> None:
        if self._is_over():
            raise Interrupted("interrupted")

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _LOOK_S))

    def until(self, condition: Callable[[], bool], description: str, timeout_s: float = PATIENCE_S) -> None:
        """Poll until it holds. StepFailed with the description when it does not in time."""
        wait_until(condition, description, timeout_s, _LOOK_S, self.check)

    def run(self, *command: object, timeout_s: float = PATIENCE_S) -> str:
        """A program's output. StepFailed with the program's output when it fails."""
        try:
            return run(*command, timeout_s=timeout_s, ended=self._is_over)
        except StepFailed:
            self.check()
            raise
