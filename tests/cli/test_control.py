"""Commands reach the controller that is meant, and only one whose time has come."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller import control, registry
from pydbt.controller.control import (
    CLIENTS_MAX,
    SOCKET_NAME,
    ClientGone,
    ControlServer,
    call,
    is_answering,
    read_saved_status,
    socket_path,
    write_saved_status,
)
from pydbt.controller.registry import (
    claimed_state_dir,
    forget,
    is_claimed,
    registered_primary,
    registered_secondary,
    secondaries_at,
    state_dir_of,
)
from pydbt.controller.requests import check_arguments
from pydbt.core.errors import BusyError, NotRunning, PydbtError, StateError, TimedOut, UsageError
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import loop_over
from tests.lab.patience import until, wait_until
from tests.lab.programs import ROOT, command


def echo(request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
    return {"asked": request}


def _kill_without_stop(state_dir: Path) -> None:
    """What a killed controller leaves: a socket file that nobody listens to."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(state_dir / "control.sock"))


def test_a_request_and_its_answer_are_json(tmp_path: Path) -> None:
    with ControlServer(tmp_path, echo):
        request = {"command": "status", "words": "ä\n", "number": 2**60}
        assert call(tmp_path, request) == {"asked": request}
        assert call(tmp_path / "control.sock", request) == {"asked": request}
        assert is_answering(tmp_path)


def test_only_its_owner_may_use_the_socket_and_it_is_gone_at_the_end(tmp_path: Path) -> None:
    with ControlServer(tmp_path, echo):
        assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotRunning, match=str(tmp_path)):
        call(tmp_path, {"command": "status"})


def test_a_command_of_a_client_that_gave_up_is_not_carried_out_when_the_process_goes_on(tmp_path: Path) -> None:
    """It was stopped meanwhile, and the client told that it gave no answer."""
    asked = list[str]()

    def note(request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        asked.append(request["command"])
        return {}

    server = ControlServer(tmp_path, note)
    server.make()
    assert server._listener is not None
    server._listener.listen(16)
    with pytest.raises(TimedOut, match=r"no answer within 0\.2 s"):
        call(tmp_path, {"command": "down"}, 0.2)
    with server:
        assert call(tmp_path, {"command": "status"}) == {}, "clients are answered in the order in which they came"
        wait_until(lambda: not server._clients, "both are gone")
    assert asked == ["status"]


def test_an_error_of_the_controller_keeps_its_words_and_exit_code(tmp_path: Path) -> None:
    def refuse(request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        raise TimedOut("the wait ended")

    with ControlServer(tmp_path, refuse), pytest.raises(PydbtError, match="the wait ended") as caught:
        call(tmp_path, {"command": "wait"})
    assert caught.value.exit_code == TimedOut.exit_code


def test_a_fault_of_the_controller_is_an_answer_too(tmp_path: Path) -> None:
    def fail(request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        raise RuntimeError("secret")

    with ControlServer(tmp_path, fail):
        for _ in range(2):
            with pytest.raises(PydbtError, match="failed inside the controller") as caught:
                call(tmp_path, {"command": "status"})
            assert caught.value.exit_code == 1


def test_a_state_directory_with_a_long_name_works(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 30) / ("longer" * 30)
    deep.mkdir(parents=True)
    with ControlServer(deep, echo):
        assert call(deep, {"command": "status"}) == {"asked": {"command": "status"}}


def test_the_socket_of_a_killed_controller_is_replaced(tmp_path: Path) -> None:
    _kill_without_stop(tmp_path)
    with pytest.raises(NotRunning):
        call(tmp_path, {"command": "status"})
    with ControlServer(tmp_path, echo):
        assert call(tmp_path, {"command": "x"}) == {"asked": {"command": "x"}}


def test_a_socket_that_somebody_has_removed_is_made_again_for_those_who_may_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "_LOOK_S", 0.02)
    place = tmp_path / SOCKET_NAME
    with ControlServer(tmp_path, echo, group=os.getegid()):
        for _ in range(2):
            place.unlink()
            until(lambda: is_answering(tmp_path), "it answers again")
            assert call(tmp_path, {"command": "x"}) == {"asked": {"command": "x"}}
            assert stat.S_IMODE(place.stat().st_mode) == 0o660
        place.unlink()
        place.mkdir()
        time.sleep(0.1)  # what another one has put there is not ours to remove
        assert place.is_dir()
        place.rmdir()
        until(lambda: is_answering(tmp_path), "it answers again")
    assert not place.exists() and caplog.text.count("is made again") == 3


def test_a_socket_that_cannot_be_made_again_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "_LOOK_S", 0.01)
    folder = tmp_path / "state"
    folder.mkdir()
    with ControlServer(folder, echo):
        folder.rename(tmp_path / "away")
        until(lambda: "cannot be made again" in caplog.text, "it is told")
        time.sleep(0.1)
        assert caplog.text.count("cannot be made again") == 1
        (tmp_path / "away").rename(folder)
        assert call(folder, {"command": "x"}) == {"asked": {"command": "x"}}


def test_a_second_controller_on_one_state_directory_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with ControlServer(tmp_path, echo):
        with pytest.raises(BusyError, match=str(tmp_path)):
            ControlServer(tmp_path, echo).start()
        assert is_answering(tmp_path)


def test_a_directory_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be made"):
        ControlServer(tmp_path / "missing", echo).start()
    with pytest.raises(NotRunning):
        call(tmp_path / "missing", {"command": "status"})


def test_a_wait_keeps_nobody_else_waiting_and_a_client_can_give_up(tmp_path: Path) -> None:
    release = threading.Event()

    def answer(request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        if request["command"] == "wait":
            release.wait(30)
        return {}

    with ControlServer(tmp_path, answer):
        with pytest.raises(TimedOut, match=r"0\.2 s"):
            call(tmp_path, {"command": "wait"}, timeout_s=0.2)
        assert call(tmp_path, {"command": "status"}) == {}
        release.set()


@pytest.mark.parametrize("rubbish", [b"\n", b"[]\n", b"{}\n", b'{"command": 1}\n', b"\xff\xfe\n", b"GET / HTTP/1.1\n"])
def test_rubbish_gets_an_error_and_the_next_request_its_answer(tmp_path: Path, rubbish: bytes) -> None:
    with ControlServer(tmp_path, echo), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "control.sock"))
        client.sendall(rubbish + b'{"command": "status"}\n')
        answers = client.makefile()
        assert json.loads(answers.readline())["ok"] is False
        assert json.loads(answers.readline()) == {"ok": True, "result": {"asked": {"command": "status"}}}


