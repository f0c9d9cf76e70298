"""Programs of somebody else that hang, fork, print without end, or leave something behind: none of them holds anything up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pydbt.posix import bounded_program
from pydbt.posix.bounded_program import LINES_MAX, OUTPUT_BYTES_MAX, PROCESSES_MAX, processes_below, run_bounded
from tests.lab.patience import until

LONG_S = 600.0
SOON_S = 0.5


def program(folder: Path, text: str, shell: str = "/bin/sh") -> str:
    path = folder / "program"
    path.write_text(f"#!{shell}\n{text}\n")
    path.chmod(0o755)
    return str(path)


def run(command: str, timeout_s: float = LONG_S, **environment: str) -> tuple[str, list[str]]:
    lines: list[str] = []
    told = run_bounded([command], {"PATH": "/usr/bin:/bin", **environment}, timeout_s, lines.append, threading.Event())
    return told, lines


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_has_its_environment_and_nothing_else_of_this_process(tmp_path: Path) -> None:
    kept = os.open(tmp_path, os.O_RDONLY)  # not inherited: Python marks it, and what is not marked is closed as well
    os.set_inheritable(kept, True)
    text = (
        'echo "$NAME|$SECRET"; ls /proc/self/fd | tr "\\n" " "; echo; pwd; head -c 1; ps -o sid= -p $$; echo $$\n'
        "until [ $(ulimit -n) = 1024 ]; do sleep 0.05; done; ulimit -c"
    )
    os.environ["SECRET"] = "x"
    try:
        told, lines = run(program(tmp_path, text), NAME="a $(touch /tmp/x) `b` | c")
    finally:
        del os.environ["SECRET"]
        os.close(kept)
    assert told == ""
    assert lines[0] == "a $(touch /tmp/x) `b` | c|"
    assert lines[1].split() == ["0", "1", "2", "3"], "3 is the folder that ls reads"
    assert (lines[2], lines[5]) == ("/", "0")
    assert lines[3].strip() == lines[4].strip(), "it leads a session of its own"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit 3", "it ended with exit code 3"),
        ("kill -SEGV $$", "it was killed by signal 11"),
        ("exec sleep 1000", f"it was killed after {SOON_S:g} s"),
        ("trap '' TERM; while :; do sleep 1; done", f"it was killed after {SOON_S:g} s"),
    ],
)
def test_the_end_of_a_program_is_told_with_its_cause(tmp_path: Path, text: str, words: str) -> None:
    assert run(program(tmp_path, text), SOON_S if "sleep" in text else LONG_S)[0] == words


@pytest.mark.parametrize("command", ["/nonexistent", "/", "/etc/passwd"])
def test_a_program_that_cannot_be_started_is_told(command: str) -> None:
    assert run(command)[0].startswith("it cannot be started: ")


def test_the_output_of_a_program_is_bounded_and_has_no_control_characters(tmp_path: Path) -> None:
    told, lines = run(program(tmp_path, "printf 'a\\033[2Jb\\nno end'"))
    assert (told, lines) == ("", ["a\\x1b[2Jb", "no end"])
    told, lines = run(program(tmp_path, "seq 1 100000"))
    assert told == "" and len(lines) == LINES_MAX + 1 and lines[-1].startswith("...")
    told, lines = run(program(tmp_path, f"head -c {3 * OUTPUT_BYTES_MAX} /dev/zero"))
    assert told == "" and sum(map(len, lines)) < 8 * OUTPUT_BYTES_MAX


def test_a_program_that_prints_without_end_is_killed_at_its_time(tmp_path: Path) -> None:
    told, lines = run(program(tmp_path, "exec cat /dev/zero"), SOON_S)
    assert "it was killed after" in told and len(lines) <= LINES_MAX + 1


FORKS = {
    "in its session": "sleep 1000 & echo $!",
    "in a session of its own": "setsid sleep 1000 & echo $!",
    "as a daemon": "(setsid sh -c 'echo $$; exec sleep 1000' &)\nsleep 0.3",
    "with nothing in its environment": "(env -i /usr/bin/setsid /bin/sh -c 'echo $$; exec sleep 1000' &)\nsleep 0.3",
}


@pytest.mark.parametrize("text", FORKS.values(), ids=FORKS)
@pytest.mark.parametrize("hangs", [False, True])
def test_processes_that_a_program_leaves_behind_are_killed(tmp_path: Path, text: str, hangs: bool) -> None:
    told, lines = run(
        program(tmp_path, f"{text}\n{'exec sleep 1000' if hangs else 'exit 0'}"), 1.5 if hangs else LONG_S
    )
    assert ("killed" in told) == hangs
    (left,) = (int(line) for line in lines)
    until(lambda: not alive(left), "it is gone")


@pytest.mark.parametrize(("count", "words"), [(30, "it was killed after 3 s"), (90, "it had more than 64 processes")])
def test_a_program_that_forks_is_ended_with_all_its_children(tmp_path: Path, count: int, words: str) -> None:
    text = (
        f"import os, time\nfor _ in range({count}):\n    if not os.fork():\n        os.setsid()\n        time.sleep(1000)\n"
        "time.sleep(1000)"
    )
    command = program(tmp_path, text, sys.executable)
    told, _ = run(command, 3.0 if count < PROCESSES_MAX else LONG_S, MARKED=str(tmp_path))
    assert words in told
    until(lambda: not _with_environment(f"MARKED={tmp_path}".encode()), "all are gone")


def _with_environment(text: bytes) -> list[str]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if text in Path(f"/proc/{name}/environ").read_bytes():
                found.append(name)
        except OSError:
            continue
    return found


def test_nothing_is_read_of_the_processes_of_others_that_could_be_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ``/proc/PID/environ``, ``cmdline`` and ``maps`` another user makes an endless wait: by memory that a FUSE serves."""
    opened: list[str] = []

    def noted(path: str, *words: object) -> object:
        opened.append(path)
        return open(path, *words)

    monkeypatch.setattr(bounded_program, "open", noted, raising=False)
    run(program(tmp_path, "(setsid sleep 1000 &)\nsleep 1.5"))
    assert len(opened) > 10 and all(path.startswith("/proc/") and path.endswith("/stat") for path in opened)


