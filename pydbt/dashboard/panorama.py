"""The newest picture of each machine, for whoever looks; and who looks, for those that take the pictures.

Nobody asks a controller anything while nobody looks. Safe for threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pydbt.core.seen.sight import Sight, aged

FADES_S = 2.0
"""A picture that is older is looked at as what it is: the photographer may hang, or nobody has looked for an hour."""

Call = Callable[[], None]


@dataclass(frozen=True, slots=True)
class MachinePicture:
    """One machine as it was seen. ``problem``: why nothing newer is known of all of it; ``heard_seconds``: since it
    answered, None: never.
    """

    name: str
    reachable: bool = True
    problem: str = ""
    heard_seconds: float | None = 0.0
    sights: list[Sight] = field(default_factory=list)
    taken: float = field(default_factory=time.monotonic)

    def at(self, now: float) -> MachinePicture:
        """As it is to be taken ``now``: an old picture is no picture of now."""
        late_s = now - self.taken
        if late_s < FADES_S:
            return self
        silence = self.problem or "it was not asked for the status since"
        sights = [
            aged(sight, late_s, sight.problem if sight.stale else silence, datetime.now(UTC)) for sight in self.sights
        ]
        heard_s = None if self.heard_seconds is None else self.heard_seconds + late_s
        return replace(self, heard_seconds=heard_s, sights=sights, taken=now)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "reachable": self.reachable,
            "problem": self.problem,
            "heard_seconds": None if self.heard_seconds is None else round(self.heard_seconds, 1),
            "volumes": [sight.to_json() for sight in self.sights],
        }


class Panorama:
    """Pictures by the number of their photographer, which is their order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pictures: dict[int, MachinePicture] = {}
        self._answered: dict[int, int] = {}
        self._wakers: list[Call] = []
        self._listeners: set[Call] = set()
        self._watchers = 0
        self._wanted = 0

    # --- for those that take pictures -----------------------------------------------------------------------
    def join(self, name: str, waker: Call) -> int:
        """A photographer of a machine; its number. ``waker`` is called when somebody begins to look."""
        with self._lock:
            number = len(self._wakers)
            self._wakers.append(waker)
            self._pictures[number] = MachinePicture(name, False, "it was not asked yet", None)
            self._answered[number] = 0
        return number

    def wanted(self, number: int) -> tuple[bool, int]:
        """Whether somebody looks all the time, or waits for a picture now; and the wish that the next picture answers."""
        with self._lock:
            return self._watchers > 0 or self._answered[number] < self._wanted, self._wanted

    def put(self, number: int, picture: MachinePicture, wish: int) -> None:
        """The newest picture. ``wish``: as ``wanted`` told it before the picture was begun."""
        with self._lock:
            self._pictures[number] = picture
            self._answered[number] = max(wish, self._answered[number])
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    # --- for those that look --------------------------------------------------------------------------------
    def machines(self) -> list[MachinePicture]:
        """The newest picture of each, this machine first."""
        now = time.monotonic()
        with self._lock:
            pictures = list(self._pictures.values())
        return [picture.at(now) for picture in pictures]

    @contextmanager
    def watched(self, listener: Call) -> Iterator[None]:
        """As long as this lasts pictures are taken all the time, and ``listener`` is called, by any thread, at each new one."""
        with self._lock:
            self._watchers += 1
            self._listeners.add(listener)
            wakers = list(self._wakers)
        for wake in wakers:
            wake()
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1
                self._listeners.discard(listener)

    @contextmanager
    def waiting(self, listener: Call) -> Iterator[Callable[[], bool]]:
        """One picture of each machine is taken now; the answer tells whether all are there. ``listener`` as above."""
        with self._lock:
            self._wanted += 1
            wish = self._wanted
            self._listeners.add(listener)
            wakers = list(self._wakers)
        for wake in wakers:
            wake()
        try:
            yield lambda: self._is_answered(wish)
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def _is_answered(self, wish: int) -> bool:
        with self._lock:
            return all(answered >= wish for answered in self._answered.values())
