"""Runs hooks one after another in a thread of its own: nothing that a hook does holds the controller up.

What does not fit into the queue is dropped and counted. A program that is not safe from other users is not run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from pydbt.core.seen.events import Event
from pydbt.core.seen.hooks import Command, Hooks, Whose, environment
from pydbt.posix.bounded_program import run_bounded
from pydbt.posix.ownership import way_intruder

WAITING_HOOKS_MAX = 100
"""With each hook at the end of its time that is an hour of delay, and more than anybody wants to hear of."""
LAST_HOOKS_S = 5.0
"""At the end of a run, for all that are left: the end of a service waits for them."""
_KILLED_S = 5.0
_LOOSE = stat.S_IWGRP | stat.S_IWOTH

_log = logging.getLogger("pydbt")


@dataclass(frozen=True, slots=True)
class _Due:
    command: Command
    event: Event
    volume: str


class HookRunner:
    """``put`` and ``close`` are called by one thread at a time. ``put`` never waits; ``close`` does for ``LAST_HOOKS_S``."""

    def __init__(self, hooks: Hooks, whose: Whose) -> None:
        self._hooks, self._whose = hooks, whose
        self._queue: queue.Queue[_Due | None] = queue.Queue(WAITING_HOOKS_MAX)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def put(self, event: Event, volume: str) -> None:
        """Have the hooks of an event run soon. ``volume``: its identity, as far as it is known."""
        for command in self._hooks.of(event.name):
            try:
                self._queue.put_nowait(_Due(command, event, volume))
                self._begin()
            except (queue.Full, RuntimeError) as error:
                self._drop(event, error)

    def _begin(self) -> None:
        """RuntimeError: there is no room for a thread; what is in the queue waits for the next event."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="hooks", daemon=True)
            thread.start()
            self._thread = thread

    def _drop(self, event: Event, error: Exception) -> None:
        if not self._dropped:
            why = f"{WAITING_HOOKS_MAX} others wait" if isinstance(error, queue.Full) else str(error)
            _log.warning("hooks are left out from the event %s on: %s", event.name, why)
        self._dropped += 1

    def _run(self) -> None:
        while (due := self._queue.get()) is not None and not self._stop.is_set():
            dropped, self._dropped = self._dropped, 0
            self._run_one(due, dropped)

    def _run_one(self, due: _Due, dropped: int) -> None:
        program, name = due.command[0], due.event.name
        try:
            if problem := why_unsafe(Path(program)):
                _log.error("the hook %s for the event %s is not run: %s", program, name, problem)
                return
            told = environment(due.event, self._whose, due.volume, dropped)
            problem = run_bounded(
                due.command, told, self._hooks.timeout_s, lambda line: _log.info("hook %s: %s", name, line), self._stop
            )
        except Exception as error:  # whatever the machine lacks ends no thread: the next hook may be run
            problem = f"it cannot be run: {error}"
        if problem:
            _log.warning("the hook %s for the event %s failed: %s", program, name, problem)

    def close(self) -> None:
        """Let what is due be run for a moment; then kill what runs and drop the rest."""
        if self._thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=LAST_HOOKS_S)
        self._thread.join(LAST_HOOKS_S)
        if self._thread.is_alive():
            left = self._queue.qsize()
            self._stop.set()
            self._thread.join(_KILLED_S)
            _log.warning("the end did not wait for hooks: one was killed, and %d were not run", max(left - 1, 0))


def why_unsafe(program: Path) -> str:
    """Why a program may not be run for root; empty when it may. One clause: what was expected, and what is there.

    Only root, or this user, may be able to change the program and the folders of its path.
    """
    if not program.is_absolute():
        return "expected the absolute path of a program"
    try:
        # First: where nobody else can change a folder of the path, the program that is checked is the one that is run.
        intruder = way_intruder(program, "use a program elsewhere", whole=True)
        return _why_unsafe_at_its_end(program) or (
            f"expected a path to the program that only root can change: {intruder}" if intruder else ""
        )
    except OSError as error:
        return f"expected a program that is there: {error.strerror}"


def _why_unsafe_at_its_end(program: Path) -> str:
    real = Path(os.path.realpath(program, strict=True))
    status = os.stat(real)
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_IXUSR:
        return "expected a regular file that may be executed"
    for place in (real, *real.parents, *program.parents):
        found = os.stat(place)
        if found.st_uid not in (0, os.geteuid()):
            return f"expected a program of root's, and {place} belongs to user {found.st_uid}"
        loose = stat.S_IMODE(found.st_mode) & _LOOSE
        if loose and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
            return f"expected a program that nobody else may write, and others may write {place} (run chmod go-w on it)"
    return ""
