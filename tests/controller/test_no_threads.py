"""A machine on which no thread can be started for a while: nobody is answered then, and everybody afterwards."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller.control import CLIENTS_MAX, ControlServer, call
from pydbt.controller.secondary.connections import Connections
from pydbt.core.errors import BusyError, PydbtError
from pydbt.core.protocol.frames import Hello
from pydbt.core.secondary import events as e
from pydbt.network.arena import Arena
from pydbt.network.connect import connect
from pydbt.network.connection import FramedConnection
from pydbt.network.listen import listen
from tests.lab.patience import until


class Threads:
    """Of a machine that has no room for more of them while ``full``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self._start = False, threading.Thread.start
        monkeypatch.setattr(threading.Thread, "start", lambda thread: self.start(thread))

    def start(self, thread: threading.Thread) -> None:
        if self.full:
            raise RuntimeError("can't start new thread")
        self._start(thread)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    return Threads(monkeypatch)


def test_commands_are_refused_for_that_time_and_no_place_is_lost(tmp_path: Path, threads: Threads) -> None:
    with ControlServer(tmp_path, lambda request, gone: {"answer": 1}):
        threads.full = True
        for _ in range(CLIENTS_MAX + 1):
            with pytest.raises(PydbtError, match="can't start new thread") as caught:
                call(tmp_path, {"command": "status"}, 10.0)
            assert caught.value.exit_code == BusyError.exit_code
        threads.full = False
        assert call(tmp_path, {"command": "status"}, 10.0) == {"answer": 1}


def test_connections_are_closed_for_that_time_and_the_next_one_is_served(threads: Threads) -> None:
    heard: list[Any] = []
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    connections = Connections(listener, Arena(1 << 20), heard.append)
    connections.start()
    try:
        threads.full = True
        with socket.create_connection(("127.0.0.1", port)) as refused:
            refused.settimeout(30.0)
            assert refused.recv(1) == b""
        threads.full = False
        connection = FramedConnection(connect("127.0.0.1", port))
        connection.send_frames([Hello("ab" * 16, 1 << 20, 4096, 7)])
        until(lambda: any(isinstance(event, e.Connected) for event in heard), "the primary is heard")
        (event,) = heard
        threads.full = True
        connections.close(event.connection)  # in the loop's thread, which must not die of it
        threads.full = False
        connection.close()
    finally:
        connections.stop()
