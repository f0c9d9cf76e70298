"""A slow step of the loop, which is done in a thread of its own: the loop never waits for a program or a disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pydbt.core.errors import PydbtError


class Job(threading.Thread):
    """It begins at once. When ``ended`` is set, ``result`` is there, or ``error`` is the reason why not.

    ``then`` is called in the thread, after that. A thread that never ends keeps nobody from anything. Where no thread can be
    started, because there are too many, that is the error.
    """

    def __init__(self, name: str, work: Callable[[], Any], then: Callable[[], None] | None = None) -> None:
        super().__init__(name=name, daemon=True)
        self._work, self._then = work, then
        self.ended = threading.Event()
        self.result: Any = None
        self.error = ""
        try:
            self.start()
        except RuntimeError as error:
            self.error = str(error)
            self._end()

    def run(self) -> None:
        try:
            self.result = self._work()
        except (PydbtError, OSError) as error:
            self.error = str(error)
        except Exception as error:  # a fault of ours: who waits must hear of it all the same
            self.error = repr(error)
        self._end()

    def _end(self) -> None:
        self.ended.set()
        if self._then is not None:
            self._then()
