"""Takes connections in: no more than there is room for, and of a socket of this machine only those of allowed users."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable

from pydbt.dashboard.connection import REQUEST_S, Connection
from pydbt.network.local import peer_of

CONNECTIONS_MAX = 256
"""Descriptors and memory are bounded by it: each has buffers of less than 256 KiB."""
FROM_ONE_ADDRESS = 128
HANDSHAKES_MAX = 64
"""TLS handshakes at the same time: each costs a signature."""
_LOOK_S = 1.0
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nretry-after: 5\r\nconnection: close\r\n\r\nbusy\n"
)

_log = logging.getLogger(__name__)

MakeConnection = Callable[[str, bool], Connection]
"""Of the address of the other end, and of whether its user may come in."""


class Doorkeeper:
    """``users``: who may use a socket of this machine; ``tls`` None: plain HTTP."""

    def __init__(self, make: MakeConnection, users: frozenset[int], tls: ssl.SSLContext | None) -> None:
        self._make, self._users, self._tls = make, users, tls
        self._connections: set[Connection] = set()
        self._addresses: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._entering = 0

    async def serve(self, sockets: Iterable[socket.socket]) -> None:
        """Until it is cancelled."""
        await asyncio.gather(self._look(), *(self._accept(sock) for sock in sockets))

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:  # no descriptor is left, or the other end is gone already
                _log.debug("no connection could be taken in: %s", error)
                await asyncio.sleep(0.1)
                continue
            local = listener.family == socket.AF_UNIX
            host = "" if local else str(address[0])
            if self._is_full(host):
                _turn_away(sock, b"" if self._tls else _FULL)
            else:
                allowed = not local or peer_of(sock)[1] in self._users
                task = loop.create_task(self._enter(sock, host, allowed))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _is_full(self, host: str) -> bool:
        """Whether there is no room, also after those had to go that have proved nothing, the quietest first."""
        if self._entering >= HANDSHAKES_MAX or (
            host and self._addresses[host] >= FROM_ONE_ADDRESS and not self._made_room(host)
        ):
            return True
        return len(self._connections) >= CONNECTIONS_MAX and not self._made_room("")

    def _made_room(self, host: str) -> bool:
        unproved = [one for one in self._connections if not one.is_trusted and host in ("", one.host)]
        if not unproved:
            return False
        quietest = min(unproved, key=lambda one: one.quiet_since)
        quietest.transport.abort()
        self._forget(quietest)
        return True

    async def _enter(self, sock: socket.socket, host: str, allowed: bool) -> None:
        loop = asyncio.get_running_loop()
        connection = self._make(host, allowed)
        self._addresses[host] += 1
        self._entering += 1
        try:
            if self._tls is None:
                await loop.connect_accepted_socket(lambda: connection, sock)
            else:
                await loop.connect_accepted_socket(
                    lambda: connection, sock, ssl=self._tls, ssl_handshake_timeout=REQUEST_S
                )
        except OSError as error:  # ssl.SSLError is one
            _log.debug("a connection ended before it began: %s", error)
            self._leave(host)
            sock.close()
            return
        finally:
            self._entering -= 1
        self._connections.add(connection)

    def _forget(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._leave(connection.host)

    def _leave(self, host: str) -> None:
        self._addresses[host] -= 1
        if not self._addresses[host]:
            del self._addresses[host]

    async def _look(self) -> None:
        """Every second: those that are gone, and those that leave something undone."""
        while True:
            await asyncio.sleep(_LOOK_S)
            now = asyncio.get_running_loop().time()
            for connection in list(self._connections):
                connection.look(now)
                if connection.transport.is_closing():
                    self._forget(connection)


def _turn_away(sock: socket.socket, words: bytes) -> None:
    """Without waiting: these few bytes fit into the socket's buffer."""
    with contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(words)
    sock.close()
