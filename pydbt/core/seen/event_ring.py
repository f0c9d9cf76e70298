"""The newest events of a controller, and who has seen which: numbers that go on growing, also over a new start."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from pydbt.core.seen.change_words import NamedChange
from pydbt.core.seen.events import Event

EVENTS_MAX = 1000
"""Of one volume: half a MiB at most, and days of an ordinary one."""


class Answered(NamedTuple):
    """``next``: what the next question names; ``lost``: there were others between these and those of the last question."""

    events: tuple[Event, ...]
    next: int
    lost: bool


@dataclass(slots=True)
class EventRing:
    """``first`` is the number before the first event of this run: larger than any of a run before, if clocks are right."""

    first: int
    _events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS_MAX))

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._events[-1].number if self._events else self.first

    def add(self, change: NamedChange, moment: str) -> Event:
        """Give a change its number. The oldest event makes room."""
        event = change.as_event(self.last + 1, moment)
        self._events.append(event)
        return event

    def since(self, number: int) -> Answered:
        """The events behind a number; 0: all that are kept. A number of another run, of which the clock went back, is lost."""
        oldest = self._events[0].number if self._events else self.last + 1
        if number == 0:
            return Answered(tuple(self._events), self.last, False)
        if number > self.last or number < oldest - 1:
            return Answered(tuple(self._events), self.last, True)
        return Answered(tuple(event for event in self._events if event.number > number), self.last, False)
