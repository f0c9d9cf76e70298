"""The dashboard's service: connections, application and end. It runs in the main thread until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import Server

from pydbt.dashboard.app import app_of
from pydbt.dashboard.connection import HEADERS_BYTES_MAX, Connection, NameOf
from pydbt.dashboard.doorkeeper import Doorkeeper
from pydbt.dashboard.house import House

LAST_ANSWERS_S = 2.0
"""At the end answers under way may be finished for this long."""


class _Quiet(Server):
    """Signals are the program's own business, and connections come from the doorkeeper."""

    def install_signal_handlers(self) -> None:
        """As uvicorn 0.17 asks."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """As later versions ask."""
        yield


@dataclass(frozen=True, slots=True)
class Front:
    """What is outside: where it listens, who may use a socket of this machine, and TLS with who proves what by it.

    ``ready`` is called once requests are answered; ``beside`` runs as long as they are.
    """

    sockets: list[socket.socket]
    users: frozenset[int]
    tls: ssl.SSLContext | None
    name_of: NameOf
    ready: Callable[[], None]
    beside: list[Callable[[], Coroutine[Any, Any, None]]]


def serve_house(house: House, front: Front) -> None:
    """Until SIGTERM or SIGINT."""
    asyncio.run(_serve(house, front))


async def _serve(house: House, front: Front) -> None:
    loop = asyncio.get_running_loop()
    config = _config(app_of(house))
    server = _Quiet(config)
    config.load()

    def stop() -> None:
        house.stopping.set()
        server.should_exit = True

    def end_now() -> None:
        server.force_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)

    def made(host: str, allowed: bool) -> Connection:
        return Connection(config, server.server_state, loop, front.name_of, host, allowed)

    keeper = Doorkeeper(made, front.users, front.tls)
    tasks = [loop.create_task(keeper.serve(front.sockets)), *(loop.create_task(run()) for run in front.beside)]
    for task in tasks:
        task.add_done_callback(lambda _: stop())  # without one of them the rest would tell less than it seems
    tasks.append(loop.create_task(_after(house.stopping, LAST_ANSWERS_S, end_now)))
    front.ready()
    try:
        await server.serve(sockets=[])
    finally:
        for task in tasks:
            task.cancel()
        failures = await asyncio.gather(*tasks, return_exceptions=True)
    for failure in failures:
        if isinstance(failure, Exception):
            raise failure


async def _after(event: asyncio.Event, seconds: float, do: Callable[[], None]) -> None:
    await event.wait()
    await asyncio.sleep(seconds)
    do()


def _config(app: ASGIApp) -> Config:
    """What uvicorn needs to know, in any version; it logs nothing of its own."""
    for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL)
        logger.propagate = False
    known: dict[str, Any] = {"http": "h11", "ws": "none", "lifespan": "off", "interface": "asgi3", "log_config": None}
    config = Config(app, access_log=False, proxy_headers=False, server_header=False, workers=1, **known)
    config.h11_max_incomplete_event_size = (
        HEADERS_BYTES_MAX  # versions that do not know it have h11's, which is the same
    )
    return config