def test_a_request_without_an_end_is_cut_off(tmp_path: Path) -> None:
    with ControlServer(tmp_path, echo):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "control.sock"))
            client.settimeout(10)
            with pytest.raises(OSError):
                for _ in range(1000):
                    client.sendall(b"x" * 65536)
        assert is_answering(tmp_path)


def test_something_else_behind_the_socket_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(tmp_path / "control.sock"))
        stranger.listen()

        def serve() -> None:
            client, _ = stranger.accept()
            client.recv(100)
            client.sendall(b"220 mail\n")
            client.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(StateError, match="no controller"):
            call(tmp_path, {"command": "status"})
        thread.join()


STRANGER = """
import contextlib, json, os, socket, sys
answer = json.loads(sys.argv[2])
with socket.socket(socket.AF_UNIX) as place:
    place.bind(sys.argv[1])
    os.chmod(sys.argv[1], 0o666)
    os.setuid(65534)
    place.listen()
    print("listening", flush=True)
    while True:
        client, _ = place.accept()
        with client, contextlib.suppress(OSError):
            asked = client.recv(65536)
            if asked:
                print(asked.decode().strip(), flush=True)
            client.sendall(json.dumps(answer).encode() + b"\\n")
"""


@contextlib.contextmanager
def stranger(state_dir: Path, answer: dict[str, Any]) -> Iterator[Callable[[], list[str]]]:
    """A process of another user that listens in a state directory; what it was asked, once it has ended."""
    program = [sys.executable, "-c", STRANGER, str(socket_path(state_dir)), json.dumps(answer)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:

        def asked() -> list[str]:
            process.kill()
            assert process.stdout is not None
            return process.stdout.read().splitlines()

        try:
            assert process.stdout is not None and process.stdout.readline() == "listening\n"
            yield asked
        finally:
            process.kill()


GOOD = {"ok": True, "result": {"role": "primary", "mode": "normal", "replica_state": "up-to-date", "connected": True}}


@pytest.mark.parametrize("name", ["status", "wait", "down", "promote", "pause"])
def test_a_socket_that_another_user_planted_is_asked_nothing(tmp_path: Path, name: str) -> None:
    """In a directory of root's in which he could make one: it had the wrong mode for a moment."""
    with stranger(tmp_path, GOOD) as asked:
        with pytest.raises(StateError, match=r"a process of user 65534 .*: end it, and see who may write to"):
            call(tmp_path, {"command": name})
        assert asked() == []


def test_another_users_process_gets_no_command_and_may_only_report_its_secondary(
    tmp_path: Path,
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    with stranger(theirs, {"ok": True, "result": {"role": "secondary", "user": "root"}}) as asked:
        assert call(theirs, {"command": "status"}) == {"role": "secondary", "user": "65534 (nobody)"}
        for name in ("wait", "down", "promote", "pause", "verify"):
            with pytest.raises(UsageError, match=r"belongs to user 65534 .*: run this as that user"):
                call(theirs, {"command": name})
        assert asked() == ['{"command": "status"}']


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        {"ok": True, "result": {}},
        {"ok": False, "error": {"exit_code": 9, "message": "no controller is running; writes are tracked"}},
        [],
    ],
)
def test_an_answer_of_another_users_process_is_no_primary_and_no_error_of_this_program(
    tmp_path: Path, answer: dict[str, Any]
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    with stranger(theirs, answer), pytest.raises(StateError, match="the process of user 65534") as caught:
        call(theirs, {"command": "status"})
    assert caught.value.exit_code == StateError.exit_code


def test_another_users_link_to_the_socket_of_a_volume_is_not_followed_by_a_command(tmp_path: Path) -> None:
    """Root's wait would return for a volume that nobody asked about, and root's pause would stop that one."""
    theirs, asked = tmp_path / "theirs", []
    theirs.mkdir()
    with ControlServer(tmp_path, lambda request, gone: asked.append(request) or {}):
        (theirs / "control.sock").symlink_to(tmp_path / "control.sock")
        os.chown(theirs, 65534, 65534)
        for name in ("wait", "pause"):
            with pytest.raises(UsageError, match="belongs to user 65534"):
                call(theirs, {"command": name})
    assert asked == []


def test_the_commands_of_root_in_another_users_directory_are_refused_in_one_sentence(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    with stranger(theirs, GOOD) as asked:
        command("status", "--state", theirs).refused(7, "is no secondary", "its answer is not used")
        for asks_status_first in ("secondaries", "verify"):
            command(asks_status_first, "--state", theirs).refused(7, "is no secondary", "its answer is not used")
        for words in (["wait", "--timeout", "5"], ["pause"], ["resume"], ["switchover"]):
            command(*words, "--state", theirs).refused(2, "user 65534", str(theirs), "run this as that user")
        command("down", "--state", theirs).refused(2, "user 65534", str(theirs), "SIGTERM")
        assert set(asked()) == {'{"command": "status"}'}


def test_the_last_status_is_kept_for_later(tmp_path: Path) -> None:
    assert read_saved_status(tmp_path) is None
    write_saved_status(tmp_path, {"mode": "normal"})
    snapshot = read_saved_status(tmp_path)
    assert snapshot is not None and snapshot["mode"] == "normal" and snapshot["saved_at"].endswith("Z")
    (tmp_path / "status.json").write_text('{"mode": "nor')
    assert read_saved_status(tmp_path) is None


@pytest.mark.parametrize(("role", "mode"), [("primary", "stopped"), ("secondary", "offline")])
def test_the_status_of_a_controller_that_was_killed_is_that_of_one_that_has_ended(
    tmp_path: Path, role: str, mode: str
) -> None:
    running = {"mode": "normal" if role == "primary" else "streaming", "connected": True, "replica_state": "up-to-date"}
    write_saved_status(tmp_path, {"role": role, "silent_seconds": 0.5, **running, "secondaries": [running]})
    kept = read_saved_status(tmp_path)
    assert kept is not None and kept["silent_seconds"] is None
    for status in (kept, *kept["secondaries"]):
        assert (status["mode"], status["connected"]) == (mode, False)
        assert status["replica_state"] != "up-to-date"


@pytest.mark.parametrize("mode", ["refused", "removed", "stopped"])
def test_a_mode_in_which_a_run_ends_stays_in_the_last_status(tmp_path: Path, mode: str) -> None:
    write_saved_status(tmp_path, {"role": "primary", "mode": mode, "connected": False})
    kept = read_saved_status(tmp_path)
    assert kept is not None and kept["mode"] == mode


def test_one_volume_has_one_controller(tmp_path: Path, disk: str) -> None:
    device = BlockDevice.identify(disk)
    assert state_dir_of(device) is None
    for name in ("state", "other"):
        (tmp_path / name).mkdir()
    with registered_primary(device, tmp_path / "state"):
        assert state_dir_of(device) == tmp_path / "state"
        with (
            pytest.raises(BusyError, match=f"{disk}.*process {os.getpid()}.*{tmp_path}/state"),
            registered_primary(device, tmp_path / "other"),
        ):
            pass
        forget(device)
        assert state_dir_of(device) == tmp_path / "state"
    assert state_dir_of(device) == tmp_path / "state"
    with registered_primary(device, tmp_path / "other"):
        assert state_dir_of(device) == tmp_path / "other"
    forget(device)
    assert state_dir_of(device) is None


def test_one_state_directory_has_one_controller_also_before_it_is_made(tmp_path: Path, disk: str) -> None:
    (tmp_path / "b").write_bytes(bytes(1 << 20))
    with loop_over(tmp_path / "b") as other, registered_primary(BlockDevice.identify(disk), tmp_path / "state"):
        assert is_claimed(tmp_path / "state") and not is_claimed(tmp_path / "another")
        second = BlockDevice.identify(other)
        with (
            pytest.raises(BusyError, match=f"state directory {tmp_path}/state is in use"),
            registered_primary(second, tmp_path / "state"),
        ):
            pass
        forget(second)
    assert not is_claimed(tmp_path / "state")


def test_a_device_number_used_again_is_not_taken_for_the_old_volume(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    with loop_over(tmp_path / "a") as path:
        device = BlockDevice.identify(path)
        with registered_primary(device, tmp_path):
            pass
    with loop_over(tmp_path / "a") as path:
        again = BlockDevice.identify(path)
        if again.number == device.number:
            assert state_dir_of(again) is None
        forget(again)
    forget(device)


def test_a_run_that_was_refused_hides_no_earlier_volume(tmp_path: Path, disk: str) -> None:
    device = BlockDevice.identify(disk)
    with registered_primary(device, tmp_path / "refused"):
        pass
    assert state_dir_of(device) is None, "it has no state directory"
    with registered_primary(device, tmp_path):
        pass
    with registered_primary(device, tmp_path / "refused"):
        assert state_dir_of(device) == tmp_path / "refused"
    assert state_dir_of(device) == tmp_path
    forget(device)


def test_a_secondary_of_this_machine_is_found_by_its_address_while_it_lives(tmp_path: Path) -> None:
    target = tmp_path / "target.img"
    with registered_secondary(target, tmp_path / "one", "127.0.0.1", 47001):
        assert [entry.place for entry in secondaries_at("127.0.0.1", 47001)] == [str(target)]
        assert secondaries_at("127.0.0.1", 47002) == [] and secondaries_at("127.0.0.9", 47001) == []
        with (
            pytest.raises(BusyError, match="TARGET"),
            registered_secondary(target, tmp_path / "two", "127.0.0.1", 47002),
        ):
            pass
    assert secondaries_at("127.0.0.1", 47001) == []
    for host in ("127.0.0.1", "localhost"):
        with registered_secondary(target, tmp_path / "one", host, 47001):
            assert len(secondaries_at("localhost", 47001)) == 1
    with registered_secondary(target, tmp_path / "one", "0.0.0.0", 47001):
        # Another machine's port of the same number is none of ours (one replica may be the source of the next).
        assert secondaries_at("192.0.2.1", 47001) == []
        wait_until(lambda: len(secondaries_at("127.0.0.1", 47001)) == 1, "it is found")


HOLDER = """
import pathlib, sys, time
from pydbt.controller import registry
from pydbt.controller.registry import claimed_state_dir, registered_secondary
registry.RUN_DIR = pathlib.Path(sys.argv[3])
with registered_secondary(sys.argv[1], sys.argv[2], "127.0.0.1", 47003), claimed_state_dir(sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_entry_of_a_killed_owner_is_not_taken_for_a_living_one_and_goes_with_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A registry of its own: whatever else starts on this machine takes away what a killed one left.
    run = tmp_path / "run"
    monkeypatch.setattr(registry, "RUN_DIR", run)
    target, state = tmp_path / "replica.img", tmp_path / "state"
    with registered_secondary(tmp_path / "alive.img", tmp_path / "alive", "127.0.0.1", 47004):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, target, state, run], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout.readline() == "held\n"
            assert is_claimed(state) and len(secondaries_at("127.0.0.1", 47003)) == 1
        finally:
            holder.kill()
            holder.wait()
        left = {path for path in run.iterdir() if f'"process": {holder.pid},' in path.read_text()}
        assert len(left) == 2, "a killed process cannot take them away"
        assert not is_claimed(state) and secondaries_at("127.0.0.1", 47003) == []
        with claimed_state_dir(tmp_path / "another"):
            assert not left & set(run.iterdir())
        assert len(secondaries_at("127.0.0.1", 47004)) == 1, "a living one lost its file"
        with registered_secondary(target, state, "127.0.0.1", 47003):
            assert len(secondaries_at("127.0.0.1", 47003)) == 1


def test_nesting_without_end_is_no_request_and_no_status(tmp_path: Path) -> None:
    deep = b"[" * 60_000
    with ControlServer(tmp_path, echo), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "control.sock"))
        client.sendall(deep + b"\n")
        assert json.loads(client.recv(65536))["error"]["exit_code"] == 2
    (tmp_path / "status.json").write_bytes(deep)
    assert read_saved_status(tmp_path) is None


@pytest.mark.parametrize("secondaries", ['["one"]', "5", "null", '{"one": 1}'])
def test_a_status_of_another_shape_is_none(tmp_path: Path, secondaries: str) -> None:
    (tmp_path / "status.json").write_text(f'{{"role": "primary", "secondaries": {secondaries}}}')
    assert read_saved_status(tmp_path) is None


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"command": "pause", "secondary": 5}, "secondary"),
        ({"command": "wait", "timeout": "soon"}, "timeout"),
        ({"command": "wait", "timeout": float("nan")}, "timeout"),
        ({"command": "wait", "timeout": 1e300}, "timeout"),
        ({"command": "wait", "timeout": True}, "timeout"),
        ({"command": "verify", "rate_limit": "fast"}, "rate_limit"),
        ({"command": "verify", "rate_limit": 0}, "rate limit"),
        ({"command": "verify", "rate_limit": 10**400}, "rate_limit"),
        ({"command": "history", "from": -(10**400)}, "from"),
        ({"command": "verify", "repair": "yes"}, "repair"),
        ({"command": "add"}, "add"),
        ({"command": "remove", "secondary": None}, "remove"),
    ],
)
def test_a_request_that_would_end_the_loop_is_refused_before_it_gets_there(
    words: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        check_arguments(words)
    check_arguments({"command": "verify", "rate_limit": 5, "repair": True, "cancel": None, "secondary": "a:1"})


def test_a_client_that_is_gone_is_waited_for_no_longer(tmp_path: Path) -> None:
    asked, noticed = threading.Event(), threading.Event()

    def answer(request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        asked.set()
        wait_until(gone, "the client is gone")
        noticed.set()
        return {}

    with ControlServer(tmp_path, answer):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "control.sock"))
            client.sendall(b'{"command": "wait"}\n')
            assert asked.wait(20) and not noticed.is_set()
        assert noticed.wait(20)


def test_a_client_that_only_sends_nothing_more_gets_its_answer(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        return {"gone": gone()}

    with ControlServer(tmp_path, answer), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "control.sock"))
        client.sendall(b'{"command": "wait"}\n')
        client.shutdown(socket.SHUT_WR)
        assert json.loads(client.makefile().readline()) == {"ok": True, "result": {"gone": False}}


def test_one_client_too_many_is_told_that_the_controller_is_busy_and_not_that_it_ended(tmp_path: Path) -> None:
    with ControlServer(tmp_path, echo):
        clients = [socket.socket(socket.AF_UNIX) for _ in range(CLIENTS_MAX)]
        try:
            for client in clients:
                client.connect(str(tmp_path / "control.sock"))
                client.sendall(b'{"command": "status"}\n')
                assert client.recv(4096)
            for _ in range(20):
                with pytest.raises(PydbtError, match="try again") as caught:
                    call(tmp_path, {"command": "status"})
                assert caught.value.exit_code == BusyError.exit_code
            assert is_answering(tmp_path)
        finally:
            for client in clients:
                client.close()

        def there_is_room() -> bool:
            try:
                return bool(call(tmp_path, {"command": "status"}))
            except PydbtError:
                return False

        wait_until(there_is_room, "a place is free again")


def test_a_controller_that_accepts_no_connection_is_busy_and_its_place_is_not_taken(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as full, contextlib.ExitStack() as stack:
        full.bind(str(socket_path(tmp_path)))
        full.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(socket_path(tmp_path)))
        assert is_answering(tmp_path)
        with pytest.raises(BusyError, match="takes in no command"):
            call(tmp_path, {"command": "status"})
        with pytest.raises(BusyError, match="already running"), ControlServer(tmp_path, echo):
            pass
