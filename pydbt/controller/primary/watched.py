"""Something that is collected only while somebody looks: it begins with the first question, and ends some time after the last.

It has a thread of its own, so that neither its start nor its failure touches the loop that replicates.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from pydbt.core.errors import PydbtError

WATCHED_S = 15.0
"""After the last question."""
_INTERVAL_S = 1.0
# A start that failed would fail again: whoever asks every second must not begin one every second.
_RETRY_S = 30.0
_PATIENT_RETRY_S = 600.0
_END_S = 5.0

_log = logging.getLogger("pydbt")


class WatchedPrograms(Protocol):
    """Used by one thread. ``turn`` comes about once per second; PydbtError ends it, and its sentence is the problem."""

    def turn(self) -> None: ...
    def report(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


class WhileWatched:
    """``answer`` may be called from several threads. ``begin`` makes the collector, in its thread; it may raise PydbtError."""

    def __init__(
        self, name: str, begin: Callable[[], WatchedPrograms], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._begin, self._clock = name, begin, clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._report: dict[str, Any] = {}
        self._problem = ""
        self._asked_at = self._failed_at = float("-inf")
        self._closed = self._begun = False

    def answer(self) -> dict[str, Any]:
        """The last report, with ``problem`` (empty when there is none) and ``starting``, while there is none yet."""
        with self._lock:
            self._ask(_RETRY_S)
            return {**self._report, "problem": self._problem, "starting": not self._report and not self._problem}

    def keep(self) -> None:
        """Go on, or begin, as if somebody had asked; but after a failure nobody waits for the next attempt."""
        with self._lock:
            self._ask(_PATIENT_RETRY_S)

    def last(self) -> dict[str, Any]:
        """The last report with ``problem``, and ``running``, without asking for more of them."""
        with self._lock:
            return {**self._report, "problem": self._problem, "running": self._thread is not None}

    def close(self) -> None:
        """End it, and wait for that, but for a start under way: that one ends by itself when it has begun. Idempotent.

        One that hangs, as on a disk that does not answer, is not waited for: its programs end with this process.
        """
        with self._lock:
            self._closed = True
            thread = self._thread if self._begun else None
        self._wake.set()
        if thread is not None:
            thread.join(_END_S)
            if thread.is_alive():
                _log.warning("%s does not end within %g s, and is left behind", self._name, _END_S)

    def _ask(self, retry_s: float) -> None:
        self._asked_at = self._clock()
        if self._thread is None and not self._closed and self._clock() >= self._failed_at + retry_s:
            self._start()

    def _start(self) -> None:
        self._problem = ""
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no memory for a thread, or too many of them
            self._fail(f"no thread can be started: {error}")
        else:
            self._thread = thread

    def _fail(self, problem: str) -> None:
        self._problem, self._failed_at, self._report = problem, self._clock(), {}

    def _run(self) -> None:
        try:
            collector = self._begin()
            try:
                self._begun = True
                self._collect(collector)
            finally:
                collector.close()
                self._begun = False
        except (PydbtError, OSError, MemoryError) as error:
            with self._lock:
                self._fail(str(error) or "there is too little memory")
        except Exception as error:
            _log.exception("%s failed", self._name)
            with self._lock:
                self._fail(f"it failed inside the controller: {type(error).__name__}; see its log")
        finally:
            with self._lock:
                self._thread = None

    def _collect(self, collector: WatchedPrograms) -> None:
        while True:
            self._wake.wait(_INTERVAL_S)
            collector.turn()
            report = collector.report()
            with self._lock:
                if self._closed or self._clock() >= self._asked_at + WATCHED_S:
                    self._report = {}
                    return
                self._report = report
