"""One connection of the dashboard: HTTP/1.1 by uvicorn and h11, with limits of time on what the other end may leave undone."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from pydbt.dashboard.house import DENIED, PEER, TRUSTED

REQUEST_S = 10.0
"""A whole request has come by then, at the beginning and after each answer (slowloris); browsers open a new connection."""
STALLED_S = 30.0
"""Whoever takes nothing of an answer for this long is cut off."""
HEADERS_BYTES_MAX = 16 * 1024
"""Of a request line with its headers. h11's own limit in Debian 12's version."""

_AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: socket(7)

NameOf = Callable[[ssl.SSLObject], str]
"""Who has proved a certificate, and may read; empty for nobody."""


class Connection(H11Protocol):
    """``host``: the address of the other end, empty for a process of this machine, which is ``allowed`` or not.

    ``peer``: who it has proved to be, empty for nobody yet.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        loop: asyncio.AbstractEventLoop,
        name_of: NameOf,
        host: str,
        allowed: bool,
    ) -> None:
        # Since uvicorn 0.21 there is a state that the application shares with its lifespan; it has none.
        more: dict[str, Any] = (
            {"app_state": {}} if "app_state" in inspect.signature(H11Protocol.__init__).parameters else {}
        )
        super().__init__(config=config, server_state=state, _loop=loop, **more)
        self.host, self._name_of = host, name_of
        self.peer = "" if host or not allowed else "an allowed user of this machine"
        self._quiet_since = self._moved_at = loop.time()
        self._waiting_bytes = 0
        app = self.app

        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            scope[PEER], scope[DENIED] = self.peer, not allowed
            await app(scope, receive, send)

        self.app = with_peer

    def connection_made(self, transport: Any) -> None:
        """After the handshake of TLS, where there is one."""
        if (proved := transport.get_extra_info("ssl_object")) is not None:
            self.peer = self._name_of(proved)
        super().connection_made(transport)

    @property
    def is_trusted(self) -> bool:
        """Whether its last request proved that its sender may read."""
        return bool(self.peer or (self.scope or {}).get(TRUSTED))

    @property
    def quiet_since(self) -> float:
        """When it began to be without a request."""
        return self._quiet_since

    def look(self, now: float) -> None:
        """Cut it off when its other end leaves it in the middle of something for too long."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            if now - self._quiet_since > REQUEST_S:
                self.transport.abort()
            return
        self._quiet_since = now
        waiting_bytes = self.transport.get_write_buffer_size()
        if waiting_bytes == 0 or waiting_bytes < self._waiting_bytes:
            self._moved_at = now
        self._waiting_bytes = waiting_bytes
        if now - self._moved_at > STALLED_S:
            # At once: the kernel would keep what was not taken, and wait for it to be.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.transport.abort()
