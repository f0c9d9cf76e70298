"""The loop's inbox: whatever other threads have for it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass

from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.peer_connection import Attempt
from pydbt.controller.primary.state_save import SaveEnded
from pydbt.controller.requests import Gone, Request
from pydbt.core.primary import events as ev


@dataclass(frozen=True, slots=True)
class Heard:
    """From a thread that works for one secondary."""

    peer: Peer
    what: ev.Event | Attempt


@dataclass(frozen=True, slots=True)
class Wake:
    """Nothing but an end of the waiting."""


@dataclass(frozen=True, slots=True)
class Reload:
    """SIGHUP: the identity and the revoked keys are to be read again."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A look at what lies below the volume has ended."""


Posted = Request | Gone | Heard | Wake | Reload | Looked | SaveEnded


class Inbox:
    """``post`` may be called from any thread; the rest from the loop's alone."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Posted] = queue.SimpleQueue()
        self.ring: Callable[[], None] | None = None  # wakes the loop when it sleeps elsewhere than here

    def post(self, item: Posted) -> None:
        self._queue.put(item)
        if self.ring is not None:
            self.ring()

    @property
    def empty(self) -> bool:
        return self._queue.empty()

    def take(self, timeout_s: float) -> Posted | None:
        """The next item, waiting for it at most this long; None when there is none."""
        try:
            return self._queue.get(timeout=timeout_s) if timeout_s else self._queue.get_nowait()
        except queue.Empty:
            return None

    def left(self) -> list[Request]:
        """Commands that nobody will carry out any more."""
        requests = []
        while not self._queue.empty():
            if isinstance(item := self._queue.get_nowait(), Request):
                requests.append(item)
        return requests
