"""Progress on a terminal, in the log, of `verify` and of `wait`: less than before is shown with its reason."""

from __future__ import annotations

import io
import logging
import threading
from typing import Any

import pytest

from pydbt.cli.commands import wait
from pydbt.cli.group import _MAY_TAKE_LONG, cli, execute
from pydbt.cli.progress import ProgressReporter
from pydbt.cli.stopping import stop_running
from pydbt.controller import at_work
from pydbt.core.errors import TimedOut
from pydbt.core.seen.view import View
from tests.cli.conftest import FakeController
from tests.lab.patience import PATIENCE_S, until


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def report(done: int, total: int, mode: str = "resynchronizing") -> View:
    progress = {"done_bytes": done, "total_bytes": total, "rate_bytes": 1}
    return View({"role": "primary", "mode": mode, "replica_state": "outdated", "progress": progress})


def test_the_log_says_why_a_synchronization_goes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    reporter = ProgressReporter(io.StringIO(), clock)
    for done, total in ((500, 1000), (600, 3000), (700, 3000)):
        reporter.update(report(done, total))
        clock.now += 100.0
    assert ["back from" in record.getMessage() for record in caplog.records] == [False, True, False]
    assert "back from 50 %: 2.0 KiB more is to be done" in caplog.text


def test_the_live_line_says_it_long_enough_to_be_read() -> None:
    clock, terminal = Clock(), Terminal()
    with ProgressReporter(terminal, clock) as reporter:
        for done, total in ((500, 1000), (600, 3000), (601, 3000)):
            reporter.update(report(done, total))
            clock.now += 1.0
        assert "back from 50 %" in terminal.getvalue()


def test_a_wait_says_why_it_goes_back(
    controller: FakeController, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(wait, "_FIRST_LINE_S", 0.0)
    monkeypatch.setattr(wait, "_NEXT_LINE_S", 0.0)
    steps = iter([(500, 1000), (600, 3000)])
    asked: list[int] = []

    def status() -> dict[str, Any]:
        done, total = next(steps, (3000, 3000))
        asked.append(done)
        return {**report(done, total).values, "running": True}

    def waits() -> dict[str, Any]:
        until(lambda: len(asked) > 3, "it was asked some times")
        return {}

    controller.on_command = {"status": status, "wait": waits}
    assert execute(["wait", "--state", str(controller.state_dir), "--no-sync"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "back from" not in lines[0] and lines[1].endswith("back from 50 %: 2.0 KiB more is to be done")


def test_every_command_says_that_it_is_at_work_or_tells_by_itself_or_is_quick_or_a_service() -> None:
    services = {"run", "secondary", "hold", "cluster", "dashboard", "top", "trace"}
    telling = {"wait", "verify", "events"}
    quick = {"status", "check", "help"}
    assert set(cli.commands) == set(_MAY_TAKE_LONG) | services | telling | quick
    assert len(cli.commands) == len(_MAY_TAKE_LONG) + len(services | telling | quick)


@pytest.mark.parametrize("arguments", [["secondaries"], ["switchover", "--timeout", "30"], ["pause"]])
def test_a_command_whose_controller_takes_long_says_what_it_is_at(
    controller: FakeController,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.setattr(at_work, "FIRST_LINE_S", 0.01)
    told = threading.Event()
    monkeypatch.setattr(at_work._log, "info", lambda *_: told.set())

    def slow() -> dict[str, Any]:
        assert told.wait(PATIENCE_S), "nothing is said"
        return {"secondaries": [], "secondary": "a:1", "listen": "b:2"}

    controller.on_command = {arguments[0]: slow} if arguments[0] != "secondaries" else {"status": slow}
    assert execute([*arguments, "--state", str(controller.state_dir)]) == 0


def test_a_controller_that_ends_slowly_is_told_with_its_state(
    controller: FakeController, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(at_work, "FIRST_LINE_S", 0.01)
        controller.on_command["down"] = lambda: until(lambda: "waiting until" in caplog.text, "it is told") or {}
        with pytest.raises(TimedOut):
            stop_running(controller.state_dir, 1.0)  # it answers on, because it is none
    assert f"waiting until the controller of {controller.state_dir} has ended: up to date; normal" in caplog.text
