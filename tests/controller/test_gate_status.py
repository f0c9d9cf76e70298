"""A gate that is shut is in every view of a volume that nobody serves, in the boot in which it was asked and in no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.cli.locate import last_known
from pydbt.controller.control import write_saved_status
from pydbt.controller.primary.stopped import with_present_figures
from pydbt.core.seen.sight import Level, level_of
from pydbt.core.seen.view import View
from pydbt.posix.boot import boot_id
from pydbt.store.gate_file import GateRecord, save_gate
from tests.controller.test_stopped import SAVED, Machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, monkeypatch)
    write_saved_status(tmp_path, {**SAVED, "gate": {"outcome": "shut", "asked": "then", "words": "of a boot before"}})
    return made


def test_without_a_question_in_this_boot_there_is_none(machine: Machine) -> None:
    save_gate(machine.place, GateRecord("shut", "h:1: it was promoted", "then", "another boot"))
    status = with_present_figures(machine.place, SAVED)
    assert status["gate"] is None and level_of(View({**status, "running": False}), stale=True) is Level.STOPPED
    assert "promoted" not in last_known(machine.place) and "of a boot before" not in last_known(machine.place)


def test_a_gate_that_is_shut_is_told_with_what_to_do_and_comes_first(machine: Machine) -> None:
    save_gate(machine.place, GateRecord("shut", "h:1: it was promoted", "then", boot_id()))
    status = with_present_figures(machine.place, SAVED)
    assert status["gate"] == {"outcome": "shut", "asked": "then", "words": "h:1: it was promoted"}
    assert level_of(View({**status, "running": False}), stale=True) is Level.BAD
    told = last_known(machine.place)
    assert "MUST NOT BE MOUNTED HERE: h:1: it was promoted" in told and "controller demote" in told
