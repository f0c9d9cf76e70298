"""A run writes down what lies below its volume as soon as the next start can compare with it, and taints what changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pydbt.controller.primary import below_watch
from pydbt.controller.primary.below_watch import BelowWatch, changed_since, without_look
from pydbt.core.errors import DeviceError
from pydbt.core.tracking.below import Below, LoopFile, mapping
from pydbt.device import below as device_below
from pydbt.device.below import changes_in
from pydbt.device.commands import CommandFailed
from pydbt.store.volume_state import VolumeState

FILE = LoopFile("/dev/loop7", 2049, 131, 1_000, 1_000, 512)
OVER_FILE = Below("boot", files={"7:7": FILE}, groups={})
LINEAR = {"253:0": mapping("vg-data", [["0", "8192", "linear", "8:16", "2048"]])}
ORIGIN = {"253:0": mapping("vg-data", [["0", "8192", "snapshot-origin", "253:3"]])}
MERGE = {"253:0": mapping("vg-data", [["0", "8192", "snapshot-merge", "253:3", "253:4", "P", "8"]])}
STATE = VolumeState("ab" * 16, 1 << 20, 4096, "/dev/x", {})
DEVICE: Any = SimpleNamespace(path="/dev/x")


class Machine:
    """What lies below, and how often LVM was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = OVER_FILE
        self.asked = 0
        self.fails = False
        self.looks = 0
        self.answers = threading.Event()  # dmsetup does
        self.answers.set()
        for module in (below_watch, device_below):
            monkeypatch.setattr(module, "look_below", self._look)
        monkeypatch.setattr(device_below, "boot_id", lambda: "boot")

    def _look(self, device: object, *, groups: bool = False, patient: bool = False) -> Below:
        self.looks += 1
        self.answers.wait()
        if self.fails:
            raise CommandFailed("dmsetup is not installed on this machine")
        self.asked += groups
        return replace(self.now, groups=self.now.groups if groups else None)

    def write(self, sectors: int | None, at: int) -> None:
        file = replace(FILE, written_ns=at, changed_ns=at, written_sectors=sectors)
        self.now = replace(self.now, files={"7:7": file})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    found = Machine(monkeypatch)
    yield found
    found.answers.set()


def kept(watch: BelowWatch) -> VolumeState:
    """The state that such a run leaves behind."""
    assert watch.kept is not None
    return replace(STATE, more={"below": watch.kept.to_values()})


def test_a_state_of_an_earlier_version_has_nothing_to_compare_with(machine: Machine) -> None:
    assert BelowWatch(DEVICE, STATE).changed == ""
    for more in ({"below": None}, {"below": {}}, {"below": {"other": 1}}, {"below": "text"}):
        assert changed_since(replace(STATE, more=more), DEVICE) == ""


def test_a_look_that_would_be_out_of_date_at_once_is_not_written_down(machine: Machine) -> None:
    watch = BelowWatch(DEVICE, STATE)
    first = watch.kept
    for number in range(1, 5):
        machine.write(512 + 8 * number, at=1_000 + number)
        assert not watch.look(own_snapshots=False) and watch.kept == first
    assert not watch.look(own_snapshots=False)
    assert watch.kept == machine.now
    assert not BelowWatch(DEVICE, kept(watch)).changed


def test_a_run_that_ends_in_the_middle_of_a_write_keeps_the_file_and_not_its_times(machine: Machine) -> None:
    watch = BelowWatch(DEVICE, STATE)
    machine.write(None, at=2_000)
    watch.look(own_snapshots=False, final=True)
    machine.write(520, at=2_001)
    assert not changed_since(kept(watch), DEVICE)
    machine.now = replace(machine.now, files={})
    assert "another file" in changed_since(kept(watch), DEVICE)


def test_a_write_past_the_device_taints_a_run_once_and_the_next_start_if_the_run_did_not_notice(
    machine: Machine,
) -> None:
    watch = BelowWatch(DEVICE, STATE)
    machine.write(512, at=2_000)
    assert "past it" in BelowWatch(DEVICE, kept(watch)).changed
    assert "past it" in watch.look(own_snapshots=False)
    assert not watch.look(own_snapshots=False) and not watch.look(own_snapshots=False)
    assert not BelowWatch(DEVICE, kept(watch)).changed


def test_a_snapshot_that_comes_while_it_runs_is_written_down_with_the_groups_changes(machine: Machine) -> None:
    machine.now = Below("boot", LINEAR, groups={"g": 7})
    watch = BelowWatch(DEVICE, STATE)
    asked = machine.asked
    assert not watch.look(own_snapshots=False) and machine.asked == asked, "LVM is not asked again and again"
    machine.now = Below("boot", ORIGIN, groups={"g": 8})
    assert not watch.look(own_snapshots=False)
    assert watch.kept == machine.now
    machine.now = Below("boot", LINEAR, groups={"g": 9})
    assert "vg-data" in changed_since(kept(watch), DEVICE)
    machine.now = Below("boot", MERGE, groups={"g": 9})
    assert "merged into vg-data" in watch.look(own_snapshots=False)


