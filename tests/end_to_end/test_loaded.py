"""A loaded process is the same as a started one: to its parent, in /proc, and to the reader of its output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.cable import laid_cable
from tests.lab.loaded import Loaded, Process, loaded
from tests.lab.patience import until
from tests.lab.programs import PROGRAM, ROOT

MIB = 1 << 20
PARENT = """
import os, sys
from tests.lab.loaded import Loaded
print(Loaded().start(sys.argv[1:], (2, 2), os.environ).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def one() -> Loaded:
    made = loaded(os.environ)
    assert made is not None
    return made


def secondary(folder: Path) -> list[str]:
    return [*PROGRAM, "secondary", str(folder / "r.img"), "--create", str(MIB), "--state", str(folder / "state"),
            "--listen", f"unix:{folder / 'socket'}"]  # fmt: skip


def words_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")


def test_a_loaded_process_prints_the_same_as_a_started_one_and_ends_with_the_same_code(
    one: Loaded, tmp_path: Path
) -> None:
    words = [*PROGRAM, "run", "/dev/no-such-disk", "--secondary", "unix:/s", "--state", str(tmp_path / "state")]
    started = subprocess.run(words, capture_output=True, cwd=ROOT)
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        code = one.start(words, (out.fileno(), err.fileno()), os.environ).wait()
    said = (code, (tmp_path / "out").read_bytes(), (tmp_path / "err").read_bytes())
    assert said == (started.returncode, started.stdout, started.stderr)
    assert code == 2 and b"no-such-disk" in said[2]
    assert one.suits(os.environ) and not one.suits({**os.environ, "PYTHONPATH": str(tmp_path)})


def test_a_loaded_process_is_a_child_with_words_streams_session_and_network_of_its_own(
    one: Loaded, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    with laid_cable() as cable, (tmp_path / "log").open("wb") as log:
        streams = (log.fileno(), log.fileno())
        process = one.start(secondary(folder), streams, os.environ, network=cable.namespace_file, session=True)
        until(lambda: (folder / "socket").exists() or process.poll() is not None, "it listens")
        assert process.poll() is None, (tmp_path / "log").read_text()
        here = Path(f"/proc/{process.pid}")
        fields = (here / "stat").read_text().rpartition(")")[2].split()
        assert (int(fields[1]), int(fields[3])) == (os.getpid(), process.pid), "parent and session"
        assert words_of(process.pid) == secondary(folder)
        assert [os.readlink(here / f"fd/{number}") for number in range(3)] == [os.devnull, *[str(tmp_path / "log")] * 2]
        assert os.stat(here / "ns/net").st_ino == os.stat(cable.namespace_file).st_ino
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.terminate()
        assert process.wait() == 0, (tmp_path / "log").read_text()


def test_a_killed_process_is_told_by_its_signal_and_one_whose_parent_dies_is_killed(
    one: Loaded, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("wb") as log:
        killed: Process = one.start(secondary(tmp_path), (log.fileno(), log.fileno()), os.environ)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
    words = [sys.executable, "-c", PARENT, *secondary(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        pid = int(parent.stdout.readline())
        until(lambda: str(tmp_path) in " ".join(words_of(pid)), "it has its words")
        parent.kill()
    until(lambda: not Path(f"/proc/{pid}").exists() or not words_of(pid)[0], "it has ended with its parent")
