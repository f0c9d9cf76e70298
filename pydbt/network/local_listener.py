"""A listening socket of this machine whose path somebody may remove: it is made again there, and nobody has to start anew."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from typing import Any

from pydbt.core.errors import PydbtError
from pydbt.network.listen import BACKLOG
from pydbt.network.local import listen_local

PLACE_LOOK_S = 5.0
"""It is looked this often whether the socket is still there."""

_log = logging.getLogger(__name__)


class LocalListener:
    """As the listening socket that it is made of, which has just been bound. ``accept`` is called by one thread."""

    family = socket.AF_UNIX

    def __init__(self, sock: socket.socket) -> None:
        self._path = str(sock.getsockname())
        self._socket, self._place = sock, _identity(self._path)
        self._changing = threading.Lock()
        self._ended = False
        self._problem = ""

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. OSError, also when it is shut down."""
        while True:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if poll.poll(PLACE_LOOK_S * 1000) or self._ended:
                return self._socket.accept()
            self._look()

    def _look(self) -> None:
        """Whoever connects finds no one, or somebody else, where the socket is not what was bound there."""
        if self._place is not None and _identity(self._path) == self._place:
            return
        with self._changing:
            if self._ended:
                return
            try:
                made = listen_local(self._path, BACKLOG)
            except PydbtError as error:
                if str(error) != self._problem:
                    _log.warning("the socket was removed, and no primary reaches this secondary: %s", error)
                self._problem = str(error)
                return
            removed, self._socket, self._place, self._problem = self._socket, made, _identity(self._path), ""
        removed.close()
        _log.warning("unix:%s was removed, and is made again", self._path)

    def getsockname(self) -> str:
        return self._path

    def shutdown(self, how: int) -> None:
        """``accept`` ends."""
        with self._changing:
            self._ended = True
            self._socket.shutdown(how)

    def remove(self) -> None:
        """Take its path away, unless something else is there by now."""
        if self._place is not None and _identity(self._path) == self._place:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def close(self) -> None:
        self._socket.close()


def _identity(path: str) -> tuple[int, int, int] | None:
    """What is at a path; None when nothing is. A number alone may be given to the next file as well, and another mode or owner
    makes no other socket of it."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
