"""A peer that asks and reads no answer is cut: it holds up no loop, no other peer and no end, and takes no memory."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from pydbt.controller.secondary.answers import WAITING_MAX, Answers
from pydbt.controller.secondary.connections import UNHEARD_MAX, Connections
from pydbt.core.errors import PeerError
from pydbt.core.protocol.frames import Hello, Ping, Pong
from pydbt.core.secondary import events as e
from pydbt.network.arena import Arena
from pydbt.network.connection import FramedConnection
from tests.lab.patience import until
from tests.network.scripted import SecondaryProcess

FOR_EVER_S = 3600.0


def test_nobody_waits_for_a_peer_that_takes_nothing() -> None:
    near, far = socket.socketpair()
    connection = FramedConnection(near, silence_s=FOR_EVER_S)
    answers = Answers(connection)
    for number in range(100 * WAITING_MAX):
        answers.put(Pong(number))
        if connection.closed:
            break
    assert connection.closed
    answers.finish()
    answers.wait_sent(FOR_EVER_S)
    far.close()


def test_answers_arrive_in_order_and_then_the_end() -> None:
    near, far = socket.socketpair()
    answers, reader = Answers(FramedConnection(near)), FramedConnection(far)
    sent = []
    for number in range(50):
        answers.put(Pong(number), lambda number=number: sent.append(number))
    answers.finish()
    assert [reader.recv_frame() for _ in range(51)] == [*(Pong(number) for number in range(50)), None]
    answers.wait_sent(FOR_EVER_S)
    assert sent == list(range(50))
    near.close()
    far.close()


def test_on_a_machine_without_room_for_one_more_thread_the_peer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: FramedConnection) -> Answers:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("pydbt.controller.secondary.connections.Answers", refuse)
    events: list[e.Event] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = Connections(listener, Arena(1 << 20), events.append)
        connections.start()
        with socket.create_connection(listener.getsockname()) as sock:
            peer = FramedConnection(sock)
            peer.send_frames([Hello("00" * 16, 1 << 20, 4096, 1)])
            until(lambda: bool(events), "the peer is there")
            connections.send(1, Pong(1))
            assert peer.recv_frame() is None
        until(lambda: len(events) == 2, "its end is told")
        connections.stop()
    assert [type(event) for event in events] == [e.Connected, e.Disconnected]


def test_no_more_is_read_of_peers_than_the_loop_can_hear() -> None:
    events: list[e.Event] = []
    busy = threading.Event()
    busy.set()

    def waiting() -> int:
        return UNHEARD_MAX if busy.is_set() else 0

    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = Connections(listener, Arena(1 << 20), events.append, unheard=waiting)
        connections.start()
        with socket.create_connection(listener.getsockname()) as sock:
            peer = FramedConnection(sock)
            peer.send_frames([Hello("00" * 16, 1 << 20, 4096, 1), *(Ping(number) for number in range(100))])
            until(lambda: bool(events), "the peer is there")
            assert [type(event) for event in events] == [e.Connected]
            busy.clear()
            until(lambda: len(events) == 101, "its frames are heard")
        connections.stop()


@pytest.mark.variant
def test_a_primary_that_only_asks_is_cut_and_the_secondary_ends_when_it_is_told_to(tmp_path: Path) -> None:
    with SecondaryProcess(tmp_path) as secondary:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little fills it
        sock.connect(("127.0.0.1", secondary.port))
        primary = FramedConnection(sock)
        primary.send_frames([Hello("a1" * 16, 64 << 20, 4096, 7)])
        with pytest.raises(PeerError):
            for first in range(0, 2_000_000, 1000):
                primary.send_frames([Ping(first + number) for number in range(1000)])
        assert secondary.stop() == 0
