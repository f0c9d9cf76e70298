"""A WELCOME from another replica than the one on record is no welcome: it may be anybody that took the address over."""

from __future__ import annotations

import socket
import threading

import pytest

from pydbt.controller.primary.handshake import Refused, shake_hands
from pydbt.core.protocol.frames import Hello, Refuse, Welcome
from pydbt.network.connection import FramedConnection

HELLO = Hello(volume="00" * 16, size_bytes=1 << 20, block_bytes=4096, epoch=1, sector_bytes=512)
KNOWN, OTHER = "a1" * 16, "b2" * 16


def answered(answer: Welcome | Refuse, expected: str) -> Welcome:
    """The outcome of a handshake with somebody who answers this."""
    near, far = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        sock, _ = near.accept()
        connection = FramedConnection(sock)
        connection.recv_frame()
        connection.send_frames([answer])
        far.append(connection.recv_frame())
        connection.close()

    thread = threading.Thread(target=serve)
    with near:
        thread.start()
        try:
            connection, welcome = shake_hands("127.0.0.1", near.getsockname()[1], HELLO, None, expected)
            connection.close()
            return welcome
        finally:
            thread.join(10)
            assert far == [None], "nothing was sent to it"


def welcome_of(replica: str, formerly: tuple[str, ...] | None = None) -> Welcome:
    return Welcome(None, "inconsistent", 0, 0, False, 1 << 20, True, replica=replica, formerly=formerly)


def test_the_replica_on_record_is_welcome_also_under_a_later_name() -> None:
    assert answered(welcome_of(KNOWN), KNOWN).replica == KNOWN
    assert answered(welcome_of(OTHER, (KNOWN,)), KNOWN).replica == OTHER
    assert answered(welcome_of(OTHER), "").replica == OTHER, "none is on record yet, or the operator accepts another"


def test_another_replica_is_sent_nothing_and_the_way_out_is_named() -> None:
    with pytest.raises(Refused, match="--accept-replica") as raised:
        answered(welcome_of(OTHER), KNOWN)
    assert raised.value.code == "other-replica" and KNOWN in str(raised.value) and OTHER in str(raised.value)


def test_a_refusal_without_words_is_still_a_sentence() -> None:
    with pytest.raises(Refused, match="holds another volume: use its own primary"):
        answered(Refuse("other-volume", ""), "")
