"""The lock and the report of the process of all volumes: the files of a killed process deceive nobody, and do not stay."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pydbt.cli.commands import up
from pydbt.controller import registry, supervisor_file
from pydbt.controller.supervisor_file import read_report, supervised_volumes, supervising, write_report
from pydbt.core.errors import BusyError, NotRunning


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "run"
    monkeypatch.setattr(registry, "RUN_DIR", place)
    monkeypatch.setenv("PYDBT_VOLUMES", str(tmp_path))
    place.mkdir()
    return place


def killed(role: str, folder: Path, process: int) -> None:
    """What a process that was killed left behind."""
    supervisor_file._lock(role, folder).touch()
    write_report(role, folder, {"process": process, "asked_up": 0, "volumes": []})


def test_the_report_of_a_killed_supervisor_is_not_taken_for_that_of_the_next(tmp_path: Path) -> None:
    """`up --all` sends a signal to the process in it, and another one may have its number by now."""
    killed("run", tmp_path, 1)
    assert read_report("run", tmp_path) is None
    with supervising("run", tmp_path):
        assert read_report("run", tmp_path) == {}


def test_a_new_supervisor_removes_the_files_of_killed_ones_and_none_of_living_ones(
    tmp_path: Path, run_dir: Path
) -> None:
    gone, other = tmp_path / "gone", tmp_path / "other"
    killed("run", gone, 1)
    killed("secondary", gone, 1)
    with supervising("secondary", other), supervising("run", tmp_path):
        write_report("secondary", other, {"process": 2, "volumes": [{"name": "x"}]})
        with supervising("secondary", tmp_path):
            locks = {path for path in run_dir.iterdir() if path.suffix == ".lock"}
            assert len(locks) == 3 and supervisor_file._lock("run", gone) not in locks
        assert supervised_volumes() == [{"role": "secondary", "name": "x"}]
        with pytest.raises(BusyError, match="already"), supervising("run", tmp_path):
            pass
    assert list(run_dir.iterdir()) == []


def test_a_lock_that_its_last_owner_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, turns = supervisor_file._lock("run", tmp_path), []

    def late(descriptor: int) -> bool:
        if not turns:
            lock.unlink()
        turns.append(descriptor)
        return registry.lock_patiently(descriptor)

    monkeypatch.setattr(supervisor_file, "lock_patiently", late)
    with supervising("run", tmp_path), pytest.raises(BusyError), supervising("run", tmp_path):
        pass
    assert len(turns) == 3


def reports_of(monkeypatch: pytest.MonkeyPatch, *reports: dict[str, Any] | None) -> list[int]:
    """Each is read once; the signals that are sent are returned."""
    left, sent = list(reports), []
    monkeypatch.setattr(up, "read_report", lambda *_: left.pop(0))
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda _, number: sent.append(number))
    monkeypatch.setattr(up, "_POLL_S", 0)
    return sent


def test_no_signal_is_sent_to_a_process_that_got_the_number_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"process": os.getpid(), "asked_up": 0, "volumes": []}
    for now in (None, {}, {**mine, "process": 1}):
        sent = reports_of(monkeypatch, now, None)
        with pytest.raises(NotRunning):
            up._started("run", mine, 10)
        assert sent == []
    sent = reports_of(monkeypatch, mine, {**mine, "asked_up": 1})
    assert up._started("run", mine, 10) == [] and sent == [signal.SIGUSR1]


def test_a_supervisor_that_has_just_begun_is_asked_when_it_has_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"process": os.getpid(), "asked_up": 0, "volumes": []}
    sent = reports_of(monkeypatch, {}, mine, mine, {**mine, "asked_up": 1})
    assert up._started("run", {}, 10) == [] and sent == [signal.SIGUSR1]
