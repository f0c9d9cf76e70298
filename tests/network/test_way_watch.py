"""The kernel tells of a interface, an address or a route that is gone, and of TCP's retransmissions; real ones, over a veth."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from pydbt.core.primary.interruption import TcpView, Way, way_problem
from pydbt.network import way_watch
from pydbt.network.tcp_view import tcp_view
from pydbt.network.way_watch import WayWatch
from tests.lab.cable import Cable, laid_cable
from tests.lab.patience import PATIENCE_S, run, until


@pytest.fixture
def cable() -> Iterator[Cable]:
    with laid_cable() as laid:
        yield laid


@pytest.fixture
def seen() -> queue.SimpleQueue[tuple[int, Way]]:
    return queue.SimpleQueue()


@pytest.fixture
def watch(seen: queue.SimpleQueue[tuple[int, Way]]) -> Iterator[WayWatch]:
    with contextlib.closing(WayWatch(lambda number, way: seen.put((number, way)))) as made:
        yield made


def until_told(seen: queue.SimpleQueue[tuple[int, Way]], words: str) -> None:
    while way_problem(seen.get(timeout=PATIENCE_S)[1]) != words:
        pass


def test_each_way_to_lose_a_way_is_told_and_that_it_is_back(
    cable: Cable, seen: queue.SimpleQueue[tuple[int, Way]], watch: WayWatch
) -> None:
    watch.look_at({7: (cable.far_address, cable.near_address)})
    number, way = seen.get(timeout=PATIENCE_S)
    assert number == 7 and not way_problem(way) and way.interface == cable.near
    cable.unplug()
    until_told(seen, f"the interface {cable.near} has no carrier")
    cable.plug()
    until_told(seen, "")
    run("ip", "link", "set", cable.near, "down")
    until_told(seen, f"the interface {cable.near} is down")
    run("ip", "link", "set", cable.near, "up")
    until_told(seen, "")
    run("ip", "address", "add", f"{cable.near_address}/32", "dev", "lo")
    run("ip", "address", "del", f"{cable.near_address}/30", "dev", cable.near)
    run("ip", "address", "del", f"{cable.near_address}/32", "dev", "lo")
    until_told(seen, f"this machine does not have the address {cable.near_address} any more")
    run("ip", "address", "add", f"{cable.near_address}/30", "dev", cable.near)
    until_told(seen, "")
    run("ip", "route", "add", "unreachable", cable.far_address)
    try:
        until_told(seen, f"no route to {cable.far_address}")
    finally:
        run("ip", "route", "del", "unreachable", cable.far_address)
    until_told(seen, "")


def test_ways_within_this_machine_are_whole(seen: queue.SimpleQueue[tuple[int, Way]], watch: WayWatch) -> None:
    watch.look_at({0: ("127.0.0.1", "127.0.0.1"), 1: ("::1", "::1"), 2: ("no address", "")})
    told = [seen.get(timeout=PATIENCE_S) for _ in range(2)]
    assert sorted(number for number, _ in told) == [0, 1]
    assert not any(way_problem(way) for _, way in told)


def test_where_netlink_is_refused_nothing_is_told_and_the_debug_log_says_why(
    seen: queue.SimpleQueue[tuple[int, Way]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(way_watch, "_notifications", refused)
    with caplog.at_level(logging.DEBUG, "pydbt"), contextlib.closing(WayWatch(lambda *told: seen.put(told))) as watch:
        watch.look_at({0: ("127.0.0.1", "127.0.0.1")})
        until(lambda: "the heartbeat alone" in caplog.text, "the refusal is logged")
    assert "Operation not permitted" in caplog.text and seen.empty()
    assert all(record.levelno == logging.DEBUG for record in caplog.records)


@contextlib.contextmanager
def connected_pair(cable: Cable) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection over the cable; ours first."""
    made: list[socket.socket] = []

    def listen() -> None:
        with open(cable.namespace_file) as namespace:
            _enter(namespace.fileno())
        made.append(socket.create_server((cable.far_address, 0)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    with made[0] as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            yield ours, theirs


def _enter(namespace: int) -> None:
    """This thread alone; Python has it as os.setns only since 3.12."""
    import ctypes

    assert ctypes.CDLL(None, use_errno=True).setns(namespace, 0) == 0


def looked(sock: socket.socket) -> TcpView:
    view = tcp_view(sock)
    assert view is not None
    return view


def test_tcp_tells_what_is_not_answered_and_how_often_it_was_sent_again(cable: Cable) -> None:
    with connected_pair(cable) as (ours, theirs):
        ours.sendall(b"x" * 100_000)
        left = 100_000
        while left:
            left -= len(theirs.recv(left))
        until(lambda: looked(ours).unacknowledged == 0, "everything is acknowledged")
        assert looked(ours).retransmissions == 0
        run(
            *cable.enter, "ip", "route", "add", "blackhole", cable.near_address
        )  # no answer comes back, no carrier is lost
        ours.sendall(b"y")
        until(lambda: looked(ours).retransmissions > 1, "it is sent again")
        assert looked(ours).unacknowledged > 0 and looked(ours).answer_age_s > 0


def test_a_socket_that_is_none_of_tcp_or_closed_tells_nothing() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert tcp_view(one) is None
    assert tcp_view(one) is None


def test_a_watch_that_fails_takes_back_that_a_way_is_gone(
    seen: queue.SimpleQueue[tuple[int, Way]], watch: WayWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Way("10.0.0.2", "", "", is_up=False, has_carrier=False, has_local=False)
    looks = iter([gone] * 9)

    def look(kernel: object, remote: str, local: str) -> Way:
        if local:
            raise OSError("no memory")
        return next(looks)

    monkeypatch.setattr(way_watch, "_way", look)
    watch.look_at({1: ("10.0.0.2", "")})
    until_told(seen, "no route to 10.0.0.2")
    watch.look_at({1: ("10.0.0.2", "10.0.0.1")})
    until_told(seen, "")


def test_without_a_way_the_kernel_is_not_asked_and_the_library_for_that_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits, asked, wait = threading.Event(), queue.SimpleQueue[dict[int, way_watch.Ends]](), WayWatch._wait

    def told_wait(watch: WayWatch, news: socket.socket) -> None:
        waits.set()
        wait(watch, news)

    monkeypatch.setattr(WayWatch, "_wait", told_wait)
    monkeypatch.setattr(WayWatch, "_follow", lambda watch, news: asked.put(watch._ways))
    with contextlib.closing(WayWatch(lambda number, way: None)) as watch:
        assert waits.wait(PATIENCE_S)
        watch.look_at({1: ("10.0.0.2", "")})
        assert asked.get(timeout=PATIENCE_S) == {1: ("10.0.0.2", "")}
