"""Any command line that a person types gets one clear sentence or the answer, and the documented exit code."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from pydbt.cli.explain import explain
from pydbt.cli.group import execute
from pydbt.cli.program import program_name
from pydbt.controller.control import write_saved_status
from pydbt.controller.options import ALLOW_SHORT_TIMES
from pydbt.controller.registry import forget, registered_primary, registered_secondary
from pydbt.core.errors import NotRunning, TimedOut
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from tests.cli.conftest import STATUS, FakeController
from tests.lab.disks import image, loop_over, mounted
from tests.lab.patience import run
from tests.lab.programs import PROGRAM, ROOT, Outcome, command, end_with_parent, free_port

LOOP_CTL_REMOVE = 0x4C81  # include/uapi/linux/loop.h

HERE = "127.0.0.1:47999"
PLAIN = "--insecure"


# Usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Missing command", "--help"]),
        (["replicate"], ["No such command"]),
        (["run"], ["SOURCE"]),
        (["run", "/dev/null", "--secondary", HERE], ["--state"]),
        (["run", "/dev/null", "--secondary", "nowhere", "--state", "/x"], ["HOST:PORT"]),
        (["run", "/dev/null", "--secondary", "[::1:7", "--state", "/x"], ["bracket"]),
        (["run", "/dev/null", "--secondary", "h:0", "--state", "/x"], ["port 0"]),
        (
            ["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--block-size", "5000"],
            ["--block-size is 5000 bytes"],
        ),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--block-size", "1M"], ["1 MiB", "64 KiB"]),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--rate-limit", "fast"], ["no size"]),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--rate-limit", "20"], ["no unit", "20M", "20B"]),
        (["run", "/dev/null", "--secondary", "10.77.0.2:77900", "--state", "/x"], ["port 77900", "1 to 65535"]),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--ring-size", "10T"], ["10 TiB", "1 GiB"]),
        (["statsu"], ["did you mean 'status'"]),
        (["help", "statsu"], ["did you mean 'status'"]),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--rate-limit", "0"], ["--rate-limit"]),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--ring-size", "5000"], ["--ring-size"]),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--log-size", "1"], ["--log-size"]),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--ack-timeout", "0"], ["--ack-timeout"]),
        (["secondary", "/x", "--state", "/x"], ["--listen"]),
        (["secondary", "/x", "--state", "/x", "--listen", HERE, "--create", "1000"], ["512"]),
        (["secondary", "/x", "--state", "/x", "--listen", HERE, "--journal-size", "1"], ["--journal-size"]),
        (["wait"], ["SOURCE", "--state DIR"]),
        (["status", "--state", "/nonexistent"], ["/nonexistent"]),
        (["status", "/nonexistent"], ["does not exist"]),
        (["status", "/tmp"], ["is a directory", "--state /tmp"]),
        (["status", "/dev/null"], ["character device"]),
        (["wait", "--timeout", "-1"], ["--timeout"]),
        (["wait", "--timeout", "soon"], ["no time", "12h"]),
        *((["wait", "--state", "/tmp", "--timeout", text], ["--timeout"]) for text in ("nan", "inf", "1e300")),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--ack-timeout", "nan"], ["--ack-timeout"]),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--ack-timeout", "inf"], ["--ack-timeout"]),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--verify-every", "9" * 20 + "d"], ["too long"]),
        (["run", "/dev/null", "--secondary", HERE, "--state", "/x", "--log-size", "9999P"], ["--log-size"]),
        (["secondary", "/x", "--state", "/x", "--listen", HERE, "--create", "9999P"], ["--create"]),
        (["pki", "issue", "/x", "alpha", "--days", "5000000"], ["--days"]),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = execute(arguments)
    Outcome(code, *capsys.readouterr()).refused(2, *words)


@pytest.mark.parametrize(
    ("option", "short", "least", "allowed"),
    [
        ("--ack-timeout", "0.001", "1 s", "1"),
        ("--verify-every", "59s", "60 s", "1m"),
        ("--epoch-interval", "0.001", "1 s", "1s"),
        ("--freeze-limit", "0.01", "0.1 s", "0.1"),
        ("--era-interval", "0.5", "1 s", "1"),
    ],
)
def test_a_time_that_is_too_short_to_work_with_is_refused(
    option: str,
    short: str,
    least: str,
    allowed: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(ALLOW_SHORT_TIMES)
    words = ["run", "/dev/null", "--secondary", HERE, "--insecure", "--state", "/x", option]
    Outcome(execute([*words, short]), *capsys.readouterr()).refused(2, option, f"at least {least}")
    assert option not in str((execute([*words, allowed]), *capsys.readouterr()))


def test_help_names_every_command_and_exit_code() -> None:
    outcome = command("--help")
    assert outcome.code == 0 and outcome.errors == ""
    for word in ("run", "secondary", "status", "wait", "pause", "resume", "down", "Exit codes:", "130"):
        assert word in outcome.output


@pytest.mark.parametrize("command", ["run", "secondary", "status", "wait", "pause", "resume", "down"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: {program_name()} {command}")


def test_both_names_are_one_program() -> None:
    folder = Path(sys.executable).parent
    for name in ("controller", "pydbt"):
        assert run(folder / name, "--version").startswith(f"{name} ")


# What run and secondary refuse before they begin


def test_run_refuses_without_a_trace(tmp_path: Path, disk: str) -> None:
    state = tmp_path / "state"
    arguments = ["run", disk, "--secondary", HERE, "--state", state]
    command("run", tmp_path / "disk.img", *arguments[2:]).refused(2, "regular file", "losetup")
    command("run", "/dev/nope", *arguments[2:]).refused(2, "does not exist")
    for address in ("192.0.2.1:7790", HERE):
        command(*arguments[:3], address, *arguments[4:]).refused(2, "--insecure")
    arguments.append(PLAIN)
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, tmp_path / "mount") as point:
        command(*arguments[:5], point / "state", PLAIN).refused(2, "state directory", "lies on SOURCE")
        assert not (point / "state").exists()
    assert not state.exists()


def test_run_refuses_a_volume_that_has_a_controller(tmp_path: Path, disk: str, controller: FakeController) -> None:
    command("run", disk, "--secondary", HERE, PLAIN, "--state", tmp_path / "other").refused(
        4, disk, f"process {os.getpid()}", str(controller.state_dir)
    )
    assert not (tmp_path / "other").exists()


def test_a_run_that_ended_leaves_the_signals_of_its_caller_alone(
    tmp_path: Path, disk: str, controller: FakeController
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert execute(["run", disk, "--secondary", HERE, PLAIN, "--state", str(tmp_path / "other")]) == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_refuses_its_own_secondary_when_that_writes_to_source(tmp_path: Path, disk: str) -> None:
    run("mkfs.ext4", "-q", disk)
    arguments = ["run", disk, "--secondary", HERE, "--state", tmp_path / "state", PLAIN]
    with mounted(disk, tmp_path / "mount") as point:
        for target, words in ((disk, "SOURCE itself"), (image(point / "t.img", MIB), "lies on SOURCE")):
            with registered_secondary(target, tmp_path / "secondary", "127.0.0.1", 47999):
                command(*arguments).refused(2, words)
        elsewhere = image(tmp_path / "t.img", MIB)
        with registered_secondary(elsewhere, point / "secondary", "127.0.0.1", 47999):
            command(*arguments).refused(2, "of the secondary lies on SOURCE", str(point / "secondary"))
        (tmp_path / "state").mkdir()
        with registered_secondary(elsewhere, tmp_path / "state", "127.0.0.1", 47999):
            command(*arguments).refused(2, "is the secondary's")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_while_a_run_waits_for_its_first_secondary_undoes_the_start(
    number: signal.Signals, code: int, tmp_path: Path, disk: str
) -> None:
    """SIGTERM is the ordinary end of a service, also of one that has not begun yet."""
    process = subprocess.Popen(
        [*PROGRAM, "run", disk, "--secondary", f"127.0.0.1:{free_port()}", PLAIN, "--state", tmp_path / "state"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=end_with_parent,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert "waiting for this secondary" in process.stderr.readline()
        process.send_signal(signal.SIGHUP)  # that identities are to be read again ends nothing
        process.send_signal(signal.SIGUSR1)  # nor does what other programs take for a question, or for a new log
        process.send_signal(signal.SIGUSR2)
        command("status", disk).refused(9, "is starting or ending")
        process.send_signal(number)
        errors = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == code, errors
    assert errors.strip().count("\n") == 0 and not (tmp_path / "state").exists()


def test_a_signal_that_ends_no_wait_stops_a_secondary_too(tmp_path: Path) -> None:
    """As when it comes just before the wait: here another thread gets it, and nothing else ever happens."""
    script = (
        "import signal, sys, threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "from pydbt.cli.group import execute\n"
        "sys.exit(execute(sys.argv[1:]))"
    )
    arguments = ["secondary", tmp_path / "t.img", "--create", MIB, "--listen", "127.0.0.1:0", PLAIN]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments), "--state", tmp_path / "state"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=end_with_parent,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert any("listening on" in line for line in iter(process.stderr.readline, ""))
        time.sleep(0.2)  # it waits by now
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0


def test_a_journal_larger_than_its_disk_is_refused_without_a_trace(tmp_path: Path) -> None:
    target = image(tmp_path / "t.img", MIB)
    with loop_over(image(tmp_path / "small.img", 64 * MIB)) as small:
        run("mkfs.ext4", "-q", str(small))
        with mounted(str(small), tmp_path / "mount") as point:
            arguments = [
                "secondary",
                target,
                "--listen",
                f"127.0.0.1:{free_port()}",
                PLAIN,
                "--state",
                point / "deep" / "state",
            ]
            command(*arguments).refused(2, "the journal may grow to 1.0 GiB", "in all: give --journal-size")
            told = command(*arguments, "--check").errors
            advised = told.partition("give --journal-size ")[2].split()[0]
            assert command(*arguments, "--journal-size", advised, "--check").code == 0, "the advice is accepted"
            command(*arguments, "--journal-size", "60M", "--check").refused(2, "--journal-size")
            assert command(*arguments, "--journal-size", "16M", "--check").code == 0
            assert not (point / "deep").exists()


def test_run_refuses_a_source_that_a_running_secondary_overwrites(tmp_path: Path, disk: str) -> None:
    arguments = ["run", disk, "--secondary", "127.0.0.1:47998", PLAIN, "--state", tmp_path / "state", "--no-wait"]
    for target in (disk, tmp_path / "disk.img"):  # itself, or the file under it
        with registered_secondary(target, tmp_path / "replica", "127.0.0.1", 47999):
            command(*arguments).refused(2, disk, f"TARGET {target} of a running secondary", "controller promote")
    with registered_secondary(image(tmp_path / "t.img", MIB), tmp_path / "replica", "127.0.0.1", 47999):
        command(*arguments).refused(5, "47998")  # another disk's: it goes on, to where nobody listens
    assert not (tmp_path / "state").exists()


def test_a_secondary_refuses_a_target_that_a_running_primary_replicates(
    tmp_path: Path, disk: str, controller: FakeController
) -> None:
    options = ["--listen", HERE, PLAIN, "--state", tmp_path / "replica"]
    command("secondary", disk, *options).refused(2, f"SOURCE {disk} of a running primary", "controller demote")
    assert not (tmp_path / "replica").exists()


def test_run_and_secondary_need_root(tmp_path: Path, disk: str) -> None:
    for arguments in (
        ["run", disk, "--secondary", HERE, "--state", tmp_path / "state"],
        ["secondary", disk, "--listen", HERE, "--state", tmp_path / "state"],
        ["down", disk],
    ):
        told = command(*arguments, user=65534)
        told.refused(3, "must run as root", "sudo")
        assert ("eBPF" in told.errors) == (arguments[0] == "run"), "only the primary loads programs"


def test_commands_to_a_controller_of_roots_need_root(disk: str, controller: FakeController) -> None:
    controller.state_dir.chmod(0o700)
    for place in ([disk], ["--state", controller.state_dir]):
        outcome = command("status", *place, user=65534)
        assert outcome.code in (3, 7) and "sudo" in outcome.errors and outcome.errors.count("\n") == 1, outcome


def test_another_user_is_told_that_root_may_and_not_that_anything_failed(
    tmp_path: Path, disk: str, controller: FakeController
) -> None:
    controller.state_dir.chmod(0o700)
    command("transactions", disk, user=65534).refused(3, f"{disk} may not be read", "sudo")
    told = command("promote", disk, "--state", controller.state_dir, user=65534)
    told.refused(3, str(controller.state_dir), "may not be used", "sudo")


def test_secondary_refuses_without_a_trace(tmp_path: Path, disk: str) -> None:
    options = ["--listen", HERE, "--state", tmp_path / "state", PLAIN]
    command("secondary", tmp_path / "new.img", *options).refused(2, "--create SIZE")
    command("secondary", "/dev/null", *options).refused(2, "neither")
    command("secondary", tmp_path / "disk.img", *options).refused(4, "attached to", disk)
    command("secondary", disk, "--listen", HERE, *options[2:-1]).refused(2, "--insecure")
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, tmp_path / "mount") as point:
        command("secondary", disk, *options).refused(4, "mounted at", str(point))
    with registered_secondary(disk, tmp_path / "other", "127.0.0.1", 1):
        command("secondary", disk, *options).refused(4, "in use by another controller")
    assert not (tmp_path / "state").exists() and not (tmp_path / "new.img").exists()


def test_secondary_refuses_a_port_in_use_before_it_makes_anything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ["--create", "1M", "--listen", address, "--state", tmp_path / "state", PLAIN]
        command("secondary", tmp_path / "t.img", *options).refused(4, "port", "in use")
    assert list(tmp_path.iterdir()) == []


# Commands to a controller


def test_status_finds_the_controller_by_source_and_by_state(disk: str, controller: FakeController) -> None:
    for place in ([disk], ["--state", controller.state_dir]):
        outcome = command("status", *place, "--json")
        assert outcome.code == 0 and outcome.errors == ""
        assert json.loads(outcome.output) == {**controller.status, "running": True}
        text = command("status", *place)
        assert text.code == 0 and text.errors == ""
        for words in ("normal", "up-to-date", "20.0 KiB, 0.2 s", "submitted 12,345", "5 open updates"):
            assert words in text.output


def test_a_state_directory_of_another_volume_is_no_place_of_this_one(
    tmp_path: Path, disk: str, controller: FakeController
) -> None:
    link = tmp_path / "link"
    link.symlink_to(disk)
    assert command("pause", link, "--state", controller.state_dir).code == 0
    with loop_over(image(tmp_path / "other.img", 1 << 20)) as other:
        for verb in ("status", "down", "pause"):
            done = command(verb, other, "--state", controller.state_dir)
            done.refused(
                2, f"{controller.state_dir} is the state directory of {disk}, and not of {other}", "leave out one"
            )
    assert [request["command"] for request in controller.asked] == ["pause"]


def test_status_on_a_terminal_says_the_same(disk: str, controller: FakeController) -> None:
    leader, follower = pty.openpty()
    try:
        process = subprocess.Popen([*PROGRAM, "status", disk], cwd=ROOT, stdout=follower, stdin=subprocess.DEVNULL)
        os.close(follower)
        text = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the other end of a terminal is closed
                break
            if not piece:
                break
            text += piece
        assert process.wait(30) == 0
    finally:
        os.close(leader)
    assert b"up-to-date" in text and b"acknowledged 12,340" in text


def test_commands_are_passed_on(disk: str, controller: FakeController) -> None:
    assert command("wait", disk, "--timeout", 62.5).code == 0
    assert command("wait", disk, "--no-sync").code == 0
    assert command("pause", disk).output == (
        "replication is paused until 'controller resume' or the next start; writes are still tracked\n"
    )
    assert command("resume", "--state", controller.state_dir).code == 0
    # A wait that takes long, as on a machine with much to do, asks for the status as well.
    assert [request for request in controller.asked if request["command"] != "status"] == [
        {"command": "wait", "timeout": 62.5, "any": False, "sync": True},
        {"command": "wait", "timeout": None, "any": False, "sync": False},
        {"command": "pause"},
        {"command": "resume"},
    ]


def test_a_secondary_is_named_in_every_way_in_which_addresses_are_written(
    disk: str, controller: FakeController
) -> None:
    assert command("wait", disk, "--secondary", "10.0.0.3:7790").code == 0
    assert command("pause", disk, "--secondary", "[::1]:7790").code == 0
    assert command("wait", disk, "--any").code == 0
    # A wait that takes long, as on a machine with much to do, asks for the status as well.
    assert [request for request in controller.asked if request["command"] != "status"] == [
        {"command": "wait", "timeout": None, "any": False, "sync": True, "secondary": "10.0.0.3:7790"},
        {"command": "pause", "secondary": "[::1]:7790"},
        {"command": "wait", "timeout": None, "any": True, "sync": True},
    ]
    command("wait", disk, "--any", "--secondary", "a:1").refused(2, "give one of them")
    command("resume", disk, "--secondary", "nonsense").refused(2, "nonsense")


def test_secondaries_are_listed_added_and_removed(disk: str, controller: FakeController) -> None:
    entries = [
        {**STATUS, "secondary": name, "connected": name == "a:1", "connection_problem": "no route"}
        for name in ("a:1", "bb:22")
    ]
    controller.status = {**STATUS, "source": disk, "secondaries": entries}
    for change in ("add", "remove"):
        controller.on_command[change] = lambda: controller.status
    listed = command("secondaries", disk).output.splitlines()
    assert (
        listed[0].startswith("a:1    normal, replica up-to-date")
        and listed[1].endswith("(no route)")
        and len(listed) == 2
    )
    done = command("secondaries", disk, "--add", "127.0.0.1:47999", "--peer", "gamma")
    assert done.code == 0 and done.output.startswith("127.0.0.1:47999 is a secondary of this volume now"), done
    assert controller.asked[-1] == {"command": "add", "secondary": "127.0.0.1:47999", "peer": "gamma"}
    done = command("secondaries", "--state", controller.state_dir, "--remove", "bb:22")
    assert done.code == 0 and "is none of its secondaries any more" in done.output, done
    assert controller.asked[-1] == {"command": "remove", "secondary": "bb:22"}
    command("secondaries", disk, "--add", "a:1", "--remove", "b:2").refused(2, "two steps")
    command("secondaries", disk, "--peer", "gamma").refused(2, "--add")


def test_a_question_for_a_primary_is_refused_by_a_secondarys_state_directory(
    disk: str, controller: FakeController
) -> None:
    controller.status = {"role": "secondary", "mode": "ready", "replica_state": "consistent"}
    place = controller.state_dir
    for words in (
        ["verify"],
        ["secondaries"],
        ["secondaries", "--add", "127.0.0.1:9"],
        ["secondaries", "--remove", "h:9"],
    ):
        command(*words, "--state", place).refused(2, "state directory of a secondary", "its primary")


def test_a_wait_that_ends_too_early_has_exit_code_8(disk: str, controller: FakeController) -> None:
    def too_late() -> dict[str, object]:
        raise TimedOut("not every write was durable within 2 s")

    controller.on_command["wait"] = too_late
    command("wait", disk, "--timeout", 2).refused(8, "not every write")


GONE = {
    "secondary": "10.0.0.2:7000", "mode": "unsynchronized", "connected": False, "connection_problem": "connection refused",
    "last_in_sync": "2026-01-02T03:04:05Z",
    "verify": {"running": {"repair": False, "total_bytes": 100, "done_bytes": 40, "differing_bytes": 0}, "last": None},
}  # fmt: skip
OVER = {
    "running": None,
    "last": {"ended": "later", "repaired": False, "compared_bytes": 100, "differing_bytes": 0, "places": []},
}


def waits_told(done: Outcome) -> list[str]:
    """On a busy machine the progress is told as well."""
    lines = [line.strip() for line in done.errors.splitlines()]
    return [line for line in lines if line.startswith("waiting for the secondary")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "10.0.0.2:7000, not in sync since 2026-01-02T03:04:05Z and not connected: connection refused"),
        ({"connected": True, "mode": "resynchronizing"}, "10.0.0.2:7000 to be in sync again"),
        ({"mode": "paused"}, "10.0.0.2:7000, to which replication is paused: 'controller resume' resumes it"),
    ],
)
def test_a_verification_that_waits_for_the_secondary_logs_that_once_and_resumes_when_it_is_there(
    changes: dict[str, object], words: str, disk: str, controller: FakeController
) -> None:
    looks = iter([GONE | changes] * 4)
    controller.on_command["verify"] = dict
    controller.on_command["status"] = lambda: {"secondaries": [next(looks, GONE | {"mode": "normal", "verify": OVER})]}
    done = command("verify", disk)
    assert done.code == 0 and "the same on both sides" in done.output, done
    assert waits_told(done) == [f"waiting for the secondary {words}"]


@pytest.mark.parametrize("tainted", [False, True])
def test_a_cancelled_verification_names_the_taint_that_is_still_to_be_answered(
    tainted: bool, disk: str, controller: FakeController
) -> None:
    controller.on_command["verify"] = dict
    controller.on_command["status"] = lambda: {"secondaries": [GONE | {"tainted": tainted}]}
    done = command("verify", disk, "--cancel")
    assert done.code == 0 and "was ended" in done.output and ("stays tainted" in done.output) is tainted, done


def test_a_verification_tells_each_new_reason_for_which_it_waits(disk: str, controller: FakeController) -> None:
    back = GONE | {"connected": True, "mode": "resynchronizing", "connection_problem": ""}
    refused = GONE | {"connection_problem": "the secondary refused: TARGET /dev/x cannot be written"}
    settling = back | {"waiting_for": "writes in flight on the source to complete"}
    looks = iter([GONE, GONE, refused, back, settling, refused, GONE, back])
    controller.on_command["verify"] = dict
    controller.on_command["status"] = lambda: {"secondaries": [next(looks, GONE | {"mode": "normal", "verify": OVER})]}
    done = command("verify", disk)
    lines = waits_told(done)
    assert done.code == 0 and len(lines) == 4, done
    assert lines[0].endswith("connection refused") and "cannot be written" in lines[1]
    assert lines[2].endswith("to be in sync again") and lines[3].endswith("writes in flight on the source to complete")


def test_a_verification_that_could_not_read_all_of_the_volume_is_a_failed_disk(
    disk: str, controller: FakeController
) -> None:
    over = OVER | {"last": OVER["last"] | {"unreadable_bytes": 4096}}
    looks = iter([GONE | {"mode": "normal"}] * 2)
    controller.on_command["verify"] = dict
    controller.on_command["status"] = lambda: {"secondaries": [next(looks, GONE | {"mode": "normal", "verify": over})]}
    done = command("verify", disk)
    assert done.code == 6 and "4.0 KiB of the volume cannot be read" in done.errors, done


def test_a_verification_waits_for_a_dead_secondary_no_longer_than_it_was_told(
    disk: str, controller: FakeController
) -> None:
    controller.on_command["verify"] = dict
    controller.on_command["status"] = lambda: {"secondaries": [GONE]}
    done = command("verify", disk, "--timeout", "1")
    assert done.code == 8 and done.errors.count("waiting for the secondary") == 1, done


def test_without_a_controller_the_last_known_state_is_told_with_exit_code_9(tmp_path: Path, disk: str) -> None:
    command("status", disk).refused(9, disk, "--state DIR")
    device = BlockDevice.identify(disk)
    state = tmp_path / "state"
    state.mkdir()
    with registered_primary(device, state):
        pass
    command("status", disk).refused(9, "no controller is running", str(state))
    write_saved_status(state, {"mode": "unsynchronized", "replica_state": "outdated", "out_of_sync_bytes": 3 * MIB})
    for name in ("status", "wait", "pause", "resume"):
        command(name, disk).refused(9, "last known state: unsynchronized, replica outdated, 3.0 MiB out of sync")
    outcome = command("status", disk, "--json")
    assert outcome.code == 9 and "no controller is running" in outcome.errors
    assert json.loads(outcome.output)["running"] is False
    # As a controller leaves it that is killed while all is well.
    well = {"role": "primary", "mode": "normal", "replica_state": "up-to-date", "out_of_sync_bytes": 0}
    write_saved_status(state, {**well, "secondaries": [{**well, "secondary": "a:1"}]})
    for arguments in (("status", disk), ("status", disk, "--json")):
        outcome = command(*arguments)
        assert "up-to-date" not in outcome.output + outcome.errors, "nobody has followed what was written since"
    forget(device)


def test_down_waits_for_the_end_and_can_be_repeated(tmp_path: Path, disk: str) -> None:
    script = (
        "import sys, threading, pydbt.controller.control as c\n"
        "asked = threading.Event()\n"
        "def answer(request, gone): asked.set(); return {}\n"
        "server = c.ControlServer(sys.argv[1], answer); server.start(); print('up', flush=True)\n"
        "asked.wait(); threading.Event().wait(0.5); server.stop()"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        assert command("down", "--state", tmp_path).output == "stopped and detached\n"
        assert not (tmp_path / "control.sock").exists()
    finally:
        process.kill()
        process.wait()
    for arguments in (["--state", tmp_path], [disk]):
        outcome = command("down", *arguments)
        assert outcome.code == 0 and "nothing" in outcome.output


def test_down_of_a_controller_that_hangs_ends_with_exit_code_8(disk: str, controller: FakeController) -> None:
    command("down", disk, "--timeout", 0.5).refused(8, "did not end", str(controller.state_dir))


# Faults


def test_a_fault_is_one_sentence_and_a_traceback_only_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("wheels\ncame off")

    monkeypatch.setattr("pydbt.cli.commands.status.locate", broken)
    monkeypatch.delenv("PYDBT_DEBUG", raising=False)
    assert execute(["status", "--state", "/"]) == 1
    streams = capsys.readouterr()
    assert streams.err.count("\n") == 1 and streams.out == ""
    assert "RuntimeError: wheels came off (this is a bug" in streams.err
    assert execute(["--debug", "status", "--state", "/"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("PYDBT_DEBUG", "1")
    assert execute(["status", "--state", "/"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "no more memory"),
        (OSError(errno.EMFILE, "Too many open files", "/sys/block"), "'/sys/block': a limit is reached"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "a limit is reached"),
    ],
)
def test_a_limit_of_the_process_is_no_fault_of_the_program(error: Exception, words: str) -> None:
    sentence, code = explain(error)
    assert code == 3 and words in sentence and "bug" not in sentence


def test_a_current_directory_that_was_removed_is_no_fault_of_the_program(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    words = ["sh", "-c", f'mkdir {gone} && cd {gone} && rmdir {gone} && exec "$@"', "sh", *PROGRAM, "secondary"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for target, sentence in (("target.img", "current directory"), (tmp_path / "no" / "target.img", "does not exist")):
        done = subprocess.run(
            [*words, target, "--listen", f"unix:{tmp_path}/link", "--state", tmp_path / "state"],
            env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2 and sentence in done.stderr, done


def test_a_machine_without_proc_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/self/fdinfo/3")
    assert explain(error)[1] == 1, "it is mounted: a fault"
    monkeypatch.setattr("pydbt.cli.explain.os.path.exists", lambda path: path != "/proc/self")
    assert explain(error) == ("/proc is not mounted, and this program needs it: mount it", 3)


def test_an_interrupt_is_no_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pydbt.cli.commands.status.locate", interrupted)
    assert execute(["status", "--state", "/"]) == 130
    assert capsys.readouterr().err.strip() == f"{program_name()}: interrupted"


def test_an_interrupt_that_came_while_a_class_was_made_is_one_as_any_other() -> None:
    """Dataclasses make their methods by exec(), and Python takes an interrupt out of it for one that nobody handled."""
    module = textwrap.dedent("""
        import pydbt.cli.group as group
        from pydbt.cli.explain import report

        def execute(_):
            try:
                exec("raise KeyboardInterrupt")
            except KeyboardInterrupt as error:
                return report(error, False)

        group.execute = execute
        from pydbt.cli.main import main
        main()
    """)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "interrupted.py").write_text(module)
        done = subprocess.run(
            [sys.executable, "-m", "interrupted"], capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"},
        )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (130, f"{program_name()}: interrupted")


def _listens(pid: int, number: signal.Signals) -> bool:
    fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(fields["SigCgt"], 16) & 1 << number - 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.1, 0.2, 0.35, 0.6])
def test_a_signal_while_the_program_is_loaded_ends_it_without_a_trace(
    number: signal.Signals, seconds: float, disk: str, controller: FakeController
) -> None:
    """A wait that nobody answers: it ends by the signal alone, whatever it is at by then."""
    ended = threading.Event()
    controller.on_command["wait"] = lambda: {"ended": ended.wait(60)}
    process = subprocess.Popen(
        [*PROGRAM, "wait", disk], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # whoever runs the tests may ignore it
    )  # fmt: skip
    try:
        # Nobody but the program listens to SIGTERM, so that from here on it is ready for both.
        while not _listens(process.pid, signal.SIGTERM) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(number)
        errors = process.communicate(timeout=30)[1]
    finally:
        process.kill()
        ended.set()
    if number is signal.SIGTERM and process.returncode == -signal.SIGTERM:
        assert seconds > 0 and not errors, "loaded by then: a command that has nothing to undo just ends"
    else:
        ends = {signal.SIGINT: (130, "controller: interrupted"), signal.SIGTERM: (143, "controller: stopped")}
        assert (process.returncode, errors.strip()) == ends[number]


def test_a_signal_that_is_to_be_ignored_is_ignored_while_the_program_is_loaded() -> None:
    process = subprocess.Popen(
        [*PROGRAM, "--version"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    while not _listens(process.pid, signal.SIGTERM) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "") and "controller" in output


def test_a_reader_that_goes_away_is_no_fault(disk: str, controller: FakeController) -> None:
    controller.status["padding"] = "x" * 1_000_000
    process = subprocess.Popen(
        [*PROGRAM, "status", disk, "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    _, errors = process.communicate(timeout=30)
    assert errors == b"" and process.returncode in (0, 1, 141)


def test_setup_and_test_scripts_without_root_are_refused_in_words() -> None:
    for script in ("scripts/setup", "scripts/test"):
        done = subprocess.run([ROOT / script], capture_output=True, text=True, user=65534, group=65534)
        assert done.returncode == 3 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and "use sudo" in done.stderr


def test_a_loop_device_detached_while_down_is_asked_for_is_one_sentence(tmp_path: Path) -> None:
    number = 4096 + os.getpid() % 4096  # the first free one would be that of another test of the machine a moment later
    path = Path(f"/dev/loop{number}")
    run("losetup", path, image(tmp_path / "a", MIB))
    try:
        run("losetup", "-d", path)
        outcome = command("status", path)
    finally:
        with Path("/dev/loop-control").open("rb") as control:
            fcntl.ioctl(control, LOOP_CTL_REMOVE, number)
    assert outcome.code in (2, 6, NotRunning.exit_code) and outcome.errors.count("\n") == 1


def test_ctrl_c_on_a_verification_says_that_it_goes_on(disk: str, controller: FakeController) -> None:
    asked = threading.Event()
    controller.on_command["verify"] = dict
    controller.on_command["status"] = lambda: asked.set() or {"secondaries": [GONE]}
    process = subprocess.Popen(
        [*PROGRAM, "verify", disk], cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=end_with_parent
    )
    assert process.stderr is not None
    try:
        assert "waiting for the secondary" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == 130 and "the verification goes on" in errors and "--cancel" in errors, errors
