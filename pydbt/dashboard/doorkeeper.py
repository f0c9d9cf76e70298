"""Takes connections in: no more than there is room for, and of a socket of this machine only those of allowed users."""

from __future__ import annotations

import asyncio
import contextlib
import functools
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
HANDSHAKES_FROM_ONE_ADDRESS = 8
"""A browser opens six connections at the same time. Who has more under way loses the oldest, and holds up nobody else."""
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
        # With the address, or the user of this machine; the oldest first.
        self._entering: dict[asyncio.Task[None], str] = {}

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
                user = peer_of(sock)[1] if local else None
                self._let_in(sock, self._make(host, user is None or user in self._users), host or f"user {user}")
            await asyncio.sleep(0)  # as long as others wait to be taken in, sock_accept gives nobody else a turn

    def _is_full(self, host: str) -> bool:
        """Whether there is no room, also after those had to go that have proved nothing, the quietest first."""
        if host and self._addresses[host] >= FROM_ONE_ADDRESS and not self._made_room(host):
            return True
        return len(self._connections) >= CONNECTIONS_MAX and not self._made_room("")

    def _made_room(self, host: str) -> bool:
        unproved = [one for one in self._connections if not one.is_trusted and host in ("", one.host)]
        if not unproved:
            return bool(host) and self._ended_oldest_entering(host)
        quietest = min(unproved, key=lambda one: one.quiet_since)
        quietest.transport.abort()
        self._forget(quietest)
        return True

    def _ended_oldest_entering(self, who: str) -> bool:
        oldest = next((task for task, whose in self._entering.items() if whose == who), None)
        if oldest is None:
            return False
        del self._entering[oldest]
        oldest.cancel()
        return True

    def _let_in(self, sock: socket.socket, connection: Connection, who: str) -> None:
        """A newcomer is never refused for others that are on their way in: the oldest goes, of whoever has the most of them."""
        under_way = Counter(self._entering.values())
        if under_way[who] >= HANDSHAKES_FROM_ONE_ADDRESS:
            self._ended_oldest_entering(who)
        elif len(self._entering) >= HANDSHAKES_MAX:
            self._ended_oldest_entering(under_way.most_common(1)[0][0])
        self._addresses[connection.host] += 1
        task = asyncio.get_running_loop().create_task(self._enter(sock, connection))
        self._entering[task] = who
        task.add_done_callback(functools.partial(self._entered, sock, connection))

    async def _enter(self, sock: socket.socket, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        if self._tls is None:
            await loop.connect_accepted_socket(lambda: connection, sock)
        else:
            await loop.connect_accepted_socket(lambda: connection, sock, ssl=self._tls, ssl_handshake_timeout=REQUEST_S)

    def _entered(self, sock: socket.socket, connection: Connection, task: asyncio.Task[None]) -> None:
        self._entering.pop(task, None)
        if not task.cancelled() and task.exception() is None:
            self._connections.add(connection)
            return
        _log.debug("a connection ended before it began: %s", "another came" if task.cancelled() else task.exception())
        self._leave(connection.host)
        if connection.transport is not None:
            connection.transport.abort()
        else:  # its transport, if it has one at all, has let the socket go
            sock.close()

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
