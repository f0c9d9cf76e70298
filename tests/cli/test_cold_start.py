"""Each command loads by itself; most tests run it in a process that has loaded all of them (tests/lab/starting.py)."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pydbt.cli.group import cli
from tests.lab.patience import PATIENCE_S, until
from tests.lab.programs import ROOT, command
from tests.lab.starting import started

# The libraries are loaded once; each command in a process that has nothing else of the program.
EACH = """
import os, sys, traceback
import click, cryptography, numpy, ssl
for name in sys.argv[1:]:
    pid = os.fork()
    if not pid:
        try:
            assert not [one for one in sys.modules if one.startswith("pydbt.")]
            from pydbt.cli.group import cli
            cli.commands[name]
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        print(name)
"""


def test_each_command_loads_without_what_another_has_loaded() -> None:
    names = list(cli.commands)
    done = subprocess.run([sys.executable, "-c", EACH, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "" and done.stderr == "", done
    assert len(names) > 20


def test_a_command_that_is_forked_ends_as_one_that_python_starts() -> None:
    quick = started()
    assert quick is not None
    for words in (["--version"], ["help", "run"], ["status", "/nonexistent"], ["replicate"], ["check", "/nonexistent"]):
        cold = subprocess.run(
            [sys.executable, "-m", "pydbt.cli.main", *words], cwd=ROOT, capture_output=True, text=True
        )
        forked = command(*words)
        assert (forked.code, forked.output, forked.errors) == (cold.returncode, cold.stdout, cold.stderr)


def test_one_that_is_forked_takes_signals_and_ends_at_the_latest_with_whoever_asked_for_it(tmp_path: Path) -> None:
    quick = started()
    assert quick is not None
    with (tmp_path / "log").open("wb") as log:
        one, other = (
            quick.start("import time; print('begun', flush=True); time.sleep(600)", "", log.fileno()) for _ in range(2)
        )
    until(lambda: (tmp_path / "log").read_text().count("begun") == 2, "both run")
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.01)
    one.send_signal(signal.SIGTERM)
    assert one.wait(PATIENCE_S) == -signal.SIGTERM and other.poll() is None
    with other:
        assert Path(f"/proc/{other.pid}").exists()
    until(lambda: not Path(f"/proc/{other.pid}").exists(), "nobody wants it any more")
