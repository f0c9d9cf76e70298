"""Clients that leave everything undone: none of them keeps the dashboard from those that may read."""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.controller import pki
from tests.lab.patience import until
from tests.lab.served_dashboard import Dashboard, Machine, serving


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "m")
    made.add("data")
    yield made
    made.end()


def is_ended(sock: socket.socket) -> bool:
    """Whether the dashboard has closed it; what it still said is read."""
    sock.settimeout(0.05)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: b\r\n", b"\r\n"])
def test_a_request_that_never_becomes_whole_is_given_up(machine: Machine, begun: bytes) -> None:
    with serving(machine, settings={"connection.REQUEST_S": 0.3}) as dashboard, dashboard.wire() as slow:
        slow.sendall(begun)
        until(lambda: is_ended(slow), "it is closed")
        assert dashboard.get("/api/overview").status == 200


def test_one_that_sends_a_header_now_and_then_is_given_up_all_the_same(machine: Machine) -> None:
    """Slowloris: each byte would begin a time anew that counts from the last one."""
    with serving(machine, settings={"connection.REQUEST_S": 0.5}) as dashboard, dashboard.wire() as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")

        def drips() -> bool:
            with contextlib.suppress(OSError):
                slow.sendall(b"X-A: b\r\n")
            return is_ended(slow)

        until(drips, "it is closed")


def test_a_second_request_has_no_more_time_than_the_first(machine: Machine) -> None:
    with serving(machine, settings={"connection.REQUEST_S": 0.3}) as dashboard, dashboard.wire() as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET / HT")
        assert slow.recv(65536).startswith(b"HTTP/1.1 401")
        until(lambda: is_ended(slow), "it is closed")


def test_one_that_takes_nothing_of_a_stream_is_cut_off_and_a_watcher_is_not(machine: Machine) -> None:
    machine.controllers["data"].status["notices"] = ["x" * 200_000]
    with serving(machine, settings={"connection.STALLED_S": 0.5, "stream._REPEAT_S": 0.0}) as dashboard:
        request = (
            f"GET /api/stream HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {dashboard.token}\r\n\r\n".encode()
        )
        with socket.socket() as stalled, dashboard.wire() as watcher:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(dashboard.address)
            stalled.sendall(request)
            watcher.sendall(request)
            watched = []

            def is_cut_off() -> bool:
                watched.append(len(watcher.recv(1 << 20)))
                return stalled.fileno() < 0 or not _is_connected(stalled)

            until(is_cut_off, "it is cut off")
            assert all(watched), "the other one was served all the time"


