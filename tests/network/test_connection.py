"""Frames over real sockets: back-pressure, silence, foreign bytes, addresses."""

from __future__ import annotations

import socket
import threading

import pytest

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.errors import BusyError, PeerError, TimedOut, UsageError, WireError
from pydbt.core.protocol.frames import Blocks, Bye, Ping, Pong
from pydbt.network import address
from pydbt.network.address import check_plain_tcp, format_address, parse_address, split_address
from pydbt.network.arena import Arena, ArenaClosed
from pydbt.network.connect import connect
from pydbt.network.connection import FramedConnection
from pydbt.network.listen import listen
from tests.lab.patience import PATIENCE_S


@pytest.fixture
def pair():
    """Two connected ends over TCP."""
    listener = listen("127.0.0.1", 0)
    near = connect(*listener.getsockname())
    far, _ = listener.accept()
    ends = FramedConnection(near), FramedConnection(far)
    yield ends
    for end in ends:
        end.close()
    listener.close()


def big(batch: int) -> Blocks:
    return Blocks(
        batch, SectorTable.of(range(0, 16384, 8), [8] * 2048), tuple(bytes([batch]) * 4096 for _ in range(2048))
    )


def test_large_frames_of_many_pieces_arrive_whole_and_every_byte_is_counted(pair):
    near, far = pair
    sender = threading.Thread(target=lambda: near.send_frames([big(1), Ping(5), big(2)]))
    sender.start()
    assert [far.recv_frame() for _ in range(3)] == [big(1), Ping(5), big(2)]
    sender.join()
    assert near.sent_bytes == far.received_bytes > 16 << 20
    assert near.sent_bytes < (16 << 20) * 1.006
    assert near._send_number == far._receive_number == 3


def test_both_directions_are_independent(pair):
    for one, other in (pair, pair[::-1]):
        one.send_frames([Ping(1), Ping(2)])
        assert [other.recv_frame(), other.recv_frame()] == [Ping(1), Ping(2)]


def test_a_closed_peer_is_the_end_between_frames_and_an_error_within_one(pair):
    near, far = pair
    near.send_frames([Bye("done")])
    near.finish()
    assert far.recv_frame() == Bye("done")
    assert far.recv_frame() is None
    far._socket.sendall(b"PDBT\x01")
    far.close()
    with pytest.raises(PeerError, match="middle of a frame"):
        near.recv_frame()


def test_a_timeout_between_frames_leaves_the_connection_usable(pair):
    near, far = pair
    with pytest.raises(TimedOut):
        far.recv_frame(0.01)
    near.send_frames([Pong(9)])
    assert far.recv_frame(5.0) == Pong(9)


def test_a_silent_peer_and_one_that_takes_nothing_are_given_up():
    listener = listen("127.0.0.1", 0)
    near = FramedConnection(connect(*listener.getsockname()), silence_s=0.2)
    far, _ = listener.accept()
    with pytest.raises(PeerError, match="silent"):
        near.recv_frame()
    with pytest.raises(PeerError, match="took no data"):
        for number in range(1, 100):
            near.send_frames([big(number)])
    far.close()
    near.close()
    listener.close()


