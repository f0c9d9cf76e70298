"""An attempt to connect always ends with a word, and the next address of a name is tried, whatever the system refuses."""

from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pydbt.controller import registry
from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary import handshake
from pydbt.controller.primary.handshake import Happening, converse
from pydbt.controller.primary.peer_connection import Attempt, PeerConnection
from pydbt.core.errors import PeerError, Unreachable, UsageError
from pydbt.core.primary.events import Disconnected
from pydbt.core.protocol.frames import Hello, Welcome
from pydbt.network import connect, listen

HELLO = Hello(volume="00" * 16, size_bytes=1 << 20, block_bytes=4096, epoch=1, sector_bytes=512)


@pytest.fixture
def no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with ipv6.disable=1, as its kernel answers."""
    real = socket.socket

    def make(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, kind)

    for module in (connect, listen, registry):
        names = {name: getattr(socket, name) for name in dir(socket)}
        monkeypatch.setattr(module, "socket", SimpleNamespace(**{**names, "socket": make}))


def two_addresses(port: int) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    return [(socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, ("127.0.0.1", port))]


def test_an_address_of_a_family_that_the_machine_lacks_is_passed_over(
    no_ipv6: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(connect, "resolve", lambda *_: two_addresses(port))
        connect.connect("beta", port).close()
    monkeypatch.setattr(connect, "resolve", lambda *_: two_addresses(port)[::-1])
    happened: list[Happening] = []
    converse("beta", port, HELLO, None, "", 1.0, happened.append)
    assert [type(what) for what in happened] == [Unreachable] and "not supported" in str(happened[0])


def test_to_listen_at_such_an_address_is_refused_in_one_sentence(no_ipv6: None) -> None:
    with pytest.raises(UsageError, match=r"cannot listen on \[::1\]:7790: Address family"):
        listen.listen("::1", 7790)
    assert not registry._is_own("::1")


def test_any_error_that_ends_an_attempt_or_its_connection_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the brain waits for the attempt for ever, and nobody connects again."""
    happened: list[Happening] = []

    def fails(*_: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(handshake, "shake_hands", fails)
    converse("beta", 1, HELLO, None, "", 1.0, happened.append)
    assert isinstance(happened[0], PeerError) and "Too many open files" in str(happened[0])

    connection = SimpleNamespace(recv_frame=lambda: [][0])
    welcome = Welcome(None, "inconsistent", 0, 0, False, 1 << 20, True, replica="a1" * 16)
    monkeypatch.setattr(handshake, "shake_hands", lambda *_: (connection, welcome))
    happened.clear()
    converse("beta", 1, HELLO, None, "", 1.0, happened.append)
    assert isinstance(happened[-1], Disconnected) and "IndexError" in happened[-1].reason


def test_a_machine_without_room_for_one_more_thread_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    posted: list[Attempt] = []
    options = PrimaryOptions(Path("/dev/x"), (("h", 1),), tmp_path)
    connection = PeerConnection(options, ("h", 1), None, None, lambda: HELLO, str, posted.append)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    connection.connect()
    event = connection.happened(posted[0])
    assert isinstance(event, Disconnected) and "can't start new thread" in event.reason
