"""What may be asked of the controller of one volume, and the numbers that each question takes. Nothing else gets through."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pydbt.core.errors import PydbtError
from pydbt.core.units import is_figure
from pydbt.dashboard.house import House

QUESTION_S = 5.0
LONG_POLL_S = 20.0
"""An answer that waits for an event comes before a proxy gives up on it."""
AT_ONCE_MAX = 8
"""Questions about one volume: a controller that hangs leaves the workers to the others."""


@dataclass(frozen=True, slots=True)
class Question:
    """Its numbers by their names, each with the value that it has when it is left out; None: it must be there.

    ``moments``: those that may have a fraction; all others are whole. ``optional``: the controller has a default.
    """

    numbers: Mapping[str, int | None] = field(default_factory=dict)
    moments: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


QUESTIONS: Mapping[str, Question] = {
    "map": Question({"start": 0, "end": None, "cells": 1024}),
    "block": Question({"offset": None}),
    "history": Question(
        {"from": None, "until": None, "points": None},
        frozenset({"from", "until"}),
        frozenset({"from", "until", "points"}),
    ),
    "events": Question({"since": 0, "timeout": 0}, frozenset({"timeout"})),
    "method": Question(),
    "io": Question(),
    "writers": Question(),
}
"""Each is the command of a controller with the same name."""


def answer_to(house: House, name: str) -> Callable[[Request], Any]:
    """The route of one question."""

    async def answer(request: Request) -> Response:
        try:
            arguments = numbers_of(QUESTIONS[name], request.query_params)
        except ValueError as error:
            return JSONResponse({"problem": str(error)}, 400)
        timeout_s = QUESTION_S + min(float(arguments.get("timeout", 0)), LONG_POLL_S)
        if "timeout" in arguments:
            arguments["timeout"] = min(arguments["timeout"], LONG_POLL_S)
        volume = request.path_params["volume"]
        if house.asking[volume] >= AT_ONCE_MAX:
            words = f"{AT_ONCE_MAX} questions about this volume are not answered yet: ask again in a moment"
            return JSONResponse({"problem": words}, 503, {"retry-after": "1"})
        asked = functools.partial(house.ask, volume, {"command": name, **arguments}, timeout_s)
        house.asking[volume] += 1
        try:
            return JSONResponse(await house.workers.run(asked))
        except KeyError:
            return JSONResponse({"problem": "no volume of this dashboard has this id"}, 404)
        except PydbtError as error:
            return JSONResponse({"problem": str(error)}, 503)
        finally:
            house.asking[volume] -= 1
            if not house.asking[volume]:
                del house.asking[volume]

    return answer


def numbers_of(question: Question, given: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of a request. ValueError, in one sentence, for one that is missing, unknown, or no number."""
    if unknown := set(given) - set(question.numbers):
        expected = ", ".join(question.numbers) or "nothing"
        raise ValueError(f"{min(unknown)!r} is not known here: expected {expected}")
    found: dict[str, Any] = {}
    for name, default in question.numbers.items():
        text = given.get(name)
        if text is None and name in question.optional:
            continue
        if text is None and default is None:
            raise ValueError(f"{name} is missing: give {', '.join(question.numbers)}")
        found[name] = default if text is None else _number(name, text, name not in question.moments)
    return found


def _number(name: str, text: str, whole: bool) -> int | float:
    try:
        number = int(text) if whole else float(text)
        if len(text) <= 32 and text.isascii() and math.isfinite(number) and is_figure(number) and number >= 0:
            return number
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name} is {'a whole number' if whole else 'a number'} of at most 64 bits, not {text[:32]!r}")
