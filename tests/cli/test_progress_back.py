"""Progress on a terminal, in the log, of `verify` and of `wait`: less than before is shown with its reason."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest

from pydbt.cli.commands import wait
from pydbt.cli.group import execute
from pydbt.cli.progress import ProgressReporter
from pydbt.core.seen.view import View
from tests.cli.conftest import FakeController
from tests.lab.patience import until


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
