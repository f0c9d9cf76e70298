"""A claim goes to whoever asks, by a socket, for the device that is held and no other; and it ends when it is asked to."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.errors import BusyError
from pydbt.posix.held_device import HoldServer, end_hold, take_held


@pytest.fixture
def wake() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for one in ends:
        os.close(one)


class Serving:
    """A server in a thread; ``/dev/null`` stands for the device, since its number is one as well."""

    def __init__(self, folder: Path, wake: tuple[int, int], *, holding: bool = True) -> None:
        self._server, self._wake = HoldServer("data", folder), wake
        self._held = os.open("/dev/null", os.O_RDONLY) if holding else None
        self.asked_to_end = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        self.asked_to_end = self._server.serve(self._held, 60, self._wake[0])
        if self._held is not None:
            os.close(self._held)
        self._server.close()

    def ended(self) -> bool:
        """Whether it was asked to end; else it is stopped now."""
        os.write(self._wake[1], b"x")
        self._thread.join()
        return self.asked_to_end


NUMBER = os.stat("/dev/null").st_rdev


def test_every_question_for_the_device_gets_the_same_open_file(tmp_path: Path, wake: tuple[int, int]) -> None:
    serving = Serving(tmp_path, wake)
    try:
        first, second = take_held(NUMBER, tmp_path), take_held(NUMBER, tmp_path)
        assert first is not None and second is not None and first != second
        assert os.fstat(first).st_rdev == NUMBER and not os.get_inheritable(first)
        assert take_held(NUMBER + 1, tmp_path) is None
    finally:
        assert not serving.ended()
    for one in (first, second):
        os.close(one)
    assert not list(tmp_path.iterdir()), "the socket goes with it"


def test_an_end_is_answered_only_when_the_device_is_let_go_of(tmp_path: Path, wake: tuple[int, int]) -> None:
    serving = Serving(tmp_path, wake)
    assert not end_hold(NUMBER + 1, tmp_path)
    assert end_hold(NUMBER, tmp_path)
    assert serving.ended(), "it was asked"
    assert not end_hold(NUMBER, tmp_path) and not end_hold(NUMBER, tmp_path / "missing")


def test_nothing_is_handed_on_while_nothing_is_held(tmp_path: Path, wake: tuple[int, int]) -> None:
    serving = Serving(tmp_path, wake, holding=False)
    assert take_held(NUMBER, tmp_path) is None
    assert not serving.ended()


def test_the_socket_of_a_killed_process_is_replaced_and_answers_nobody(tmp_path: Path, wake: tuple[int, int]) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.bind(str(tmp_path / "hold-data.sock"))
    left.close()
    (tmp_path / "other").touch()
    assert take_held(NUMBER, tmp_path) is None
    serving = Serving(tmp_path, wake)
    taken = take_held(NUMBER, tmp_path)
    assert taken is not None
    os.close(taken)
    serving.ended()


def test_nobody_but_root_can_ask(tmp_path: Path, wake: tuple[int, int]) -> None:
    serving = Serving(tmp_path, wake)
    assert (tmp_path / "hold-data.sock").stat().st_mode & 0o077 == 0
    serving.ended()


def test_a_second_server_of_one_name_is_refused_and_the_first_one_goes_on(
    tmp_path: Path, wake: tuple[int, int]
) -> None:
    """A hold that is typed beside that of the unit: without the first one's socket nothing could take over or end the hold."""
    serving = Serving(tmp_path, wake)
    with pytest.raises(BusyError, match="another 'controller hold'"):
        HoldServer("data", tmp_path)
    HoldServer("other", tmp_path).close()
    taken = take_held(NUMBER, tmp_path)
    assert taken is not None
    os.close(taken)
    assert end_hold(NUMBER, tmp_path) and serving.ended()
    again = HoldServer("data", tmp_path)
    again.close()
    again.close()
    assert not list(tmp_path.iterdir())


def test_only_the_own_socket_is_removed(tmp_path: Path) -> None:
    server = HoldServer("data", tmp_path)
    path = tmp_path / "hold-data.sock"
    path.rename(tmp_path / "moved")
    path.write_text("of another")
    server.close()
    assert path.read_text() == "of another"


def test_a_server_that_cannot_be_made_leaves_its_name_free(tmp_path: Path) -> None:
    (tmp_path / "hold-data.sock").mkdir()
    with pytest.raises(OSError, match="hold-data"):
        HoldServer("data", tmp_path)
    (tmp_path / "hold-data.sock").rmdir()
    HoldServer("data", tmp_path).close()
    assert not list(tmp_path.iterdir())
