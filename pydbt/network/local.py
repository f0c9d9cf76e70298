"""Sockets of this machine (``unix:PATH``): who the peer is is known from the kernel."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from typing import Any, Protocol

from pydbt.core.errors import BusyError, PeerError, Unreachable, UsageError
from pydbt.network.address import unix_path
from pydbt.posix.ownership import folder_intruder

_UCRED = struct.Struct("3i")  # struct ucred of include/linux/socket.h: process, user, group


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Process and user of the peer. Of a connecting socket that is who had called listen (unix(7), SO_PEERCRED)."""
    process, user, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return process, user


def check_peer(sock: socket.socket) -> None:
    """PeerError unless the process of the peer is root's, or of the user of this process."""
    _, user = peer_of(sock)
    if user not in (0, os.geteuid()):
        raise PeerError(f"it is a process of user {user}, and must be one of root or of user {os.geteuid()}")


def connect_local(path: str, timeout_s: float) -> socket.socket:
    """A connected socket to the process that listens at a path. Raises Unreachable, or PeerError when it is another user's."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(path)
        check_peer(sock)
    except TimeoutError:
        sock.close()
        raise Unreachable(f"unix:{path} cannot be reached: no answer within {timeout_s:g} seconds") from None
    except OSError as error:
        sock.close()
        raise Unreachable(f"unix:{path} cannot be reached: {no_socket(path) or error.strerror or error}") from None
    except PeerError as error:
        sock.close()
        raise PeerError(f"no connection to unix:{path}: {error}") from None
    return sock


def no_socket(path: str) -> str:
    """What is wrong with a path at which something else than a socket is; empty when there is nothing, or a socket."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return ""
    return "" if is_socket else "something is there that is no socket: name the path at which the secondary listens"


def check_local(host: str) -> None:
    """UsageError when a host ``unix:PATH`` names something that is there and no socket, which waiting does not change."""
    path = unix_path(host)
    if path is not None and (wrong := no_socket(path)):
        raise UsageError(f"{host} cannot be the address of a secondary: {wrong}")


def listen_local(path: str, backlog: int) -> socket.socket:
    """A listening socket that only root and this user may connect to. Raises BusyError or UsageError.

    A socket that a killed process has left is replaced; nothing else is. The folder must be safe from other users: whoever may
    write to it could put something else in the place of the socket, which is then removed at the end.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(folder) and (wrong := folder_intruder(folder)):
        raise UsageError(f"cannot listen on unix:{path}: its folder {folder} is not safe from other users: {wrong}")
    _remove_dead(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, 0o600)  # before anybody can connect
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise UsageError(f"cannot listen on unix:{path}: {error.strerror}") from None
    return sock


def require_listener(path: str) -> None:
    """OSError unless a program listens at a path, also one that takes nobody in; ConnectionRefusedError when it is dead."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            probe.connect(path)


class Listening(Protocol):
    """A socket that listens, or several as one."""

    @property
    def family(self) -> int: ...

    def getsockname(self) -> Any: ...


def remove_socket(sock: Listening) -> None:
    """Take the path of a listening socket of this machine away; harmless for one of the network."""
    if sock.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            os.unlink(sock.getsockname())


def _remove_dead(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # bind tells what is wrong
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"cannot listen on unix:{path}: it is there, and no socket: name another path")
    try:
        require_listener(path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    raise BusyError(f"unix:{path} is in use by another program: stop it or listen on another")
