"""Commands that wait until writes are durable: their requests by token."""

from __future__ import annotations

from collections.abc import Callable

from pydbt.controller.requests import Request
from pydbt.core.errors import DeviceError, PydbtError
from pydbt.core.primary import events as ev

# The wait of the loop itself, when it ends; the waits of commands are numbered from 1.
LAST_SNAPSHOT_TOKEN = 0


class WaitingRequests:
    """Called from the loop's thread alone."""

    def __init__(self) -> None:
        self._requests: dict[int, Request] = {}
        self._numbers: dict[int, tuple[int, ...] | None] = {}
        self._next_token = 1

    def add(self, request: Request, position: int, numbers: tuple[int, ...] | None) -> ev.WaitAsked:
        """The event that begins the wait of a request; ``numbers`` of the secondaries, None for all."""
        token, self._next_token = self._next_token, self._next_token + 1
        self._requests[token], self._numbers[token] = request, numbers
        return ev.WaitAsked(token, position, numbers, bool(request.arguments.get("any")))

    def answer(self, token: int, sequence: int, unreadable: Callable[[tuple[int, ...] | None, bool], str]) -> None:
        """The condition of a wait holds. It fails all the same if ``unreadable`` names blocks that these secondaries, or
        one of them, cannot get."""
        request, numbers = self._requests.pop(token, None), self._numbers.pop(token, None)
        if request is None:
            return
        if problem := unreadable(numbers, bool(request.arguments.get("any"))):
            request.fail(DeviceError(problem))
        else:
            request.answer({"sequence": sequence})

    def forget(self, request: Request) -> list[ev.WaitGone]:
        """Its client does not wait any more; the events that end its wait."""
        tokens = [token for token, waiting in self._requests.items() if waiting is request]
        for token in tokens:
            del self._requests[token], self._numbers[token]
        return [ev.WaitGone(token) for token in tokens]

    def fail(self, error: PydbtError, meant: Callable[[Request], bool] = lambda request: True) -> list[Request]:
        """Answer requests with an error: all of them, or those that are ``meant``. They are still here after that."""
        failed = [request for request in self._requests.values() if meant(request)]
        for request in failed:
            request.fail(error)
        return failed
