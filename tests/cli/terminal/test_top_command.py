"""``controller top`` itself, over control sockets that answer as a test wants."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.cli import finders
from pydbt.cli.commands.top import show
from pydbt.controller import registry
from pydbt.core.errors import MachineError
from pydbt.core.seen.top_keys import KEYS
from tests.lab.programs import ROOT
from tests.lab.served_dashboard import Machine
from tests.lab.terminal import Terminal, terminal

# The program itself, on a machine that has nothing but what is in a folder.
PROGRAM = """
import sys
from pathlib import Path
from pydbt.cli import finders, overview
from pydbt.controller import pinned, registry
folder = Path(sys.argv[1])
registry.RUN_DIR, pinned.PINS = folder / "run", folder / "pins"
overview.STATE_ROOT = finders.STATE_ROOT = folder / "lib"
sys.argv[1:2] = ["top"]
from pydbt.cli.main import main
main()
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "machine")
    yield made
    made.end()


@contextlib.contextmanager
def top(machine: Machine, *options: str, **environment: str) -> Iterator[Terminal]:
    words = [sys.executable, "-c", PROGRAM, str(machine.folder), "--interval", "0.2", *options]
    with terminal(words, PYTHONPATH=f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", **environment) as shown:
        yield shown


def test_volumes_are_shown_as_their_controllers_tell_and_a_stopped_one_is_never_green(machine: Machine) -> None:
    data = machine.add("data")
    machine.add("logs", mode="unsynchronized", connected=False, connection_problem="no route to 10.0.0.2")
    with top(machine) as shown:
        text = shown.until(lambda text: "● good" in text and "▲ bad" in text, "both")
        assert "2 volumes: 1 bad, 1 good" in text
        shown.type("j")
        shown.until_shown("data: primary /dev/data on")
        data.status = {**data.status, "mode": "resynchronizing", "progress": {"done_bytes": 1, "total_bytes": 2}}
        shown.until_shown("copying 50 %")
        data.answers["events"] = {
            "events": [{"moment": "2026-01-02T03:04:05Z", "name": "behind", "words": "out of sync"}]
        }
        shown.type("e")
        shown.until_shown("behind: out of sync")
        data.stop()
        shown.until(lambda text: "■ stopped" in text and "● good" not in text, "stopped")
        shown.type("q")
        assert shown.end() == 0
    assert {request["command"] for request in data.asked} == {"status", "events"}, "nothing else is asked"


def test_a_controller_that_hangs_is_not_waited_for(machine: Machine) -> None:
    machine.add("data")
    with machine.silent("stuck"), top(machine) as shown:
        shown.until(lambda text: "● good" in text and "? unknown" in text, "both")
        assert shown.end(signal.SIGTERM) == 143


def test_a_controller_that_stops_answering_is_stale_and_not_green(machine: Machine) -> None:
    data = machine.add("data")
    with top(machine) as shown:
        shown.until_shown("● good")
        data.delay_s = 8.0
        text = shown.until(lambda text: "STALE" in text and "● good" not in text, "stale")
        assert "? unknown" in text
        data.delay_s = 0.0
        shown.until_shown("● good")


def test_top_waits_for_a_first_volume(machine: Machine) -> None:
    with top(machine) as shown:
        shown.until_shown("no volume is known")
        machine.add("data")
        shown.until_shown("● good")
        shown.type("\x03")
        assert shown.end() == 130


def test_without_utf_8_and_without_colours(machine: Machine) -> None:
    machine.add("data")
    with top(machine, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", NO_COLOR="1") as shown:
        assert shown.until_shown("+ good").isascii()
        assert not re.search(rb"\x1b\[[0-9;]*3[0-7][0-9;]*m", shown.sent)


def outcome(*words: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pydbt.cli.main", "top", *words]
    known = {**os.environ, **environment}
    done = subprocess.run(
        command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stderr


def test_a_missing_terminal_is_one_sentence_with_the_command_to_use() -> None:
    code, words = outcome()
    assert code == 2 and "controller status" in words and len(words.splitlines()) == 1


def test_a_terminal_without_colours_gets_none(machine: Machine) -> None:
    machine.add("data")
    with top(machine, TERM="vt100") as shown:
        shown.until_shown("● good")
        assert not re.search(rb"\x1b\[[0-9;]*3[0-7][0-9;]*m", shown.sent)


def test_a_user_who_may_see_nothing_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "RUN_DIR", tmp_path)
    monkeypatch.setattr(finders, "finder_for_this_user", finders.GroupFinder)
    with pytest.raises(MachineError, match="as a member of pydbt"):
        show(1.0)


def test_an_interval_that_is_too_short_is_refused() -> None:
    code, words = outcome("--interval", "0.01")
    assert code == 2 and "at most every 0.2 seconds" in words


@pytest.mark.parametrize("name", ["dumb", ""])
def test_a_terminal_that_cannot_move_its_cursor_is_refused(machine: Machine, name: str) -> None:
    with top(machine, TERM=name) as shown:
        assert shown.end() == 2
        assert b"controller status" in shown.sent and b"\x1b" not in shown.sent


def test_the_document_has_every_key() -> None:
    text = (ROOT / "docs/operating/monitoring.md").read_text()
    for keys, words in KEYS:
        assert f"| {', '.join(f'`{key}`' for key in keys.split(', '))} | {words} |" in text
