"""The routes of the dashboard. Each one reads; what is asked of a controller is one of a few questions that change nothing."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pydbt.core.seen.visitor import VisitObjection
from pydbt.dashboard.guard import Guard, refusal_to
from pydbt.dashboard.house import House
from pydbt.dashboard.pages import START, Page
from pydbt.dashboard.questions import QUESTIONS, answer_to
from pydbt.dashboard.stream import fresh_machines, overview_json, stream_of

METRICS_KIND = "text/plain; version=0.0.4; charset=utf-8"

_log = logging.getLogger(__name__)


def app_of(house: House) -> ASGIApp:
    """The application, with its guard around it."""
    routes = [Route("/metrics", _metrics(house, _text_of_metrics()))]
    if not house.metrics_only:
        routes += [
            Route("/", _start(house)),
            Route("/static/{path:path}", _static(house)),
            Route("/api/overview", _overview(house)),
            Route("/api/stream", stream_of(house)),
            *(Route(f"/api/volumes/{{volume}}/{name}", answer_to(house, name)) for name in QUESTIONS),
        ]
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: _not_found}), house)


async def _not_found(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = "there is nothing at this address" if status == 404 else str(getattr(error, "detail", error))
    return refusal_to(request.scope, VisitObjection(status, words))


def _overview(house: House) -> Callable[[Request], Any]:
    async def overview(request: Request) -> Response:
        return Response(overview_json(await fresh_machines(house)), media_type="application/json")

    return overview


def _start(house: House) -> Callable[[Request], Any]:
    async def start(request: Request) -> Response:
        return _file(request, house.pages.get(START))

    return start


def _static(house: House) -> Callable[[Request], Any]:
    async def static(request: Request) -> Response:
        return _file(request, house.pages.get(request.path_params["path"]))

    return static


def _file(request: Request, page: Page | None) -> Response:
    if page is None:
        raise HTTPException(404)
    headers = {"etag": page.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
    if page.tag in [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    content = page.content
    if page.packed and "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["content-encoding"] = page.packed, "gzip"
    return Response(content, headers={**headers, "content-type": page.kind})


def _text_of_metrics() -> Callable[[list[dict[str, Any]]], bytes] | None:
    """None where the library for it is not installed."""
    try:
        found: Callable[[list[dict[str, Any]]], bytes] = (
            importlib.import_module("pydbt.dashboard.metrics").Exposition().text_of
        )
    except ImportError as error:
        _log.warning("/metrics tells nothing, because %s cannot be loaded", error.name)
        return None
    return found


def _metrics(house: House, text_of: Callable[[list[dict[str, Any]]], bytes] | None) -> Callable[[Request], Any]:
    async def metrics(request: Request) -> Response:
        if text_of is None:
            return JSONResponse({"problem": "this dashboard has no metrics: install python3-prometheus-client"}, 501)
        machines = [machine.to_json() for machine in await fresh_machines(house)]
        return Response(text_of(machines), headers={"content-type": METRICS_KIND})

    return metrics
