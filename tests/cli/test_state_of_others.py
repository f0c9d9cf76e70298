"""Files in the state directory of another user: they end no command for the whole machine, and take no memory or time."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pydbt.cli import overview
from pydbt.cli.commands import down
from pydbt.cli.group import execute
from pydbt.cli.overview import in_order, lines
from pydbt.controller import control
from pydbt.controller.control import (
    SAVED_STATUS_NAME,
    SOCKET_NAME,
    ControlServer,
    call,
    is_answering,
    read_saved_status,
)
from pydbt.controller.registry import registered_secondary
from pydbt.core.errors import StateError, TimedOut
from pydbt.core.seen.view import View
from pydbt.core.units import MIB
from tests.cli.conftest import REPLICA
from tests.lab.disks import image

NOBODY = 65534
STATUS = {"command": "status"}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    return place


@contextmanager
def answering(place: Path, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen()

    def serve() -> None:
        with suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                answer(client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.close()


def test_an_answer_that_comes_byte_by_byte_is_waited_for_no_longer_than_was_asked(tmp_path: Path) -> None:
    over = threading.Event()

    def drip(client: socket.socket) -> None:
        while not over.wait(0.1):
            client.sendall(b" ")

    def ask() -> None:
        with pytest.raises(TimedOut):
            call(tmp_path, STATUS, 0.5)

    with answering(tmp_path / SOCKET_NAME, drip):
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(30)
        ended = not asking.is_alive()
        over.set()
    assert ended


def test_a_client_that_asks_byte_by_byte_gives_its_place_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_IDLE_S", 0.3)
    with ControlServer(tmp_path, lambda _, gone: {}), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / SOCKET_NAME))
        with pytest.raises(OSError):
            for _ in range(300):
                client.sendall(b" ")
                time.sleep(0.1)


@pytest.mark.parametrize(
    "answer",
    [
        b"x" * (control._ANSWER_BYTES_MAX + 70_000),
        b'{"ok": false, "error": {"exit_code": Infinity, "message": ""}}\n',
        b'{"ok": false, "error": {"exit_code": 1e400, "message": ""}}\n',
        b'{"ok": false, "error": {"exit_code": 256, "message": ""}}\n',
        b'{"ok": true, "result": 7}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_an_answer_of_any_kind_is_one_error(tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path / SOCKET_NAME, lambda client: client.sendall(answer)), pytest.raises(Exception) as caught:
        call(tmp_path, STATUS, 10)
    assert getattr(caught.value, "exit_code", None) == StateError.exit_code


def test_a_number_that_json_does_not_have_is_none_in_an_answer(tmp_path: Path) -> None:
    answer = b'{"ok": true, "result": {"one": NaN, "two": [1e400, -Infinity], "three": 1.5}}\n'
    with answering(tmp_path / SOCKET_NAME, lambda client: client.sendall(answer)):
        assert call(tmp_path, STATUS, 10) == {"one": None, "two": [None, None], "three": 1.5}


def test_a_last_state_of_another_user_or_of_any_size_is_not_read(tmp_path: Path, theirs: Path) -> None:
    for folder in (theirs, tmp_path):
        place = folder / SAVED_STATUS_NAME
        place.touch()
        os.truncate(place, 8 << 40)  # sparse
    os.chown(theirs / SAVED_STATUS_NAME, NOBODY, NOBODY)
    for folder in (theirs, tmp_path):
        assert read_saved_status(folder) is None


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), -float("inf"), 1e300, pytest.param(10**400, id="huge"), -(1 << 64)]
)
def test_no_number_of_a_report_ends_the_list_of_all(number: float) -> None:
    view = View({"number": number})
    assert view.number("number") is None and view.whole("number") is None
    part = {"total_bytes": number, "done_bytes": number, "eta_seconds": number, "rate_bytes": number}
    told = {"silent_seconds": number, "out_of_sync_bytes": number, "lag_seconds": number, "progress": part}
    reports = [
        {"role": role, "target": f"/{role}", "running": True, "connected": False, **told}
        for role in ("primary", "secondary")
    ]
    assert len(lines(in_order(reports))) == 2


def test_a_report_that_cannot_be_told_is_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(report: View, now: object) -> str:
        if report.text("target") == "/his":
            raise ZeroDivisionError
        return "streaming"

    monkeypatch.setattr(overview, "headline", faulty)
    told = lines([{"running": True, "target": target} for target in ("/his", "/ours")])
    assert "cannot be read" in told[0] and "streaming" in told[1]


def test_a_link_to_the_socket_of_another_controller_is_not_asked(tmp_path: Path, theirs: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    with ControlServer(real, lambda _, gone: {"role": "primary", "mode": "normal"}):
        (theirs / SOCKET_NAME).symlink_to(real / SOCKET_NAME)
        with pytest.raises(StateError, match="symbolic link"):
            call(theirs, STATUS, 2.0)
        assert not is_answering(theirs) and is_answering(real)


def test_a_directory_that_cannot_be_read_hides_no_other_one(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = overview.call

    def faulty(place: Path, *rest: object) -> object:
        if place.name == "his":
            raise MemoryError
        return ask(place, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(overview, "call", faulty)
    for name in ("his", "ours"):
        (alone / name).mkdir()
        with registered_secondary(image(alone / f"{name}.img", MIB), alone / name, "127.0.0.1", 1, keep=True):
            pass
    with ControlServer(alone / "ours", lambda _, gone: REPLICA):
        assert execute(["status"]) == 9
        told = capsys.readouterr().out.splitlines()
        assert len(told) == 2 and "his.img" in told[0] and "cannot be read" in told[0] and "streaming" in told[1]
        assert execute(["status", "--json"]) == 9
        assert len(json.loads(capsys.readouterr().out)["volumes"]) == 2


def test_a_volume_that_cannot_be_taken_down_does_not_stop_the_others(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = []

    def take(place: Path, timeout_s: float) -> tuple[bool, bool]:
        if place.name == "his":
            raise PermissionError(13, "Permission denied")
        taken.append(place.name)
        return True, False

    monkeypatch.setattr(down, "_take_down", take)
    for name in ("his", "ours"):
        (alone / name).mkdir()
        with registered_secondary(image(alone / f"{name}.img", MIB), alone / name, "127.0.0.1", 1, keep=True):
            pass
    assert execute(["down", "--all"]) == 1
    assert taken == ["ours"] and "his.img: it could not be taken down" in capsys.readouterr().err


def test_an_answer_of_another_user_hides_no_program_of_a_volume(
    alone: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    monkeypatch.setattr(overview, "programs_alone", lambda volumes: asked.append(volumes) or [])
    monkeypatch.setattr(overview, "call", lambda *_: {**REPLICA, "user": "65534 (nobody)", "volume": "lost"})
    with registered_secondary(image(alone / "t.img", MIB), theirs, "127.0.0.1", 1, keep=True):
        overview.all_reports()
    assert asked == [set()]
