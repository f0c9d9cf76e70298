"""A command whose output goes nowhere ends with a documented code and at most one sentence, whatever it was about to say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pydbt.cli.program import PIPE_CLOSED
from pydbt.core.errors import OutputError
from tests.cli.conftest import FakeController
from tests.lab.programs import PROGRAM, ROOT

OUTPUT = OutputError.exit_code
COMMANDS = [("--version",), ("--help",), ("status", "--help"), ("help", "run")]


def run(words: tuple[str, ...], stdout: int | None) -> tuple[int, str]:
    """``stdout`` None: it is closed at the start."""
    done = subprocess.run(
        [*PROGRAM, *words], cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60,
        preexec_fn=(lambda: os.close(1)) if stdout is None else None,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_reader_that_went_away_is_exit_code_141_and_no_message(words: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        assert run(words, write) == (PIPE_CLOSED, "")
    finally:
        os.close(write)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_full_disk_is_one_sentence_and_a_code_of_its_own(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        code, errors = run(words, full.fileno())
    assert code == OUTPUT
    assert errors == "controller: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_output_that_was_closed_at_the_start_is_no_failure(words: tuple[str, ...]) -> None:
    assert run(words, None) == (0, "")


def test_a_status_for_programs_tells_both_as_well(disk: str, controller: FakeController) -> None:
    words = ("status", disk, "--json")
    with Path("/dev/full").open("w") as full:
        code, errors = run(words, full.fileno())
    assert code == OUTPUT and errors.count("\n") == 1 and "cannot be written" in errors
    read, write = os.pipe()
    os.close(read)
    assert run(words, write) == (PIPE_CLOSED, "")
    os.close(write)


def test_an_error_of_the_command_is_told_beside_a_full_disk() -> None:
    with Path("/dev/full").open("w") as full:
        code, errors = run(("status", "/dev/no-such-disk"), full.fileno())
    assert code == 2 and "/dev/no-such-disk" in errors


def test_no_file_takes_the_place_of_a_stream_that_was_closed_at_the_start(tmp_path: Path) -> None:
    """The output of a library on stderr would be written to a TARGET in that place."""
    look = "import os, sys; print(*(os.readlink(f'/proc/self/fd/{n}') for n in range(3)), file=open(sys.argv[1], 'w'))"
    script = f"from pydbt.cli import main; main._open_closed_streams(); {look}; print('out'); sys.stderr.write('x')"
    found = tmp_path / "found"
    closed = lambda: [os.close(number) for number in range(3)]  # noqa: E731
    done = subprocess.run([sys.executable, "-c", script, found], cwd=ROOT, preexec_fn=closed, timeout=60)
    assert done.returncode == 0 and found.read_text().split() == ["/dev/null"] * 3
    done = subprocess.run([*PROGRAM, "status", "/dev/no-such-disk"], cwd=ROOT, preexec_fn=closed, timeout=60)
    assert done.returncode == 2, "its exit code is still told"
