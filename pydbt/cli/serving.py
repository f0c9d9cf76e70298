"""The start of a command that runs until it is stopped."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from pydbt.cli.program import Stopped


@contextlib.contextmanager
def heeding_sigterm() -> Iterator[None]:
    """Until the service runs and listens to it, SIGTERM undoes what the start has done, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped
