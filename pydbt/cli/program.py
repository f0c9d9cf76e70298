"""The name of the program, and how it ends when a signal comes early. It imports next to nothing: see ``main``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

INTERRUPTED = 130  # 128 + SIGINT, as in a shell
PIPE_CLOSED = 141  # 128 + SIGPIPE
TERMINATED = 143  # 128 + SIGTERM
# They run until they are stopped: SIGTERM is their ordinary end, also during their start.
SERVICES = ("run", "secondary", "dashboard")


class Stopped(BaseException):
    """SIGTERM came while a service started: what it had begun is undone, as after Ctrl-C. No failure, so no Exception."""


def program_name() -> str:
    """The name this program was called by: ``controller`` or ``pydbt``."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return name if name in ("controller", "pydbt") else "controller"


_before: dict[signal.Signals, Any] = {}


def end_early(handler: Callable[[int, FrameType | None], None]) -> None:
    """Until ``signals_as_usual`` a signal goes to ``handler``. One that was ignored stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            _before[number] = signal.signal(number, handler)


def signals_as_usual() -> None:
    """The command is loaded, and begins: from here on a signal is its own business."""
    while _before:
        number, handler = _before.popitem()
        signal.signal(number, handler)
