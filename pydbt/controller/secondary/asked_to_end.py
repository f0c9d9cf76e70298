"""A signal that asks this process to end, and comes between two of its roles: each listens with handlers of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

_asked = False


def end_by_signals(end: Callable[[], object], *, first: bool = False) -> None:
    """From now on SIGTERM and SIGINT call ``end``; at once where one came after the role before had stopped to listen.

    ``first``: no role was before in this process. In the main thread alone: others hear no signals.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():
        return
    if first:
        _asked = False

    def heard(*_: object) -> None:
        global _asked
        _asked = True
        end()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heard)
    if _asked:
        end()
