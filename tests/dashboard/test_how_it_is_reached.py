"""Starts and ends of a dashboard, and the ways to it: loopback, TLS, a socket for a proxy, and other machines."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydbt.cli.group import execute
from pydbt.controller import pki
from tests.lab.patience import until
from tests.lab.served_dashboard import Dashboard, Machine, serving, started


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "m")
    made.add("data")
    yield made
    made.end()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    folder = tmp_path / "pki"
    pki.make_authority(folder)
    return folder


def client(identity: Path | None = None) -> ssl.SSLContext:
    """Of a test: whoever serves is good enough."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if identity is not None:
        context.load_cert_chain(identity)
    return context


Refuse = Callable[..., tuple[int, str]]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Exit code and sentence of a start that fails."""

    def start(*words: object) -> tuple[int, str]:
        code = execute(["dashboard", *map(str, words)])
        return code, capsys.readouterr().err

    return start


# --- start and end --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_its_ordinary_end_also_while_somebody_watches(machine: Machine, number: signal.Signals) -> None:
    with serving(machine) as dashboard, dashboard.wire() as watcher, dashboard.wire(), dashboard.wire() as half:
        request = f"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {dashboard.token}\r\n\r\n"
        watcher.sendall(request.encode())
        assert watcher.recv(1 << 16)
        half.sendall(b"GET / HT")
        dashboard.process.send_signal(number)
        assert dashboard.process.wait(30) == 0, dashboard.log.read_text()
        assert b"Traceback" not in dashboard.log.read_bytes() and b"bug" not in dashboard.log.read_bytes()


def test_a_signal_during_its_start_ends_it_with_nothing_left(machine: Machine) -> None:
    process, log = started(machine, ["--listen", "127.0.0.1:0"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, -signal.SIGTERM), log.read_text()  # before Python runs, the kernel ends it


def test_a_port_that_is_taken_is_one_sentence(refused: Refuse) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, words = refused("--listen", f"127.0.0.1:{port}")
    assert code == 4 and words.count("\n") == 1 and f"port {port} of 127.0.0.1 is in use by another program" in words


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_an_address_that_others_reach_needs_tls(refused: Refuse, address: str) -> None:
    code, words = refused("--listen", address)
    assert code == 2 and "without TLS" in words and "--identity" in words and words.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("x" * 40, 0o644, "can be read by other users: run chmod 600"),
        ("x" * 40, 0o660, "can be read by other users"),
        ("root:x:0:0::/root:/bin/sh", 0o644, "holds no token"),
        ("short", 0o600, "name another file"),
        ("", 0o600, "holds no token"),
        ("x" * 20 + "\n" + "y" * 20, 0o600, "holds no token"),
        ("with blanks in it and more", 0o600, "holds no token"),
        ("x" * 10000, 0o600, "holds no token"),
    ],
)
def test_a_bad_token_file_is_one_sentence(refused: Refuse, tmp_path: Path, content: str, mode: int, words: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(mode)
    code, said = refused("--token-file", file)
    assert code == 2 and words in said and str(file) in said and said.count("\n") == 1
    assert content[:8] not in said or not content


def test_a_token_file_of_another_user_is_not_used(refused: Refuse, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("x" * 40)
    file.chmod(0o600)
    os.chown(file, 12345, 12345)
    code, said = refused("--token-file", file)
    assert code == 2 and "12345" in said
    code, said = refused("--token-file", tmp_path / "none" / "token")
    assert code == 2 and "cannot be made" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--of", "10.0.0.1:1"], "--of needs --identity"),
        (["--of", "@10.0.0.1:1"], "names no machine before the @"),
        (["--of", "unix:/run/x"], "is a socket of this machine"),
        (["--of", "nowhere"], "is not an address"),
        (["--allow", "root"], "--allow is for a socket"),
        (["--listen", "unix:/run/x.sock", "--allow", "nobody-of-this-name"], "there is no user"),
        (["--key", "/etc/hostname"], "--key is the key of --certificate"),
        (["--certificate", "/nowhere"], "cannot be used"),
        (["--identity", "/nowhere", "--of", "10.0.0.1:1"], "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(refused: Refuse, words: list[str], said: str) -> None:
    code, told = refused(*words)
    assert code == 2 and said in told and told.count("\n") == 1


# --- a socket for a proxy -------------------------------------------------------------------------------------
def ask_local(path: Path, user: int = 0) -> bytes:
    """One request over the socket, by a process of a user."""
    program = (
        f"import os, socket; os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
        f"s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r})\n"
        "s.sendall(b'GET /api/overview HTTP/1.0\\r\\nHost: proxy.example\\r\\n\\r\\n')\n"
        "import sys\nwhile p := s.recv(65536): sys.stdout.buffer.write(p)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    return done.stdout + done.stderr


def test_a_socket_of_this_machine_answers_the_users_that_are_allowed_and_nobody_else(
    tmp_path: Path, machine: Machine
) -> None:
    place = Path("/run") / f"pydbt-test-{os.getpid()}.sock"
    with serving(machine, "--listen", f"unix:{place}", "--allow", "nobody") as dashboard:
        assert dashboard.link == f"serving unix:{place}"
        assert b"200 OK" in ask_local(place) and b'"data"' in ask_local(place)
        assert b"200 OK" in ask_local(place, 65534), "the proxy's own user"
        answer = ask_local(place, 1)
        assert b"403" in answer and b"data" not in answer and b"--allow" in answer
        assert dashboard.stop() == 0
    assert not place.exists()


def test_without_allow_the_file_system_keeps_others_off_the_socket(machine: Machine) -> None:
    place = Path("/run") / f"pydbt-test-own-{os.getpid()}.sock"
    with serving(machine, "--listen", f"unix:{place}") as dashboard:
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        assert b"PermissionError" in ask_local(place, 1)
        assert dashboard.stop() == 0


# --- TLS ------------------------------------------------------------------------------------------------------
def test_beyond_loopback_it_serves_by_tls_and_by_the_token(machine: Machine, authority: Path) -> None:
    identity = pki.issue(authority, "alpha")
    with serving(machine, "--listen", "0.0.0.0:0", "--identity", identity, tls=client()) as dashboard:
        assert dashboard.link.startswith(f"https://{os.uname().nodename}:")
        assert dashboard.get("/api/overview").status == 200
        assert dashboard.get("/api/overview", token="", authorization="").status == 401
        given = dashboard.get(f"/?token={dashboard.token}", token="").headers["set-cookie"].lower()
        assert "secure" in given
        with socket.create_connection(dashboard.address) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b"HTTP/1.1 2" not in plain.recv(4096)
        old = client()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError), socket.create_connection(dashboard.address) as sock:
            old.wrap_socket(sock)


def test_a_certificate_for_browsers_is_shown_before_the_identity_s(
    refused: Refuse, machine: Machine, authority: Path, tmp_path: Path
) -> None:
    identity, other = pki.issue(authority, "alpha"), tmp_path / "web.pem"
    pki.make_authority(tmp_path / "web")
    other.write_bytes(pki.issue(tmp_path / "web", "web.example").read_bytes())
    other.chmod(0o600)
    words = "--listen", "0.0.0.0:0", "--certificate", other, "--identity", identity, "--name", "web.example"
    with serving(machine, *words, tls=client()) as dashboard:
        with dashboard.wire() as sock:
            assert isinstance(sock, ssl.SSLSocket)
            assert b"web.example" in (sock.getpeercert(binary_form=True) or b"")
        assert dashboard.get("/api/overview", host="web.example").status == 200
        assert dashboard.get("/api/overview", host="other.example").status == 403
        dashboard.tls = client(pki.issue(authority, "beta"))
        assert dashboard.get("/api/overview", token="", authorization="").status == 200, (
            "a machine proves itself all the same"
        )
    other.chmod(0o644)
    assert "can be read by other users" in refused("--certificate", other)[1]


@pytest.mark.parametrize("read_only", [True, False])
def test_a_machine_of_the_authority_reads_by_its_identity_until_its_key_is_revoked(
    machine: Machine, authority: Path, read_only: bool
) -> None:
    identity, viewer = pki.issue(authority, "alpha"), pki.issue(authority, "desk", read_only=read_only)
    with serving(machine, "--listen", "0.0.0.0:0", "--identity", identity, tls=client(viewer)) as dashboard:
        assert dashboard.get("/api/overview", token="", authorization="").status == 200
        assert dashboard.get("/api/overview", token="", authorization="", method="POST").status == 405
        pki.revoke_key(authority, "desk")
        assert dashboard.get("/api/overview", token="", authorization="").status == 401


def test_an_identity_of_another_authority_is_refused_and_one_that_may_only_read_is_no_server(
    refused: Refuse, machine: Machine, authority: Path, tmp_path: Path
) -> None:
    pki.make_authority(tmp_path / "other")
    stranger = pki.issue(tmp_path / "other", "desk", read_only=True)
    with (
        serving(
            machine, "--listen", "0.0.0.0:0", "--identity", pki.issue(authority, "alpha"), tls=client(stranger)
        ) as dashboard,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        dashboard.get("/api/overview", token="", authorization="")
    code, said = refused("--listen", "0.0.0.0:0", "--identity", pki.issue(authority, "desk", read_only=True))
    assert code == 2 and "may only read" in said


# --- other machines -------------------------------------------------------------------------------------------
@contextlib.contextmanager
def two_machines(
    tmp_path: Path, authority: Path, *words: object, name: str = "alpha"
) -> Iterator[tuple[Machine, Dashboard, Dashboard]]:
    """A machine elsewhere with its dashboard, and the dashboard that shows both."""
    there, here = Machine(tmp_path / "there"), Machine(tmp_path / "here")
    there.add("far")
    here.add("near")
    desk = authority / "desk.identity"
    if not desk.exists():
        pki.issue(authority, "desk", read_only=True)
    identity = authority / f"{name}.identity"
    if not identity.exists():
        pki.issue(authority, name)
    with serving(there, "--listen", "0.0.0.0:0", "--identity", identity, tls=client()) as far:
        address = f"127.0.0.1:{far.address[1]}"
        with serving(
            here, "--of", address, "--identity", desk, *words, settings={"remote.REMOTE_RETRY_S": 0.2}
        ) as near:
            yield there, far, near
    there.end()
    here.end()


def other_of(dashboard: Dashboard) -> dict[str, Any]:
    return dashboard.machines()[1]


def test_a_dashboard_of_another_machine_is_shown_beside_this_one(tmp_path: Path, authority: Path) -> None:
    with two_machines(tmp_path, authority) as (there, far, near):
        there.controllers["far"].answers = {"map": {"cells": {"written": [7]}}}
        until(lambda: other_of(near)["reachable"], "it is reached")
        machines = near.machines()
        assert [[one["name"] for one in machine["volumes"]] for machine in machines] == [["near"], ["far"]]
        assert machines[1]["name"] == "alpha" and machines[1]["volumes"][0]["machine"] == "alpha"
        volume = machines[1]["volumes"][0]
        assert volume["level"] == "good" and volume["id"] != far.machines()[0]["volumes"][0]["id"]
        place = f"/api/volumes/{volume['id']}"
        assert near.get(f"{place}/map?end=4096").json == {"cells": {"written": [7]}}
        assert near.get(f"{place}/io").status == 503
        there.controllers["far"].stop()
        until(lambda: other_of(near)["volumes"][0]["level"] == "stopped", "its stop is seen here")
        assert far.stop() == 0
        until(lambda: not other_of(near)["reachable"], "its end is seen here")
        assert "cannot be reached" in other_of(near)["problem"]
        assert other_of(near)["volumes"][0]["level"] == "stopped", "what was told last stays, and grows old"
        assert near.get(f"{place}/map?end=4096").status == 503


def test_a_machine_that_hangs_is_no_good_one_after_a_while_and_holds_nothing_up(
    tmp_path: Path, authority: Path
) -> None:
    with two_machines(tmp_path, authority) as (_, far, near):
        until(lambda: other_of(near)["reachable"], "it is reached")
        far.process.send_signal(signal.SIGSTOP)
        until(lambda: other_of(near)["volumes"][0]["level"] == "unknown", "it is stale")
        assert other_of(near)["volumes"][0]["stale"] and near.machines()[0]["volumes"][0]["level"] == "good"
        far.process.send_signal(signal.SIGCONT)
        until(lambda: other_of(near)["volumes"][0]["level"] == "good", "it goes on")


def test_another_machine_in_the_place_of_the_one_that_was_there_is_not_shown(tmp_path: Path, authority: Path) -> None:
    peers = tmp_path / "peers"
    with two_machines(tmp_path, authority, "--peers", peers) as (there, far, near):
        until(lambda: other_of(near)["reachable"], "it is reached")
        port = far.address[1]
        assert far.stop() == 0
        intruder = pki.issue(authority, "gamma")
        with serving(there, "--listen", f"0.0.0.0:{port}", "--identity", intruder, tls=client()):
            until(lambda: "gamma" in other_of(near)["problem"], "it is known")
            assert not other_of(near)["reachable"] and "another one was there before" in other_of(near)["problem"]
            shown = other_of(near)["volumes"][0]
            assert shown["level"] != "good" or shown["age_seconds"] <= 5
    assert (peers.stat().st_mode & 0o777) == 0o700


def test_a_name_that_is_given_is_the_only_one_that_is_shown(tmp_path: Path, authority: Path) -> None:
    machine = Machine(tmp_path / "m")
    machine.add("far")
    alpha, desk = pki.issue(authority, "alpha"), pki.issue(authority, "desk", read_only=True)
    with serving(machine, "--listen", "0.0.0.0:0", "--identity", alpha, tls=client()) as far:
        port = far.address[1]
        here = Machine(tmp_path / "here")
        for name, reached in (("alpha", True), ("beta", False)):
            words = "--of", f"{name}@127.0.0.1:{port}", "--identity", desk, "--peers", tmp_path / name
            with serving(here, *words) as near:
                until(lambda near=near: other_of(near)["problem"] != "it was not asked yet", "it was looked at")
                assert other_of(near)["reachable"] is reached
    machine.end()
