"""Listening sockets that a manager of services has opened, and keeps while this process is down (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from pydbt.core.errors import UsageError
from pydbt.network.address import UNIX

_FIRST = 3  # SD_LISTEN_FDS_START of sd-daemon.h
_MOST = 64
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def handed_over_sockets(environment: MutableMapping[str, str] = os.environ, first: int = _FIRST) -> list[socket.socket]:
    """Those for this process, in their order; none without a manager. The variables are taken out: no child has the sockets.

    UsageError when there is one that no connection can come to.
    """
    process, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isdecimal() or not 0 < int(count) <= _MOST:
        return []
    return [_listening(descriptor) for descriptor in range(first, first + int(count))]


def _listening(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise UsageError(f"descriptor {descriptor}, which LISTEN_FDS names, is no socket: {error.strerror}") from None
    if not listens or sock.family not in _FAMILIES:
        raise UsageError(
            f"descriptor {descriptor}, which LISTEN_FDS names, is no listening stream socket: use ListenStream= and Accept=no"
        )
    return sock


def listening_place(sock: socket.socket) -> tuple[str, int]:
    """Host and port, or ``unix:PATH`` and 0, at which a socket listens."""
    name = sock.getsockname()
    return (f"{UNIX}{name}", 0) if sock.family == socket.AF_UNIX else (str(name[0]), int(name[1]))
