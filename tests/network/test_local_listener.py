"""A secondary's socket of this machine that is removed while it runs is there again, without a new start."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.controller.secondary.connections import Connections
from pydbt.core.errors import Unreachable
from pydbt.core.protocol.frames import Hello
from pydbt.core.secondary import events as e
from pydbt.network import local_listener
from pydbt.network.arena import Arena
from pydbt.network.connect import connect
from pydbt.network.connection import FramedConnection
from pydbt.network.listen import listen
from pydbt.network.local_listener import LocalListener
from tests.lab.patience import until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_listener, "PLACE_LOOK_S", 0.05)


class Running:
    def __init__(self, place: Path) -> None:
        self.place, self.heard = place, list[e.Event]()
        self.connections = Connections(listen(f"unix:{place}", 0), Arena(1 << 20), self.heard.append)
        self.connections.start()

    def is_reached(self) -> bool:
        before = len(self.heard)
        with contextlib.suppress(Unreachable), connect(f"unix:{self.place}", 0) as sock:
            FramedConnection(sock).send_frames([Hello("00" * 16, 1 << 20, 4096, 1)])
            until(lambda: len(self.heard) > before, "the HELLO is heard", 10)
            return True
        return False


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "folder" / "s.sock") if (tmp_path / "folder").mkdir() is None else None
    assert made is not None
    yield made
    made.connections.stop()
    assert not made.place.exists()


def test_a_socket_that_was_removed_is_made_again_and_a_primary_reaches_it(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    assert running.is_reached()
    running.place.unlink()
    until(running.is_reached, "it is reached again")
    assert caplog.text.count("was removed, and is made again") == 1


def test_another_mode_makes_no_other_socket_of_it(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    running.place.chmod(0o660)
    time.sleep(10 * local_listener.PLACE_LOOK_S)
    assert running.is_reached() and "removed" not in caplog.text


def test_a_folder_that_was_removed_with_it_is_waited_for_and_said_once(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(running.place.parent)
    until(lambda: "no primary reaches this secondary" in caplog.text, "it is told")
    running.place.parent.mkdir()
    until(running.is_reached, "it is reached again")
    assert caplog.text.count("no primary reaches this secondary") == 1


def test_another_program_in_its_place_is_told_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    running = Running(tmp_path / "s.sock")
    running.place.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(running.place))
        other.listen(16)
        until(lambda: "in use by another program" in caplog.text, "it is told")
        running.connections.stop()
        assert running.place.exists(), "it removed the socket of another program"


def test_an_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_listener, "PLACE_LOOK_S", 3600.0)
    sock = listen(f"unix:{tmp_path / 's.sock'}", 0)
    assert isinstance(sock, socket.socket)
    listener = LocalListener(sock)
    ended: list[OSError] = []

    def accept() -> None:
        try:
            listener.accept()
        except OSError as error:
            ended.append(error)

    accepting = threading.Thread(target=accept)
    accepting.start()
    with caplog.at_level(logging.DEBUG):
        listener.shutdown(socket.SHUT_RDWR)
    accepting.join(30)
    assert ended and not accepting.is_alive()
    listener.remove()
    listener.close()
    assert not (tmp_path / "s.sock").exists()
