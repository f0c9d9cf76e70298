"""Commands from the control socket on their way to the loop, and their answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from pydbt.core.errors import PydbtError, UsageError

# What a request may carry besides its command; null is as if it were not there.
_KINDS = {
    "secondary": (str,), "peer": (str,), "timeout": (int, float), "rate_limit": (int,),
    "any": (bool,), "repair": (bool,), "cancel": (bool,),
}  # fmt: skip


def check_arguments(arguments: dict[str, Any]) -> None:
    """UsageError unless a request's arguments are of the kinds that the loop counts on: it would end of another."""
    for name, kinds in _KINDS.items():
        value = arguments.get(name)
        if value is not None and type(value) not in kinds:
            raise UsageError(f"{name} of a request is a {' or '.join(kind.__name__ for kind in kinds)}, not {value!r}")
    if arguments.get("timeout") is not None and not 0 <= arguments["timeout"] <= threading.TIMEOUT_MAX:
        raise UsageError(f"the timeout of a request is no time to wait: {arguments['timeout']!r}")
    if arguments.get("rate_limit") is not None and arguments["rate_limit"] <= 0:
        raise UsageError("a rate limit must be more than 0 bytes a second; leave it out for no limit")
    if arguments["command"] in ("add", "remove") and not arguments.get("secondary"):
        raise UsageError(f"say which secondary is meant by {arguments['command']}")


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
