"""Each command loads by itself; most tests run it in a process that has loaded all of them (tests/lab/loaded.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.cli.group import cli
from pydbt.controller.control import write_saved_status
from pydbt.store.replica_state import save_record
from tests.cli.conftest import FakeController
from tests.core.secondary.test_brain import ADOPTED
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


LOADED = """
import sys
from pydbt.cli.group import execute
code = execute(sys.argv[1:])
print(code, *sorted({"numpy", "rich", "bcc", "cryptography", "ctypes", "asyncio"} & set(sys.modules)))
"""


def loads(*words: object) -> str:
    """The exit code of a command in a process of its own, and which large libraries it has loaded."""
    program = [sys.executable, "-c", LOADED, *map(str, words)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines()[-1] if done.stdout else done.stderr


@pytest.mark.parametrize("promoted", ["", "2026-01-02T16:18:58+00:00"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_status_of_a_stopped_replica_loads_no_large_library(
    tmp_path: Path, form: tuple[str, ...], promoted: str
) -> None:
    """Monitoring asks for it every minute."""
    save_record(tmp_path, replace(ADOPTED, promoted=promoted))
    write_saved_status(tmp_path, {"role": "secondary", "target": "/dev/x", "mode": "streaming"})
    assert loads("status", *form, "--state", tmp_path) == "9"
    assert loads("check", "--state", tmp_path) in ("1", "3")


def test_the_status_of_one_that_runs_loads_none_either(controller: FakeController) -> None:
    for words in (("status",), ("status", "--json"), ("check",)):
        assert loads(*words, "--state", controller.state_dir) in ("0", "1", "2", "3")


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