def _is_connected(sock: socket.socket) -> bool:
    """By the state of TCP: what waits to be read says nothing."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"  # TCP_ESTABLISHED


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: " + b"b" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n",
        b"\x00" * 100_000,
        b"GET / HTTP/1.1\r\n\r\n",
        # What a port scanner sends to find out who is there (nmap-service-probes).
        b"\x16\x03\x01\x00\x55\x01\x00\x00\x51\x03\x03" + b"scan" * 20,
        b"OPTIONS / RTSP/1.0\r\n\r\n",
        b"EHLO scanner\r\n",
        b"\x00\x00\x00\xa4\xff\x53\x4d\x42\x72\x00\x00\x00\x00\x08\x01\x40" + b"\x00" * 120,
        b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzzz\r\n",
    ],
    ids=["path", "header", "headers", "zeros", "no-host", "tls", "rtsp", "smtp", "smb", "empty", "http-2", "smuggled"],
)
def test_what_is_too_long_or_no_request_is_refused(machine: Machine, request_text: bytes) -> None:
    with serving(machine) as dashboard:
        with dashboard.wire() as sock:
            received = b""
            with contextlib.suppress(OSError):
                sock.sendall(request_text)
                sock.shutdown(socket.SHUT_WR)
                while piece := sock.recv(65536):
                    received += piece
        assert not received or received.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), received[:80]
        assert b"data" not in received and b"vdz" not in received, "it learns of no volume"
        assert dashboard.get("/api/overview").status == 200


def test_a_body_is_not_read(machine: Machine) -> None:
    with serving(machine) as dashboard, dashboard.wire() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000000\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 405")


def test_a_flood_without_the_token_keeps_out_nobody_who_has_it(machine: Machine) -> None:
    few = {"doorkeeper.CONNECTIONS_MAX": 8, "doorkeeper.FROM_ONE_ADDRESS": 8}
    with serving(machine, settings=few) as dashboard, contextlib.ExitStack() as stack:
        watcher = stack.enter_context(dashboard.wire())
        request = f"GET /api/stream HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {dashboard.token}\r\n\r\n"
        watcher.sendall(request.encode())
        assert watcher.recv(65536).startswith(b"HTTP/1.1 200")
        for _ in range(40):
            stack.enter_context(dashboard.wire())
        assert dashboard.get("/api/overview").status == 200
        assert watcher.recv(1 << 20), "who watches stays"


def test_watchers_beyond_the_limit_are_told_that_it_is_busy(machine: Machine) -> None:
    few = {"doorkeeper.CONNECTIONS_MAX": 4, "doorkeeper.FROM_ONE_ADDRESS": 4}
    with serving(machine, settings=few) as dashboard, contextlib.ExitStack() as stack:
        request = f"GET /api/stream HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {dashboard.token}\r\n\r\n"
        for _ in range(4):
            watcher = stack.enter_context(dashboard.wire())
            watcher.sendall(request.encode())
            assert watcher.recv(65536).startswith(b"HTTP/1.1 200")
        with dashboard.wire() as more:
            assert more.recv(65536).startswith(b"HTTP/1.1 503")
        stack.close()
        until(lambda: _answers(dashboard), "there is room again")


def _answers(dashboard: Dashboard) -> bool:
    try:
        return dashboard.get("/api/overview").status == 200
    except (OSError, ValueError):
        return False


@pytest.fixture
def secure(tmp_path: Path) -> tuple[tuple[object, ...], ssl.SSLContext]:
    """The options of a dashboard that serves by TLS, and what a client needs."""
    pki.make_authority(tmp_path / "pki")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return ("--listen", "0.0.0.0:0", "--identity", pki.issue(tmp_path / "pki", "alpha")), context


Secure = tuple[tuple[object, ...], ssl.SSLContext]


def test_handshakes_that_never_end_keep_out_nobody(machine: Machine, secure: Secure) -> None:
    words, context = secure
    few = {"doorkeeper.HANDSHAKES_MAX": 8, "doorkeeper.REQUEST_S": 0.3}
    with serving(machine, *words, tls=context, settings=few) as dashboard, contextlib.ExitStack() as stack:
        for _ in range(20):
            silent = stack.enter_context(socket.create_connection(dashboard.address))
            silent.sendall(b"\x16\x03\x01")
        until(lambda: _answers(dashboard), "it serves")


def _begin_handshake(dashboard: Dashboard, source: str) -> socket.socket:
    sock = socket.create_connection(dashboard.address, 20, (source, 0))
    with contextlib.suppress(OSError):
        sock.sendall(b"\x16\x03\x01")
    return sock


@pytest.mark.parametrize("attackers", [["127.0.0.1"], [f"127.0.1.{number}" for number in range(1, 17)]])
def test_handshakes_that_are_begun_anew_all_the_time_keep_out_nobody_elsewhere(
    machine: Machine, secure: Secure, attackers: list[str]
) -> None:
    words, context = secure
    renewed, ended = itertools.count(), threading.Event()
    all_taken = threading.Event()

    def attack(dashboard: Dashboard) -> None:
        """Each that is ended is begun anew at once."""
        with selectors.DefaultSelector() as held:
            for number in renewed:
                if number >= 100:
                    all_taken.set()
                    while not (over := held.select(0.05)) and not ended.is_set():
                        pass
                    for key, _ in over[:1]:
                        held.unregister(key.fileobj)
                        key.data.close()
                if ended.is_set():
                    break
                sock = _begin_handshake(dashboard, attackers[number % len(attackers)])
                held.register(sock, selectors.EVENT_READ, sock)
            for key in list(held.get_map().values()):
                key.data.close()

    with serving(machine, *words, tls=context) as dashboard:
        attacker = threading.Thread(target=attack, args=(dashboard,))
        attacker.start()
        try:
            until(all_taken.is_set, "all places are taken")
            for _ in range(10):
                plain = socket.create_connection(dashboard.address, 20, ("127.0.0.2", 0))
                with context.wrap_socket(plain) as sock:
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    assert sock.recv(65536).startswith(b"HTTP/1.1 401")
        finally:
            ended.set()
            attacker.join()


def test_of_one_address_the_oldest_handshake_goes_and_the_newest_stays(machine: Machine, secure: Secure) -> None:
    words, context = secure
    with serving(machine, *words, tls=context) as dashboard, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(_begin_handshake(dashboard, "127.0.0.1")) for _ in range(20)]
        until(lambda: all(is_ended(sock) for sock in silent[:12]), "the oldest go")
        assert not is_ended(silent[-1]) and dashboard.get("/api/overview").status == 200
