"""Writes maps to disk in a thread of its own, one behind the other: no disk under the state directory holds the loop up."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger("pydbt")


class MapWriter:
    """Called from the loop's thread alone. A job tells its result by itself; it is done in that thread."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Do this after everything that was submitted before."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="maps", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no memory for a thread, or too many of them: better late than never
                _do(job)
                return
            self._thread = thread
        self._jobs.put(job)

    def wait(self) -> None:
        """Until everything that was submitted is done."""
        if self._thread is not None:
            done = threading.Event()
            self._jobs.put(done.set)
            done.wait()

    def close(self) -> None:
        """End the thread when everything that was submitted is done; it holds nobody up."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            _do(job)


def _do(job: Callable[[], None]) -> None:
    try:
        job()
    except Exception:  # a fault of ours; later maps are still to be written
        _log.exception("writing a map failed")
