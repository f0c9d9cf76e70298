"""A log that a flapping link or a full ring cannot flood."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

# Lines of one kind in one window; further ones are counted, and their number is logged once.
LINES = 6
WINDOW_S = 10.0
# Lines that begin alike are of one kind: the figures come later in them.
KIND_LENGTH = 20


class LogLimit:
    """Logs at most LINES lines of a kind in WINDOW_S seconds."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}

    def log(self, level: int, message: str) -> None:
        if not self._logger.isEnabledFor(level):
            return
        now, kind = self._clock(), message[:KIND_LENGTH]
        began, count = self._windows.get(kind, (now, 0))
        if now - began >= WINDOW_S:
            if count > LINES:
                self._logger.log(
                    level, "%d more lines like the next one in the last %.0f s", count - LINES, now - began
                )
            began, count = now, 0
        self._windows[kind] = (began, count + 1)
        if count < LINES:
            self._logger.log(level, "%s", message)
