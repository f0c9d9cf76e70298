"""Follows the events of controllers: one thread per controller asks again and again, and all lines come out of one queue.

The queue has a bound. A reader that is slow makes the threads wait, and not this process grow: the controllers keep the newest
events, and a line says where some are missing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydbt.controller.changed_role import changed_role
from pydbt.controller.control import call, read_saved_status
from pydbt.core.calendar import in_utc
from pydbt.core.errors import NotRunning, PydbtError, TimedOut
from pydbt.core.seen import event_names as names
from pydbt.core.seen.events import Event, Figure
from pydbt.core.seen.headline import headline
from pydbt.core.seen.view import View

WAITING_LINES_MAX = 1000
_ANSWER_S = 5.0
_POLL_S = 25.0
_POLL_MARGIN_S = 10.0
_AGAIN_S = 1.0
"""Between two looks for a controller that does not answer, and after an answer that came sooner than was asked for."""
_BY_COMMAND = {
    "promoted": (names.PROMOTED, "promoted by a command: it is a volume of its own"),
    "demoted": (names.DEMOTED, "demoted by a command: it is a replica"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One event of one controller. ``role`` and ``place`` as far as they are known."""

    event: Event
    role: str
    place: str
    state_dir: str

    def to_json(self) -> dict[str, Any]:
        """The object for people's programs."""
        whose = {"role": self.role, "place": self.place, "state_dir": self.state_dir}
        return {**self.event.to_json(), **whose}

    def text(self) -> str:
        """``MOMENT PLACE NAME: WORDS``; of several secondaries the one that it is about."""
        about = self.event.figures.get("secondary")
        words = f"{self.event.words} ({about})" if about else self.event.words
        return f"{self.event.moment} {self.place} {self.event.name}: {words}"


def own_event(name: str, words: str, **figures: Figure) -> Event:
    """An event that the command tells by itself: it has no number."""
    moment = in_utc(datetime.now(UTC))
    return Event(0, moment, name, words, figures)


@dataclass(slots=True)
class Followed:
    """One controller: its socket or state directory in ``where``, and what is known of it. ``deaf``: why it tells no events."""

    where: Path
    state_dir: str
    place: str = ""
    role: str = ""
    running: bool = False
    next: int = 0
    deaf: str = ""
    _run: str = field(default="", repr=False)
    _last_name: str = field(default="", repr=False)
    _changed: str = field(default="", repr=False)

    def exists(self) -> list[Line]:
        """As it is now, in one line; a controller that does not answer is told as such. PydbtError when it cannot be asked."""
        try:
            status = View(call(self.where, {"command": "status"}, _ANSWER_S))
            if not self.running and not self._run:
                self._listen()
        except NotRunning as error:
            self.running = False
            self._name(View(read_saved_status(self.state_dir) if self.state_dir else None))
            self._changed = self._changed_role()
            return [self.line_of(own_event(names.NOT_RUNNING, str(error)))]
        self.running, self._changed = True, ""
        self._name(status)
        figures: dict[str, Figure] = {
            "role": self.role,
            "mode": status.text("mode"),
            "replica_state": status.text("replica_state"),
            "connected": status.flag("connected"),
            "out_of_sync_bytes": status.whole("out_of_sync_bytes"),
            "lag_s": status.number("lag_seconds"),
        }
        exists = self.line_of(own_event(names.EXISTS, headline(status, datetime.now(UTC)), **figures))
        return [exists, self.line_of(own_event(names.GAP, self.deaf))] if self.deaf else [exists]

    def _listen(self) -> None:
        """From now on. A controller of an earlier version, or of another user, tells no events."""
        try:
            self._ask(0, 0.0)
        except NotRunning:
            raise
        except PydbtError as error:
            self.deaf = f"its events cannot be followed: {error}"

    def more(self) -> list[Line]:
        """What happened next; empty when nothing did for a while. PydbtError when it cannot be asked."""
        if self.deaf:
            return []
        if not self.running:
            return self._look_for_it()
        try:
            events, lost = self._ask(self.next, _POLL_S)
        except NotRunning as error:
            self.running = False
            if self._last_name == names.STOPPED:
                return self._role_changes()
            return [self.line_of(own_event(names.NOT_RUNNING, str(error)))]
        except TimedOut as error:
            return [self.line_of(own_event(names.GAP, str(error)))]
        return self._lines(events, lost)

    def _look_for_it(self) -> list[Line]:
        """A controller that was started again: what there is now, and everything that it has told since its start."""
        first, changed = not self._run, self._role_changes()
        found = self.exists()
        if not self.running or first or self.deaf:
            return [*changed, *(found if self.running else [])]
        return [*changed, *found, *self._lines(*self._ask(self.next, 0.0))]

    def _ask(self, since: int, timeout_s: float) -> tuple[list[Event], bool]:
        """The events behind a number, and whether others are missing before them. After a new start: all that there are."""
        answer = self._call(since, timeout_s)
        run = answer.text("run") or ""
        if again := bool(self._run) and run != self._run:
            answer = self._call(0, 0.0)
        self._run, self.next = run, answer.whole("next") or 0
        events = [event for one in answer.parts("events") if (event := Event.from_values(one.values)) is not None]
        lost = self._last_name != names.STOPPED if again else answer.flag("lost") is True
        return events, lost

    def _call(self, since: int, timeout_s: float) -> View:
        request = {"command": "events", "since": since, "timeout": timeout_s}
        return View(call(self.where, request, timeout_s + _POLL_MARGIN_S))

    def _lines(self, events: Iterable[Event], lost: bool) -> list[Line]:
        made = [self.line_of(event) for event in events]
        if made:
            self._last_name = made[-1].event.name
        for line in made:
            if line.event.name in _BY_COMMAND:
                self._changed = line.event.name
        if lost:
            made.insert(0, self.line_of(own_event(names.GAP, "events are missing here; the next ones are the newest")))
        return made

    def _role_changes(self) -> list[Line]:
        """A command may have changed the role of what its controller has left. What was told of that is not told again."""
        changed = self._changed_role()
        if changed in ("", self._changed):
            return []
        self._changed = changed
        return [self.line_of(own_event(*_BY_COMMAND[changed]))]

    def _changed_role(self) -> str:
        """A member of the group has no state directory to look into."""
        if not self.state_dir:
            return ""
        saved = View(read_saved_status(self.state_dir))  # a replica is promoted by a process that saves its status
        return changed_role(Path(self.state_dir), saved.text("role") or self.role)

    def _name(self, status: View) -> None:
        self.role = status.text("role") or self.role
        self.place = status.text("source") or status.text("target") or self.place or self.state_dir

    def line_of(self, event: Event) -> Line:
        return Line(event, self.role, self.place, self.state_dir)


class Following:
    """Threads that put lines into ``lines``. They end with the process: none of them holds anything."""

    def __init__(self) -> None:
        self.lines: queue.Queue[Line] = queue.Queue(WAITING_LINES_MAX)
        self._pause = threading.Event()

    def follow(self, one: Followed) -> None:
        """Begin to follow a controller; RuntimeError when this machine has no room for a thread."""
        threading.Thread(target=self._run, args=(one,), name="follow", daemon=True).start()

    def _run(self, one: Followed) -> None:
        while True:
            try:
                found = one.more()
            except PydbtError as error:
                found = [one.line_of(own_event(names.NOT_RUNNING, str(error)))] if one.running else []
                one.running = False
            for line in found:
                self.lines.put(line)
            if not found:
                self._pause.wait(_AGAIN_S)
