"""Commands that wait until writes are durable: their requests by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydbt.controller.requests import Request
from pydbt.core.errors import PydbtError
from pydbt.core.primary import events as ev
from pydbt.core.transactions.asked_transaction import AskedTransaction

# The wait of the loop itself, when it ends; the waits of commands are numbered from 1.
LAST_SNAPSHOT_TOKEN = 0


class WaitingRequests:
    """Called from the loop's thread alone."""

    def __init__(self) -> None:
        self._requests: dict[int, Request] = {}
        self._next_token = 1

    def add(
        self,
        request: Request,
        position: int,
        numbers: tuple[int, ...] | None,
        transaction: AskedTransaction | None = None,
    ) -> ev.WaitAsked:
        """The event that begins the wait of a request; ``numbers`` of the secondaries, None for all. One with a time limit uses
        all of it before it gives up blocks that the target may take after all."""
        token = self.take(request)
        has_limit = request.arguments.get("timeout") is not None
        return ev.WaitAsked(token, position, numbers, bool(request.arguments.get("any")), has_limit, transaction)

    def take(self, request: Request) -> int:
        """The token of a request that is answered later."""
        token, self._next_token = self._next_token, self._next_token + 1
        self._requests[token] = request
        return token

    def answer(self, token: int, sequence: int) -> None:
        """The condition of a wait holds."""
        self.answer_with(token, {"sequence": sequence})

    def answer_with(self, token: int, result: dict[str, Any]) -> None:
        """The condition of a wait holds; the answer."""
        if (request := self._requests.pop(token, None)) is not None:
            request.answer(result)

    def give_up(self, token: int, problem: PydbtError) -> None:
        """The condition of a wait cannot come to hold."""
        if (request := self._requests.pop(token, None)) is not None:
            request.fail(problem)

    def forget(self, request: Request) -> list[ev.WaitGone]:
        """Its client does not wait any more; the events that end its wait."""
        tokens = [token for token, waiting in self._requests.items() if waiting is request]
        for token in tokens:
            del self._requests[token]
        return [ev.WaitGone(token) for token in tokens]

    def fail(self, error: PydbtError, meant: Callable[[Request], bool] = lambda request: True) -> list[Request]:
        """Answer requests with an error: all of them, or those that are ``meant``. They are still here after that."""
        failed = [request for request in self._requests.values() if meant(request)]
        for request in failed:
            request.fail(error)
        return failed
