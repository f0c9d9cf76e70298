"""A connection to one controller that is kept over many questions, and on which nobody ever waits.

``control.call`` waits for its answer. Who looks after many controllers at the same time waits for none of them alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any

from pydbt.controller.control import read_answer, socket_itself, socket_path, stranger_of
from pydbt.core.errors import BusyError, NotRunning, StateError

_RECEIVE_BYTES = 256 * 1024
_STATUS_BYTES_MAX = 1 << 20
"""A hundred times what a status has: whoever answers may be another user."""
_REQUEST = {"command": "status"}
_QUESTION = json.dumps(_REQUEST).encode() + b"\n"


class Conversation:
    """With the controller whose socket, or state directory, ``place`` names. One question at a time."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._place = socket_path(place)
        self._socket: socket.socket | None = None
        self._stranger, self._was_used = "", False
        self._pending = bytearray()

    @property
    def wire(self) -> socket.socket | None:
        """To wait for the answer; None while there is no connection. Another one after a connection was made anew."""
        return self._socket

    def ask_status(self) -> None:
        """Send the question. NotRunning when nothing listens, BusyError when nobody is taken in, StateError as of ``call``."""
        if self._socket is not None:
            with contextlib.suppress(
                OSError
            ):  # the controller has closed it, after a minute without a question for example
                self._socket.send(_QUESTION)
                self._was_used = True
                return
            self.close()
        try:
            sock = self._connect()
            with contextlib.suppress(BrokenPipeError):  # it has answered without asking
                sock.send(_QUESTION)
        except BlockingIOError as error:
            self.close()
            raise BusyError(f"the controller of {self._place.parent} takes in no command now") from error
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            self.close()
            raise NotRunning(f"no controller is running with the state directory {self._place.parent}") from error
        except OSError as error:
            self.close()
            raise StateError(f"the control socket {self._place} cannot be used: {error.strerror}") from error
        except StateError:
            self.close()
            raise

    def take(self) -> dict[str, Any] | None:
        """The status, when all of it is there; else None. NotRunning when the controller ended, and the errors of ``call``."""
        if self._socket is None:
            raise NotRunning(f"no controller is running with the state directory {self._place.parent}")
        try:
            while (end := self._pending.find(b"\n")) < 0:
                received = self._socket.recv(_RECEIVE_BYTES)
                if not received:
                    raise ConnectionResetError
                self._pending += received
                if len(self._pending) > _STATUS_BYTES_MAX:
                    self.close()
                    raise StateError(
                        f"{self._place} is answered by something that is no controller: its answer is too long"
                    )
        except BlockingIOError:
            return None
        except OSError as error:
            again = self._was_used
            self.close()
            if again:  # it may have been closed just before the question came
                self.ask_status()
                return None
            raise NotRunning(f"the controller of {self._place.parent} ended while it was asked") from error
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return read_answer(line, self._place, self._stranger)

    def close(self) -> None:
        """Give the connection up; a question that is not answered is forgotten."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._stranger, self._was_used = None, "", False
        self._pending.clear()

    def _connect(self) -> socket.socket:
        sock = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        with socket_itself(self._place) as (name, owner):
            sock.connect(name)
        self._stranger = stranger_of(sock, owner, self._place, _REQUEST)
        return sock
