"""Listen for peers."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
from typing import Any

from pydbt.core.errors import BusyError, UsageError
from pydbt.network.address import UNIX, SocketAddress, format_address, resolve, unix_path
from pydbt.network.local import listen_local

BACKLOG = 16
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_log = logging.getLogger(__name__)


class ManyAddresses:
    """Listens at every address of a name, as one listening socket."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self.family = sockets[0].family
        for sock in sockets:
            sock.setblocking(False)

    @property
    def each(self) -> list[socket.socket]:
        """The socket of each address."""
        return list(self._sockets)

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection at any of them. OSError, also when they are shut down."""
        poll = select.poll()
        for sock in self._sockets:
            poll.register(sock, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            for sock in self._sockets:
                if sock.fileno() in ready:
                    with contextlib.suppress(BlockingIOError):  # it has gone already
                        return sock.accept()

    def getsockname(self) -> Any:
        """The first address."""
        return self._sockets[0].getsockname()

    def shutdown(self, how: int) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(how)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


Listener = socket.socket | ManyAddresses


def name_of_listener(listener: Listener) -> str:
    """Where it listens, as people write it."""
    if listener.family == socket.AF_UNIX:
        return f"{UNIX}{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return format_address(host, port)


def listen(host: str, port: int) -> Listener:
    """A listening socket, at every address of this machine that ``host`` has; for port 0 the kernel chooses a free port.

    Raises BusyError or UsageError.
    """
    path = unix_path(host)
    if path is not None:
        return listen_local(path, BACKLOG)
    found = list(dict.fromkeys(resolve(host, port, passive=True)))
    sockets: list[socket.socket] = []
    elsewhere: OSError | None = None
    try:
        for family, address in found:
            if port == 0 and sockets:  # the same for all
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sockets.append(_listen_at(family, address, several=len(found) > 1))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                elsewhere = error  # an address of another machine, or of a family that this one does not have
        if not sockets:
            raise elsewhere or OSError(errno.EADDRNOTAVAIL, "it has no address")
    except OSError as error:
        for sock in sockets:
            sock.close()
        if error.errno == errno.EADDRINUSE:
            raise BusyError(
                f"port {port} of {host} is in use by another program: stop it or listen on another"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:  # at a boot a card may get it later: a service tries again
            raise BusyError(
                f"cannot listen on {format_address(host, port)}: no network card of this machine has that address now; expected "
                "one of this machine's"
            ) from None
        raise UsageError(f"cannot listen on {format_address(host, port)}: {error.strerror}") from None
    if len(sockets) == 1:
        return sockets[0]
    _log.info("%s has several addresses: listening on %s", host, " and ".join(str(s.getsockname()[0]) for s in sockets))
    return ManyAddresses(sockets)


def _listen_at(family: socket.AddressFamily, address: SocketAddress, *, several: bool) -> socket.socket:
    """OSError with nothing left open."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if several and family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the others have sockets of their own
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
