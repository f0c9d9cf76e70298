"""Commands from the control socket on their way to the loop, and their answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from pydbt.core.errors import PydbtError, UsageError

# What a request may carry besides its command; null is as if it were not there.
_TEXT, _NUMBER, _WHOLE, _TRUTH = (str,), (int, float), (int,), (bool,)
_WORDS = {_TEXT: "a text", _NUMBER: "a number", _WHOLE: "a whole number", _TRUTH: "true or false"}
_KINDS = {
    "secondary": _TEXT, "peer": _TEXT, "timeout": _NUMBER, "rate_limit": _WHOLE,
    "any": _TRUTH, "repair": _TRUTH, "cancel": _TRUTH,
}  # fmt: skip


def check_arguments(arguments: dict[str, Any]) -> None:
    """UsageError unless a request's arguments are of the kinds that the loop counts on: it would end of another."""
    for name, kinds in _KINDS.items():
        value = arguments.get(name)
        if value is not None and type(value) not in kinds:
            raise UsageError(f"{name} of a request is {_WORDS[kinds]}, not {value!r}")
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