def test_a_merge_between_two_looks_shows_in_the_volume_group(machine: Machine) -> None:
    machine.now = Below("boot", LINEAR, groups={"g": 7})
    watch = BelowWatch(DEVICE, STATE)
    machine.now = replace(machine.now, groups={"g": 9})
    assert "volume group" in changed_since(kept(watch), DEVICE)
    watch.look(own_snapshots=False, final=True)
    assert not changed_since(kept(watch), DEVICE)


def test_the_snapshots_of_the_run_itself_are_no_change(machine: Machine) -> None:
    machine.now = Below("boot", LINEAR, groups={"g": 7})
    watch = BelowWatch(DEVICE, STATE)
    for tables, changes in ((ORIGIN, 8), (LINEAR, 9), (ORIGIN, 10)):
        machine.now = Below("boot", tables, groups={"g": changes})
        assert not watch.look(own_snapshots=True)
    machine.now = Below(
        "boot", LINEAR, groups={"g": 11}
    )  # a killed run's snapshot is removed before the next one looks
    assert not changed_since(kept(watch), DEVICE)
    machine.now = Below("boot", MERGE, groups={"g": 11})
    assert "vg-data" in changed_since(kept(watch), DEVICE)


def test_a_failed_look_below_is_not_called_unchanged_and_ends_no_run(machine: Machine, caplog: Any) -> None:
    state = kept(BelowWatch(DEVICE, STATE))
    machine.fails = True
    watch = BelowWatch(DEVICE, state)
    assert "dmsetup is not installed" in watch.changed and watch.kept is None
    assert not watch.look(own_snapshots=False) and not watch.look(own_snapshots=False, final=True)
    assert caplog.text.count("dmsetup is not installed") == 1
    machine.fails = False
    assert not watch.look(own_snapshots=False) and watch.kept is not None


def test_a_look_in_another_boot_is_not_compared(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    state = kept(BelowWatch(DEVICE, STATE))
    machine.now = Below("later", files={"7:7": replace(FILE, inode=5)})
    monkeypatch.setattr(device_below, "boot_id", lambda: "later")
    assert not changed_since(state, DEVICE)


def test_the_marker_of_a_clean_stop_has_a_look_of_its_own(machine: Machine) -> None:
    machine.now = Below("boot", LINEAR, groups={})
    state = replace(STATE, clean={"below": machine.now.to_values()}, more=without_look({"below": {}, "note": 1}))
    assert state.more == {"note": 1} and not changed_since(state, DEVICE)
    machine.now = Below("boot", MERGE, groups={})
    assert "vg-data" in changed_since(state, DEVICE)
    assert not changed_since(replace(state, clean={"boot_id": "boot"}), DEVICE)


def test_lvms_report_names_groups_with_hyphens() -> None:
    uuid = "zUOqK2-pGdF-1rdG-N0dU-wLpz-JNxf-UDIWNI"
    report = (
        f"""{{"report": [{{"vg": [{{"vg_uuid":"{uuid}", "vg_seqno":"17"}}, {{"vg_uuid":"x", "vg_seqno":"3"}}]}}]}}"""
    )
    group = uuid.replace("-", "")
    assert changes_in(report, {group}) == {group: 17}
    for text in ("", "{}", '{"report": []}', '{"report": [{"vg": [{"vg_seqno": "1"}]}]}', '{"report": [{"vg": [7]}]}'):
        with pytest.raises(DeviceError, match="no report"):
            changes_in(text, {group})


def test_a_look_that_hangs_holds_nobody_up_and_is_unknown_until_it_answers(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    watch, told = BelowWatch(DEVICE, STATE), threading.Event()
    before = watch.kept
    machine.answers.clear()
    watch.begin(False, told.set)
    assert not watch.problem and not watch.take()
    monkeypatch.setattr(below_watch, "ANSWER_S", 0.0)
    looks = machine.looks
    for _ in range(3):
        watch.begin(False, told.set)
        assert "it is unknown whether the content of /dev/x changes" in watch.problem and not watch.take()
    assert machine.looks == looks and not told.is_set(), "one look at a time"
    assert caplog.text.count("have not answered") == 1
    assert not watch.look(own_snapshots=False, final=True) and watch.kept == before, "an end does not wait for it"
    machine.now = Below("boot", MERGE, groups={})
    machine.answers.set()
    assert told.wait(60)
    monkeypatch.setattr(below_watch, "ANSWER_S", 60.0)
    watch.take()
    assert not watch.problem and watch.kept is not None and watch.kept.mappings == MERGE


def test_a_start_does_not_take_a_device_for_unchanged_that_nobody_can_look_at(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = kept(BelowWatch(DEVICE, STATE))
    monkeypatch.setattr(below_watch, "ANSWER_S", 0.0)
    machine.answers.clear()
    assert "have not answered" in BelowWatch(DEVICE, state).changed
    new = BelowWatch(DEVICE, STATE)
    assert not new.changed and new.problem and new.kept is None, "nothing was recorded that it could be compared with"


def test_a_failure_is_in_the_problem_until_a_look_succeeds(machine: Machine) -> None:
    watch = BelowWatch(DEVICE, STATE)
    machine.fails = True
    watch.look(own_snapshots=False)
    assert "dmsetup is not installed" in watch.problem
    machine.fails = False
    watch.look(own_snapshots=False)
    assert not watch.problem
