"""Looks that may take a while, one after the other in a thread of their own: who asks for one never waits."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)


class Background:
    """Results by name. ``done`` is called, by its thread, after each."""

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._asked: queue.SimpleQueue[tuple[str, Callable[[], Any]]] = queue.SimpleQueue()
        self._pending: set[str] = set()
        self._results: dict[str, Any] = {}
        self._lock = threading.Lock()
        # It may stand in a look at a disk that hangs: the end of the program does not wait for it.
        self._thread = threading.Thread(target=self._run, name="dashboard-slow", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def want(self, name: str, look: Callable[[], Any]) -> None:
        """Have it done, unless it is on its way."""
        with self._lock:
            if name in self._pending:
                return
            self._pending.add(name)
        self._asked.put((name, look))

    def result(self, name: str) -> Any:
        """The newest result; None before the first."""
        with self._lock:
            return self._results.get(name)

    def is_pending(self, name: str) -> bool:
        with self._lock:
            return name in self._pending

    def forget(self, name: str) -> None:
        with self._lock:
            self._results.pop(name, None)

    def _run(self) -> None:
        while True:
            name, look = self._asked.get()
            try:
                result = look()
            except Exception as error:
                _log.warning("%s cannot be looked at: %s", name, error, exc_info=error)
                result = None
            with self._lock:
                self._pending.discard(name)
                if result is not None:
                    self._results[name] = result
            self._done()
