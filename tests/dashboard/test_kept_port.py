"""A manager of services keeps the dashboard's port: it hands its sockets over, and whoever connects meanwhile waits."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.errors import UsageError
from pydbt.dashboard.entrance import Entrance, beyond_loopback
from pydbt.network.handed_over import handed_over_sockets, listening_place
from tests.lab.programs import ROOT
from tests.lab.served_dashboard import _PROGRAM, Machine

# What systemd does between fork and exec: the sockets from descriptor 3 on, and the number of the process (sd_listen_fds(3)).
_LAUNCHER = """
import os, sys
sockets = [int(word) for word in sys.argv[1].split(",")]
kept = [os.dup2(fd, 100 + at) for at, fd in enumerate(sockets)]
for at, fd in enumerate(kept):
    os.dup2(fd, 3 + at)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES="pydbt-dashboard.socket")
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "m")
    made.add("data")
    yield made
    made.end()


@pytest.fixture
def port() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as sock:
        yield sock


def started(machine: Machine, sockets: list[socket.socket], *words: object) -> subprocess.Popen[bytes]:
    with (machine.folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, ",".join(str(sock.fileno()) for sock in sockets), _PROGRAM,
             str(machine.folder), *map(str, words)],
            cwd=ROOT, env={**os.environ, "TEST_SETTINGS": "{}"}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=[sock.fileno() for sock in sockets],
        )  # fmt: skip


def ended(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    process.send_signal(number)
    return process.wait(30)


def test_the_port_is_held_while_the_service_is_down_and_who_connects_then_is_answered(
    machine: Machine, port: socket.socket
) -> None:
    place, token = port.getsockname(), machine.folder / "token"
    words = ["--token-file", token, "--peers", machine.folder / "peers"]
    waiting = http.client.HTTPConnection(*place, timeout=60)
    waiting.request("GET", "/", headers={"Host": f"127.0.0.1:{place[1]}"})  # nothing runs yet
    process = started(machine, [port], *words)
    try:
        assert waiting.getresponse().status == 401, "it waited for the start, and has shown no token"
        assert f"http://127.0.0.1:{place[1]}/" in (machine.folder / "log").read_text()
        ended(process, signal.SIGKILL)
        with pytest.raises(OSError), socket.socket() as intruder:
            intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            intruder.bind(place)
            intruder.listen()
        again = http.client.HTTPConnection(*place, timeout=60)
        headers = {"Host": f"127.0.0.1:{place[1]}", "Authorization": f"Bearer {token.read_text().strip()}"}
        again.request("GET", "/api/overview", headers=headers)
        process = started(machine, [port], *words)
        answer = again.getresponse()
        assert answer.status == 200 and b'"machines"' in answer.read()
        assert ended(process, signal.SIGTERM) == 0, "an ordinary end leaves the port open as well"
        socket.create_connection(place, 5).close()
    finally:
        process.kill()
        process.wait()


def test_a_socket_of_this_machine_is_left_where_its_manager_has_made_it(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "kept.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        process = started(machine, [sock], "--peers", machine.folder / "peers")
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(path))
                client.sendall(b"GET /api/overview HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            assert ended(process, signal.SIGTERM) == 0 and path.is_socket()
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--listen", "127.0.0.1:1"], "--listen 127.0.0.1:1 is not where the socket unit listens"),
        (["--key", "/nowhere"], "--key is the key of --certificate"),
    ],
)
def test_what_does_not_fit_the_socket_that_was_handed_over_is_refused(
    machine: Machine, port: socket.socket, words: list[str], sentence: str
) -> None:
    process = started(machine, [port], *words, "--peers", machine.folder / "peers")
    assert process.wait(60) == 2 and sentence in (machine.folder / "log").read_text()


def test_a_port_that_other_machines_reach_needs_tls_also_when_it_was_handed_over(machine: Machine) -> None:
    with socket.create_server(("0.0.0.0", 0)) as sock:
        process = started(machine, [sock], "--peers", machine.folder / "peers")
        assert process.wait(60) == 2 and "without TLS everybody on the way" in (machine.folder / "log").read_text()


def handed(*sockets: socket.socket, process: int | None = None) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid() if process is None else process), "LISTEN_FDS": str(len(sockets)), "A": "b"}


def test_sockets_of_another_process_are_not_taken_and_the_variables_are_for_nobody_else(port: socket.socket) -> None:
    for environment in (handed(port, process=1), {"LISTEN_FDS": "1", "A": "b"}, handed()):
        assert handed_over_sockets(environment, port.fileno()) == [] and environment == {"A": "b"}


def test_what_is_no_listening_stream_socket_is_refused_by_name(tmp_path: Path) -> None:
    with (
        socket.socket() as silent, socket.socket(type=socket.SOCK_DGRAM) as datagrams, (tmp_path / "f").open("wb") as file,
    ):  # fmt: skip
        for one in (silent, datagrams, file):
            number = os.dup(one.fileno())
            with pytest.raises(UsageError, match=f"descriptor {number}, which LISTEN_FDS names"):
                handed_over_sockets(handed(silent), number)
            with contextlib.suppress(OSError):  # a socket object has closed it
                os.close(number)


def test_kinds_that_differ_in_who_may_read_are_not_served_together(port: socket.socket, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "s"))
        local.listen()
        assert listening_place(local) == (f"unix:{tmp_path}/s", 0)
        with pytest.raises(UsageError, match="only these need no token"):
            Entrance.kept([port, local])


def test_each_of_several_addresses_counts_for_who_may_reach_it(port: socket.socket) -> None:
    with socket.create_server(("0.0.0.0", 0)) as wide:
        entrance = Entrance.kept([port, wide])
        assert beyond_loopback(entrance.places) == f"0.0.0.0:{wide.getsockname()[1]}"
        assert entrance.hosts == {"127.0.0.1", "0.0.0.0"} and not entrance.is_local
