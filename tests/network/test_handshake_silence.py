"""A secondary that accepts a connection and sends nothing, because it is frozen, has failed: the primary tries again.

Once it was welcomed, ``--ack-timeout`` tells how long it bears silence, however long that is.
"""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller import pki
from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary import handshake, peer_connection
from pydbt.controller.primary.handshake import Happening, Welcomed, converse
from pydbt.controller.primary.peer_connection import PeerConnection
from pydbt.core.errors import NoAnswer, PeerError, Unreachable
from pydbt.core.primary.events import Disconnected
from pydbt.core.protocol.frames import Hello, Welcome
from pydbt.network.connection import SILENCE_S, FramedConnection
from pydbt.network.tls import Secure, load_identity
from pydbt.store.peer_pin import PeerPin

_HELLO = Hello(volume="00" * 16, size_bytes=1 << 20, block_bytes=4096, epoch=1, sector_bytes=512)


def test_a_silent_secondary_is_an_unreachable_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_S", 0.2)
    silence = pytest.raises(NoAnswer, match="said nothing for")
    with socket.create_server(("127.0.0.1", 0)) as listener, silence:
        handshake.shake_hands("127.0.0.1", listener.getsockname()[1], _HELLO)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("tls", [False, True])
def test_a_peer_that_accepts_and_closes_at_once_may_be_a_proxy_before_a_starting_secondary(
    tmp_path: Path, tls: bool, reset: bool
) -> None:
    secure = None
    if tls:
        pki.make_authority(tmp_path / "pki")
        secure = Secure(load_identity(pki.issue(tmp_path / "pki", "alpha")), PeerPin(tmp_path, None))

    def serve() -> None:
        accepted = listener.accept()[0]
        if reset:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises((NoAnswer, Unreachable)):  # the reset may come before connect() has looked at its socket
            handshake.shake_hands("127.0.0.1", listener.getsockname()[1], _HELLO, secure)
        thread.join(10)


def test_a_peer_that_speaks_another_protocol_is_no_secondary_and_not_taken_for_a_silent_one() -> None:
    def serve() -> None:
        accepted = listener.accept()[0]
        accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 8)
        accepted.recv(1 << 16)
        accepted.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(PeerError, match="is no pydbt secondary") as caught:
            handshake.shake_hands("127.0.0.1", listener.getsockname()[1], _HELLO)
        assert not isinstance(caught.value, NoAnswer)
        thread.join(10)


def test_a_connection_bears_as_much_silence_as_it_is_told_to() -> None:
    def serve() -> None:
        connection = FramedConnection(listener.accept()[0])
        connection.recv_frame()
        connection.send_frames([Welcome(None, "inconsistent", 0, 0, False, 1 << 20, True, replica="a1" * 16)])
        connection.recv_frame()  # until the peer has enough of it
        connection.close()

    happened: list[Happening] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        converse("127.0.0.1", listener.getsockname()[1], _HELLO, None, "", 0.2, happened.append)
        welcomed, ended = happened
        assert isinstance(welcomed, Welcomed) and isinstance(ended, Disconnected)
        assert "was silent for 0.2 seconds" in ended.reason
        welcomed.connection.close()
        thread.join(10)


@pytest.mark.parametrize(("ack_timeout_s", "least_s"), [(4.0, SILENCE_S), (60.0, 60.5)])
def test_the_socket_never_gives_up_before_ack_timeout(
    monkeypatch: pytest.MonkeyPatch, ack_timeout_s: float, least_s: float
) -> None:
    given: list[float] = []
    monkeypatch.setattr(peer_connection, "converse", lambda *words: given.append(words[5]))
    options = PrimaryOptions(
        Path("/dev/null"), (("127.0.0.1", 1),), Path("/nowhere"), insecure=True, acknowledge_timeout_s=ack_timeout_s
    )
    capture: Any = None
    connection = PeerConnection(options, ("127.0.0.1", 1), None, capture, lambda: _HELLO, str, lambda _: None)
    connection._connect(1, _HELLO, "")
    assert given[0] >= least_s
