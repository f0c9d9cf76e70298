"""Sockets of one machine: the kernel tells who the peer is, and nobody else is talked to."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydbt.core.errors import BusyError, PeerError, Unreachable, UsageError
from pydbt.network.connect import connect
from pydbt.network.connection import FramedConnection
from pydbt.network.listen import listen
from pydbt.network.local import check_local, check_peer, remove_socket

NOBODY = 65534


def as_nobody(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], user=NOBODY, group=NOBODY, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def place() -> Iterator[Path]:
    """A path that another user can reach; pytest's own folders cannot be."""
    folder = Path(tempfile.mkdtemp(prefix="pydbt-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder / "s.sock"
    shutil.rmtree(folder)


def test_root_and_this_user_are_connected_and_named(place: Path) -> None:
    with listen(f"unix:{place}", 0) as listener:
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        with connect(f"unix:{place}", 0) as ours:
            theirs, _ = listener.accept()
            with theirs:
                check_peer(theirs)
                assert FramedConnection(ours).peer == f"unix:{place}"
                assert FramedConnection(theirs).peer == "a process of this machine"
        remove_socket(listener)
    assert not place.exists()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo])
def test_something_that_is_no_socket_is_named_and_not_waited_for(place: Path, make: Callable[[Path], object]) -> None:
    check_local(f"unix:{place}")  # nothing is there yet: the secondary may come
    check_local("127.0.0.1")
    make(place)
    with pytest.raises(UsageError, match=f"unix:{place} cannot be the address of a secondary: .* no socket"):
        check_local(f"unix:{place}")
    with pytest.raises(Unreachable, match="no socket: name the path at which the secondary listens"):
        connect(f"unix:{place}", 0)
    with pytest.raises(UsageError, match="no socket"):
        listen(f"unix:{place}", 0)


def test_another_user_that_listens_in_the_place_of_the_secondary_is_sent_nothing(place: Path) -> None:
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()"
    code += "; print('up', flush=True); s.accept()[0].recv(1)"
    place.parent.chmod(0o777)  # only this lets him be there
    thief = as_nobody(code, place)
    try:
        assert thief.stdout is not None and thief.stdout.readline() == "up\n"
        with pytest.raises(PeerError, match=f"user {NOBODY}"):
            connect(f"unix:{place}", 0)
    finally:
        thief.kill()
        thief.wait()


def test_another_user_that_connects_is_turned_away(place: Path) -> None:
    with listen(f"unix:{place}", 0) as listener:
        place.chmod(0o666)  # as if the mode had not kept it away already
        code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"
        stranger = as_nobody(code, place)
        theirs, _ = listener.accept()
        with theirs, pytest.raises(PeerError, match=f"user {NOBODY}"):
            check_peer(theirs)
        stranger.wait(10)


def test_the_mode_keeps_other_users_from_connecting_at_all(place: Path) -> None:
    code = "import socket, sys\ntry: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\nexcept PermissionError: print('denied')"
    with listen(f"unix:{place}", 0):
        output, _ = as_nobody(code, place).communicate(timeout=10)
    assert output == "denied\n"


def test_a_socket_that_a_killed_process_left_is_replaced_and_a_living_one_is_not(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    with listen(f"unix:{place}", 0) as listener:
        accepting = threading.Thread(target=lambda: listener.accept()[0].close())
        accepting.start()
        with pytest.raises(BusyError, match="in use"):
            listen(f"unix:{place}", 0)
        accepting.join(10)


def test_a_file_that_is_no_socket_is_not_removed(place: Path) -> None:
    place.write_text("precious")
    with pytest.raises(UsageError, match="no socket"):
        listen(f"unix:{place}", 0)
    assert place.read_text() == "precious"
    with pytest.raises(PeerError, match="cannot be reached"):
        connect(f"unix:{place}", 0)


@pytest.mark.parametrize("owner", [NOBODY, 0], ids=["another user's", "everybody's"])
def test_in_a_folder_that_others_may_write_to_nothing_is_bound_and_nothing_removed(place: Path, owner: int) -> None:
    if owner:
        os.chown(place.parent, owner, owner)
    else:
        place.parent.chmod(0o1777)
    with pytest.raises(UsageError, match="is not safe from other users"):
        listen(f"unix:{place}", 0)
    assert not list(place.parent.iterdir())


def test_a_socket_whose_program_takes_nobody_in_is_in_use_and_no_wait(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as full, contextlib.ExitStack() as stack:
        full.bind(str(place))
        full.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(place))
        with pytest.raises(BusyError):
            listen(f"unix:{place}", 0)
        assert place.exists()
