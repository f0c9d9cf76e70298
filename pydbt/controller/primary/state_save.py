"""One write of the state file. It is asked for in the loop's thread, and done in the writer's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydbt.core.errors import StateError
from pydbt.store.volume_state import VolumeState, save_state

_log = logging.getLogger("pydbt")


@dataclass(frozen=True, slots=True)
class SaveEnded:
    """The write of this number has ended; ``error`` is empty when the state is on the disk."""

    number: int
    error: str


class StateSave:
    """``before``: done first, in the same thread. ``error`` is there for what the same thread does next. ``state`` is what is
    written, as soon as it has begun."""

    def __init__(self, number: int, state: VolumeState, asked_at: float) -> None:
        self.number, self.asked_at = number, asked_at
        self.error = ""
        self.state, self._before = state, list[Callable[[], None]]()
        self._then = list[Callable[[str], None]]()
        self._lock = threading.Lock()
        self._begun = False
        self._ended = threading.Event()

    def take(self, state: VolumeState) -> bool:
        """Write this one instead; False when it is too late for that."""
        with self._lock:
            if not self._begun:
                self.state = state
            return not self._begun

    def first(self, before: Callable[[], None]) -> None:
        """Do this before it; it may raise StateError. For the one who has asked for it just now, and has not submitted it."""
        self._before.append(before)

    def then(self, told: Callable[[str], None]) -> None:
        """In the loop's thread, when it has ended: it is told the error."""
        self._then.append(told)

    def write(self, state_dir: Path) -> None:
        """In the writer's thread. Whatever happens, ``error`` tells it."""
        with self._lock:
            self._begun = True
        try:
            for act in self._before:
                act()
            save_state(state_dir, self.state)
        except Exception as problem:  # also a fault of ours: what waits for it would wait for ever
            if not isinstance(problem, StateError):
                _log.exception("writing the state failed")
            self.error = str(problem) or repr(problem)
        self._ended.set()

    def wait(self) -> None:
        """In any other thread: until it has ended. StateError when the state is not on the disk."""
        self._ended.wait()
        if self.error:
            raise StateError(self.error)

    def tell(self) -> None:
        """In the loop's thread: whoever waits hears of it."""
        for told in self._then:
            told(self.error)
