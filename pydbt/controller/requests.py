"""Commands from the control socket on their way to the loop, and their answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from pydbt.core.errors import PydbtError, UsageError
from pydbt.core.units import NUMBER_MAX

# The arguments that a request may have besides its command; null means none.
_TEXT, _NUMBER, _WHOLE, _TRUTH = (str,), (int, float), (int,), (bool,)
_WORDS = {_TEXT: "a text", _NUMBER: "a number", _WHOLE: "a whole number", _TRUTH: "true or false"}
_KINDS = {
    "secondary": _TEXT, "listen": _TEXT, "peer": _TEXT, "timeout": _NUMBER, "rate_limit": _WHOLE, "since": _WHOLE,
    "start": _WHOLE, "end": _WHOLE, "cells": _WHOLE, "offset": _WHOLE, "from": _NUMBER, "until": _NUMBER,
    "points": _WHOLE, "after": _WHOLE, "transaction": _TEXT,
    "name": _TEXT, "mark": _TEXT, "patient": _TRUTH,
    "any": _TRUTH, "repair": _TRUTH, "cancel": _TRUTH, "sync": _TRUTH,
}  # fmt: skip


def check_arguments(arguments: dict[str, Any]) -> None:
    """UsageError unless a request's arguments have the types that the loop relies on: another type would end it."""
    for name, kinds in _KINDS.items():
        value = arguments.get(name)
        if value is not None and type(value) not in kinds:
            raise UsageError(f"{name} of a request is {_WORDS[kinds]}, not {value!r}")
        if isinstance(value, int) and abs(value) >= NUMBER_MAX:
            raise UsageError(f"{name} of a request is out of range")
    if arguments.get("timeout") is not None and not 0 <= arguments["timeout"] <= threading.TIMEOUT_MAX:
        raise UsageError(f"the timeout of a request is out of range: {arguments['timeout']!r}")
    if arguments.get("rate_limit") is not None and arguments["rate_limit"] <= 0:
        raise UsageError("a rate limit must be more than 0 bytes per second; leave it out for no limit")
    if arguments["command"] in ("add", "remove") and not arguments.get("secondary"):
        raise UsageError(f"name the secondary for {arguments['command']}")


@dataclass(slots=True)
class Request:
    """A command from the control socket, answered by the loop."""

    command: str
    done: threading.Event
    result: dict[str, Any] | None = None
    error: PydbtError | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    """What was known when it was asked: a part of a good answer."""

    def answer(self, result: dict[str, Any]) -> None:
        if not self.done.is_set():
            self.result = result | self.told
            self.done.set()

    def fail(self, error: PydbtError) -> None:
        self.error = error
        self.done.set()


@dataclass(frozen=True, slots=True)
class Gone:
    """The client of this request does not wait any more."""

    request: Request
