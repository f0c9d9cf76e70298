"""Commands from the control socket on their way to the loop, and their answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from pydbt.core.errors import PydbtError


@dataclass(slots=True)
class Request:
    """A command from the control socket, answered by the loop."""

    command: str
    done: threading.Event
    result: dict[str, Any] | None = None
    error: PydbtError | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def answer(self, result: dict[str, Any]) -> None:
        if not self.done.is_set():
            self.result = result
            self.done.set()

    def fail(self, error: PydbtError) -> None:
        self.error = error
        self.done.set()


@dataclass(frozen=True, slots=True)
class Gone:
    """Nobody waits for the answer to this request any more."""

    request: Request
