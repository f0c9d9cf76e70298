"""The events of one controller: kept for those who ask, given to hooks, to systemd's journal, and to the history."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid5

from pydbt.controller.control import ClientGone
from pydbt.controller.history import HistoryKeeper
from pydbt.controller.hook_runner import HookRunner
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.requests import check_arguments
from pydbt.core.calendar import in_utc
from pydbt.core.errors import BusyError
from pydbt.core.seen import event_names as names
from pydbt.core.seen.change_words import NamedChange
from pydbt.core.seen.changes import Changes
from pydbt.core.seen.event_ring import EventRing
from pydbt.core.seen.events import Event
from pydbt.core.seen.hooks import Hooks, Whose, variables
from pydbt.core.seen.view import View
from pydbt.posix.journal import Journal

POLLS_MAX = 8
"""Questions that wait for an event, each in a thread of the control socket. More are answered at once, and ask again."""
LONGEST_QUESTION_S = 30.0
LOOK_INTERVAL_S = 1.0
_GONE_S = 1.0
_LACKING = ("out_of_sync_bytes", "unacknowledged_bytes")
_MESSAGE_IDS = UUID("5b0f7d7e-3c43-4a55-9f0b-6a4c7a3d1e52")


class Telling(Protocol):
    """What a controller tells of itself."""

    def to_json(self) -> dict[str, Any]:
        """The status."""


class EventLog:
    """``look`` and ``end`` are called by the controller's own thread, ``say`` by any, ``answer`` by those of its socket."""

    def __init__(self, hooks: Hooks, whose: Whose, journal: Journal | None = None) -> None:
        self._whose, self._journal = whose, journal
        self._changes = Changes(hooks.late_after_s)
        self._runner = HookRunner(hooks, whose)
        self._ring = EventRing(
            int(time.time() * 1000)
        )  # later than each number of an earlier run, if the clock is right
        self._run = secrets.token_hex(8)
        self._changed = threading.Condition()
        self._polls = threading.BoundedSemaphore(POLLS_MAX)
        self._volume, self._ended = "", False
        self._telling = threading.Lock()
        self._next_look = 0.0
        self._history: HistoryKeeper | None = None
        self._lacking: dict[str, Any] = {}  # the last exact figures

    def look(self, report: Callable[[], Telling], now: float, *, exact: bool = True) -> None:
        """Tell what is different from the status before. Not more often than once in ``LOOK_INTERVAL_S``.

        Not ``exact``: what the volume lacks is an upper bound in this status; the history keeps the last exact figures.
        """
        if now >= self._next_look:
            self._next_look = now + LOOK_INTERVAL_S
            status = View(report().to_json())
            self._volume = status.text("volume") or self._volume
            self._tell(self._changes.look(status, now))
            if self._history is not None:
                self._history.look(self._with_exact(status.values, exact))

    def _with_exact(self, status: Mapping[str, Any], exact: bool) -> Mapping[str, Any]:
        if exact:
            self._lacking = {name: status[name] for name in _LACKING if status.get(name) is not None}
        known = {name: size for name, size in self._lacking.items() if status.get(name) is not None}
        return {**status, **known}

    def keep_history(self) -> None:
        """From here on figures and events are written to the history in the state directory."""
        self._history = HistoryKeeper(Path(self._whose.state_dir), self._whose.role, self._since)

    @property
    def history_problem(self) -> str:
        """Why the history cannot be written; empty when it can, or when none is kept."""
        return "" if self._history is None else self._history.problem

    def say(self, name: str, words: str) -> None:
        """Tell what no status shows."""
        self._tell([NamedChange(name, words)])

    def end(self, words: str = "stopped") -> None:
        """The last event, unless there was none before; hooks are waited for a moment. Harmless when called again."""
        if self._ended:
            return
        begun = self._ring.last > self._ring.first
        self._tell([NamedChange(names.STOPPED, words)] if begun else [], ended=True)
        if self._history is not None:
            self._history.close()
        self._runner.close()
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> EventLog:
        self.keep_history()
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        self.end("stopped" if error is None else f"stopped: {error}")

    def _tell(self, changes: list[NamedChange], *, ended: bool = False) -> None:
        moment = in_utc(datetime.now(UTC))
        with self._changed:
            events = [self._ring.add(change, moment) for change in changes]
            self._ended = self._ended or ended
            self._changed.notify_all()
        with self._telling:
            for event in events:
                self._runner.put(event, self._volume)
                if self._journal is not None:
                    self._journal.send(journal_fields(event, self._whose, self._volume))

    def answer(self, arguments: Mapping[str, Any], gone: ClientGone) -> dict[str, Any]:
        """The answer to ``history``; or the events behind number ``since``, and without any of them the answer comes after
        ``timeout`` seconds, or sooner. UsageError.

        ``run`` is another one after a new start: then the number of the last question says nothing.
        """
        check_arguments(dict(arguments))
        if arguments["command"] == "history":
            return self._told_history(arguments)
        since, timeout_s = arguments.get("since") or 0, min(arguments.get("timeout") or 0.0, LONGEST_QUESTION_S)
        with self._changed:
            if timeout_s and self._polls.acquire(blocking=False):
                try:
                    self._wait(since, time.monotonic() + timeout_s, gone)
                finally:
                    self._polls.release()
            found = self._ring.since(since)
        events = [event.to_json() for event in found.events]
        return {"events": events, "next": found.next, "lost": found.lost, "run": self._run}

    def _told_history(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self._history is None:
            raise BusyError("the controller has only begun, and keeps no history yet: try again in a moment")
        return self._history.answer(arguments)

    def _since(self, number: int) -> tuple[tuple[Event, ...], int]:
        with self._changed:
            found = self._ring.since(number)
        return found.events, found.next

    def _wait(self, since: int, deadline: float, gone: ClientGone) -> None:
        while (left_s := deadline - time.monotonic()) > 0 and not self._ended:
            found = self._ring.since(since)
            if found.events or found.lost or gone():
                return
            self._changed.wait(min(left_s, _GONE_S))


def events_of_primary(options: PrimaryOptions) -> EventLog:
    """Of the volume that these options are about."""
    return _event_log("primary", options.source, options)


def events_of_secondary(options: SecondaryOptions) -> EventLog:
    """Of the replica that these options are about."""
    return _event_log("secondary", options.target, options)


def _event_log(role: str, path: Path, options: PrimaryOptions | SecondaryOptions) -> EventLog:
    name = options.volume_file.stem if options.volume_file is not None else str(path)
    whose = Whose(role, str(path), name, str(options.state_dir))
    return EventLog(options.hooks, whose, Journal.of_this_service())


def journal_fields(event: Event, whose: Whose, volume: str) -> dict[str, str]:
    """An entry for ``journalctl PYDBT_EVENT=...``: what a hook finds in its environment, and what every entry has."""
    return {
        "MESSAGE": f"{whose.name}: {event.name}: {event.words}",
        "MESSAGE_ID": uuid5(_MESSAGE_IDS, event.name).hex,
        "PRIORITY": str(int(names.NAMES[event.name].gravity)),
        "SYSLOG_IDENTIFIER": "pydbt",
        **variables(event, whose, volume),
    }
