"""Listen for peers."""

from __future__ import annotations

import errno
import socket

from pydbt.core.errors import BusyError, UsageError
from pydbt.network.address import format_address, resolve, unix_path
from pydbt.network.local import listen_local

BACKLOG = 16


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; for port 0 the kernel chooses a free port. Raises BusyError or UsageError."""
    path = unix_path(host)
    if path is not None:
        return listen_local(path, BACKLOG)
    family, address = resolve(host, port, passive=True)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise BusyError(
                f"port {port} of {host} is in use by another program: stop it or listen on another"
            ) from None
        raise UsageError(f"cannot listen on {format_address(host, port)}: {error.strerror}") from None
    return sock