def test_a_peer_of_another_protocol_is_recognized(pair):
    near, far = pair
    near._socket.sendall(b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n")
    with pytest.raises(WireError, match="does not speak this protocol"):
        far.recv_frame()


def test_closing_wakes_waiting_threads(pair):
    near, _ = pair
    failures: list[BaseException | None] = []

    def wait() -> None:
        try:
            failures.append(near.recv_frame())
        except PeerError as error:
            failures.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    near.close()
    waiter.join(PATIENCE_S)
    assert len(failures) == 1


def test_an_absent_peer_is_one_error():
    probe = listen("127.0.0.1", 0)
    host, port = probe.getsockname()
    probe.close()
    with pytest.raises(PeerError, match="cannot be reached"):
        connect(host, port)
    with pytest.raises(PeerError, match="cannot be found"):
        connect("no-such-host.invalid", 1)


def test_a_port_in_use_is_named():
    first = listen("127.0.0.1", 0)
    with pytest.raises(BusyError, match="in use"):
        listen(*first.getsockname())
    first.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        (" 10.0.0.2:7790\n", ("10.0.0.2", 7790)),
        (" unix:/a/b ", ("unix:/a/b", 0)),
        ("[::1]:7790", ("::1", 7790)),
        ("host.example:0", ("host.example", 0)),
    ],
)
def test_addresses_are_read_as_people_write_them(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("host", "leads_to", "warned"),
    [
        ("alpha", "127.0.1.1", True),
        ("alpha", "::1", True),
        ("alpha", "10.0.0.2", False),
        ("localhost", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", False),
        ("unix:/a/b", "", False),
    ],
)
def test_a_name_that_leads_to_loopback_is_told_and_loopback_by_its_own_name_is_not(
    monkeypatch: pytest.MonkeyPatch, host: str, leads_to: str, warned: bool
) -> None:
    monkeypatch.setattr(address, "resolve", lambda *_, **__: [(socket.AF_INET, (leads_to, 7790))])
    words = address.unreachable_name(host, 7790)
    assert bool(words) is warned and (leads_to in words or not warned)


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "::1:80", "host:port", "host:70000", "host:-1", "h:٣"])
def test_a_text_that_is_not_an_address_is_refused(text):
    with pytest.raises(UsageError):
        parse_address(text)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "localhost", "127.9.9.9", "192.0.2.1", "0.0.0.0", "no-such.invalid"]
)
def test_plain_tcp_needs_insecure_wherever_it_goes(host):
    check_plain_tcp(host, True)
    with pytest.raises(UsageError, match="--insecure"):
        check_plain_tcp(host, False)


def test_a_socket_of_this_machine_needs_no_flag_because_the_kernel_names_the_peer():
    check_plain_tcp("unix:/run/x.sock", False)


def test_an_address_on_this_machine_is_a_path_and_is_written_as_it_was():
    assert parse_address("unix:/run/a//b.sock") == ("unix:/run/a/b.sock", 0)
    assert format_address("unix:/run/b.sock", 0) == "unix:/run/b.sock"
    assert split_address("unix:/run/b.sock") == ("unix:/run/b.sock", 0)


@pytest.mark.parametrize("text", ["unix:", "unix:x.sock", "unix:./x", "unix:/a\nb", "unix:/" + "x" * 107])
def test_a_path_that_no_socket_can_have_is_refused(text):
    with pytest.raises(UsageError, match=r"unix:|longer"):
        parse_address(text)


def test_an_arena_gives_room_back_in_any_order_and_waits_when_there_is_none():
    arena = Arena(1 << 20)
    views = [arena.allocate(300_000) for _ in range(3)]
    assert arena.used_bytes > 900_000
    got: list[memoryview] = []
    waiter = threading.Thread(target=lambda: got.append(arena.allocate(600_000)))
    waiter.start()
    del views[1]
    waiter.join(0.05)
    assert waiter.is_alive(), "600,000 bytes in a row are not free yet"
    views.clear()
    waiter.join(PATIENCE_S)
    assert len(got[0]) == 600_000
    got.clear()
    assert arena.used_bytes == 0


def test_arena_memory_stays_while_any_view_of_it_is_left():
    arena = Arena(1 << 20)
    view = arena.allocate(1000)
    view[:] = b"x" * 1000
    part = view[100:200][50:]
    del view
    assert arena.used_bytes > 0
    assert bytes(part) == b"x" * 50
    del part
    assert arena.used_bytes == 0


def test_closing_an_arena_wakes_waiting_threads():
    arena = Arena(1 << 20)
    held = arena.allocate(1 << 20)
    failures: list[str] = []

    def wait() -> None:
        try:
            arena.allocate(1)
        except ArenaClosed:
            failures.append("closed")

    waiter = threading.Thread(target=wait)
    waiter.start()
    arena.close()
    waiter.join(PATIENCE_S)
    assert failures == ["closed"]
    del held


def test_socket_pairs_work_too():
    near, far = map(FramedConnection, socket.socketpair())
    near.send_frames([Ping(1)])
    assert far.recv_frame() == Ping(1)
    near.close()
    far.close()
