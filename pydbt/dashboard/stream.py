"""Pictures as they come: one answer with those of now, or a stream of server-sent events (HTML Standard, 9.2)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pydbt.core.seen.gist import gist
from pydbt.dashboard.house import House
from pydbt.dashboard.panorama import MachinePicture
from pydbt.version import VERSION

_FRESH_S = 1.5
"""An answer waits no longer for pictures of now."""
BEAT_S = 1.0
"""Between two signs of life on a stream."""
_REPEAT_S = 5.0
"""A picture in which only the time went on is sent this often."""
KIND = "text/event-stream"


def overview_json(machines: list[MachinePicture]) -> bytes:
    """The answer of ``/api/overview``, and the data of each event."""
    told = {"now": time.time(), "version": VERSION, "machines": [machine.to_json() for machine in machines]}
    try:
        return json.dumps(told, allow_nan=False).encode()
    except ValueError:  # browsers read no such number, and the other volumes are to be seen all the same
        return json.dumps(_of_figures(told), allow_nan=False).encode()


def _of_figures(told: Any) -> Any:
    """The same with None in the place of what is no number for JSON (NaN, infinity)."""
    if isinstance(told, Mapping):
        return {key: _of_figures(value) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [_of_figures(value) for value in told]
    return None if isinstance(told, float) and not math.isfinite(told) else told


async def fresh_machines(house: House) -> list[MachinePicture]:
    """The pictures of now, or the newest of those that do not come in time."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    until = loop.time() + _FRESH_S
    with house.panorama.waiting(lambda: _tell(loop, came)) as all_there:
        while not all_there() and (left := until - loop.time()) > 0 and not house.stopping.is_set():
            try:
                await asyncio.wait_for(came.wait(), left)
            except TimeoutError:
                break
            came.clear()
    return house.panorama.machines()


def stream_of(house: House) -> Callable[[Request], Any]:
    """The route of the stream."""

    async def stream(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(headers={"content-type": KIND})
        return _Stream(house)

    return stream


class _Stream(Response):
    """As long as its reader is there. Starlette's own notices the end of one in some versions and not in others."""

    def __init__(self, house: House) -> None:
        # A proxy must pass each event on at once (X-Accel-Buffering is nginx's).
        super().__init__(headers={"content-type": KIND, "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with contextlib.aclosing(_events(self._house, gone)) as events:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _events(house: House, gone: asyncio.Future[None]) -> AsyncGenerator[bytes, None]:
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    told: object = None
    told_at = 0.0
    yield b"retry: 1000\n\n"
    with house.panorama.watched(lambda: _tell(loop, came)):
        await _next(house, came, gone, _FRESH_S)
        while not house.stopping.is_set() and not gone.done():
            machines = house.panorama.machines()
            present = _news_of(machines)
            if present != told or loop.time() - told_at >= _REPEAT_S:
                told, told_at = present, loop.time()
                yield b"event: overview\ndata: " + _text_of(machines) + b"\n\n"
            else:
                yield b": beat\n\n"
            await _next(house, came, gone, BEAT_S)


_encoded: tuple[list[MachinePicture], bytes] = ([], b"")
_looked_at: tuple[list[MachinePicture], list[object]] = ([], [])


def _text_of(machines: list[MachinePicture]) -> bytes:
    """As JSON, encoded once for all that watch."""
    global _encoded
    if not _are_the_same(_encoded[0], machines):
        _encoded = (machines, overview_json(machines))
    return _encoded[1]


def _news_of(machines: list[MachinePicture]) -> list[object]:
    """What would be news to one that was told something else; looked for once for all that watch."""
    global _looked_at
    if not _are_the_same(_looked_at[0], machines):
        news = [
            (machine.name, machine.reachable, machine.problem, [gist(sight) for sight in machine.sights])
            for machine in machines
        ]
        _looked_at = (machines, [*news])
    return _looked_at[1]


def _are_the_same(some: list[MachinePicture], others: list[MachinePicture]) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


async def _next(house: House, came: asyncio.Event, gone: asyncio.Future[None], timeout_s: float) -> None:
    """Wait for a picture, the end of this server or of the reader, or the time."""
    waits = [asyncio.ensure_future(came.wait()), asyncio.ensure_future(house.stopping.wait())]
    ends: list[asyncio.Future[Any]] = [*waits, gone]
    try:
        await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    came.clear()


def _tell(loop: asyncio.AbstractEventLoop, came: asyncio.Event) -> None:
    """Called by the thread of a picture; the loop may have ended by then."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(came.set)
