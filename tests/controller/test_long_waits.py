"""Times that are longer than poll(2) counts: no wait of that kind ends after a moment."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller import control
from pydbt.controller.control import ControlServer, call
from pydbt.network.connection import FramedConnection


@pytest.mark.parametrize("timeout_s", [4294967.5, 1e9])
def test_a_timeout_longer_than_the_kernel_counts_does_not_come_early(tmp_path: Path, timeout_s: float) -> None:
    def answers(request: dict[str, Any], gone: Callable[[], bool]) -> dict[str, Any]:
        time.sleep(0.5)
        return {"answer": 1}

    with ControlServer(tmp_path, answers):
        assert call(tmp_path, {"command": "wait"}, timeout_s) == {"answer": 1}


def test_a_wait_in_parts_ends_at_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LONGEST_SOCKET_WAIT_S", 0.01)
    near, far = socket.socketpair()
    with near, far, pytest.raises(TimeoutError):
        next(control._lines(near, 1024, 0.2))
    near, far = socket.socketpair()
    threading.Timer(0.2, far.sendall, [b"one\n"]).start()
    with near, far:
        assert next(control._lines(near, 1024, 60.0)) == b"one"


@pytest.mark.parametrize("seconds", [4294967.5, 1e9])
def test_a_silence_longer_than_the_kernel_counts_is_borne(seconds):
    near, far = socket.socketpair()
    connection = FramedConnection(near, silence_s=seconds)
    threading.Timer(0.5, far.close).start()
    assert connection.recv_frame() is None, "it was given up before the other side ended it"
    connection.close()
