"""A controller goes on, answers and ends, whatever becomes of those who read its stderr."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.patience import PATIENCE_S, until
from tests.lab.programs import PROGRAM, ROOT, command, end_with_parent, free_port, status_of

MIB = 1 << 20


@contextlib.contextmanager
def a_pipe_that_nobody_reads() -> Iterator[int]:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    yield write
    os.close(write)
    os.close(read)


@contextlib.contextmanager
def a_pipe_without_a_reader() -> Iterator[int]:
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@contextlib.contextmanager
def a_full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextlib.contextmanager
def a_stopped_terminal() -> Iterator[int]:
    """As after Ctrl-S."""
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    yield slave
    os.close(slave)
    os.close(master)


PLACES = [a_pipe_that_nobody_reads, a_pipe_without_a_reader, a_full_disk, a_stopped_terminal]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_secondary_answers_and_ends_whatever_becomes_of_its_log(place: Callable, tmp_path: Path) -> None:
    state = tmp_path / "s"
    with place() as descriptor:
        for end in (signal.SIGTERM, None):
            process = subprocess.Popen(
                [*PROGRAM, "--debug", "secondary", tmp_path / "b.img", "--create", str(MIB), "--state", state,
                 "--listen", f"127.0.0.1:{free_port()}", "--insecure"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=descriptor, cwd=ROOT,
                start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip
            try:
                until(lambda: status_of(state) is not None, "it answers")
                assert process.poll() is None
                if end is None:
                    assert command("down", "--state", state).code == 0
                else:
                    process.send_signal(end)
                assert process.wait(PATIENCE_S) == 0
            finally:
                process.kill()
                process.wait()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_refused_command_still_ends_with_its_exit_code(place: Callable, tmp_path: Path) -> None:
    with place() as descriptor:
        done = subprocess.run(
            [*PROGRAM, "secondary", tmp_path, "--state", tmp_path / "s", "--listen", "127.0.0.1:1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=descriptor, cwd=ROOT, timeout=PATIENCE_S,
        )  # fmt: skip
    assert done.returncode == 2
