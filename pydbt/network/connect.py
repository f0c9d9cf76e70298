"""Connect to a peer."""

from __future__ import annotations

import socket

from pydbt.core.errors import Unreachable
from pydbt.network.address import format_address, resolve, unix_path
from pydbt.network.local import connect_local

CONNECT_TIMEOUT_S = 5.0


def connect(host: str, port: int, timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """A connected socket to the first of the host's addresses that answers. Raises Unreachable, or another PeerError."""
    path = unix_path(host)
    if path is not None:
        return connect_local(path, timeout_s)
    reason = "no address"
    for family, address in resolve(host, port):
        sock: socket.socket | None = None
        try:
            # A machine without IPv6 has no such socket (EAFNOSUPPORT), although names have such addresses.
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.settimeout(timeout_s)
            sock.connect(address)
            _check_not_self(sock)
        except TimeoutError:
            reason = f"no answer within {timeout_s:g} seconds"
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return sock
        if sock is not None:
            sock.close()
    raise Unreachable(f"{format_address(host, port)} cannot be reached: {reason}")


def _check_not_self(sock: socket.socket) -> None:
    """A connection to an ephemeral port of this machine can connect to itself (simultaneous open)."""
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError("Connection refused")
