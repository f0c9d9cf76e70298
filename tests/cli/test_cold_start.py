"""Each command loads by itself; most tests run it in a process that has loaded all of them (tests/lab/loaded.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pydbt.cli.group import cli
from tests.lab.loaded import loaded
from tests.lab.patience import PATIENCE_S, until
from tests.lab.programs import ROOT, command

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
    assert loaded(os.environ) is not None
    for words in (["--version"], ["help", "run"], ["status", "/nonexistent"], ["replicate"], ["check", "/nonexistent"]):
        cold = subprocess.run(
            [sys.executable, "-m", "pydbt.cli.main", *words], cwd=ROOT, capture_output=True, text=True
        )
        forked = command(*words)
        assert (forked.code, forked.output, forked.errors) == (cold.returncode, cold.stdout, cold.stderr)


def test_a_forked_command_takes_signals_and_is_killed_when_it_takes_too_long(tmp_path: Path) -> None:
    quick = loaded(os.environ)
    assert quick is not None
    lines = f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); print('begun', flush=True); time.sleep(600)"
    words = [sys.executable, "-c", lines]
    with (tmp_path / "log").open("wb") as log:
        one, other = (quick.start(words, (log.fileno(), log.fileno()), os.environ) for _ in range(2))
        at_once = quick.start(words, (log.fileno(), log.fileno()), os.environ)
    at_once.terminate()
    assert at_once.wait(PATIENCE_S) == -signal.SIGTERM
    until(lambda: (tmp_path / "log").read_text().count("begun") >= 2, "both run")
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.01)
    one.terminate()
    assert one.wait(PATIENCE_S) == -signal.SIGTERM and other.poll() is None
    other.send_signal(signal.SIGINT)
    assert other.wait(PATIENCE_S) == -signal.SIGINT and "KeyboardInterrupt" in (tmp_path / "log").read_text()
    with pytest.raises(subprocess.TimeoutExpired):
        quick.run(words, os.environ, 1)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()