def test_whatever_a_process_is_called_its_parent_is_found(tmp_path: Path) -> None:
    names = ["x", "a b", ") Z 1 (", "(((", ")))\n", "\xff R 1 1 1"]
    code = "import ctypes, sys, time; ctypes.CDLL(None).prctl(15, sys.argv[1].encode('latin-1'))"
    code += "; print(flush=True); time.sleep(1000)"
    children = [subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE) for name in names]
    try:
        assert all(child.stdout is not None and child.stdout.readline() for child in children)
        assert {child.pid for child in children} <= set(processes_below(os.getpid()))
        children[0].kill()
        until(lambda: not alive(children[0].pid), "it has ended")
        assert children[0].pid not in processes_below(os.getpid()), "though nobody has asked how"
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_a_program_whose_keeper_is_killed_keeps_nobody_waiting(tmp_path: Path) -> None:
    told, _ = run(program(tmp_path, "kill -9 $PPID; sleep 1000"), MARKED=str(tmp_path))
    assert "its keeper was killed" in told
    until(lambda: not _with_environment(f"MARKED={tmp_path}".encode()), "it is gone, with its group")


def test_a_program_is_killed_when_the_controller_ends(tmp_path: Path) -> None:
    stop = threading.Event()
    told: list[str] = []
    command = program(tmp_path, "echo begun; exec sleep 1000")

    def begun(line: str) -> None:
        stop.set()

    thread = threading.Thread(target=lambda: told.append(run_bounded([command], {"PATH": "/bin"}, LONG_S, begun, stop)))
    thread.start()
    thread.join()
    assert told == ["it was killed, because the controller ends"]
