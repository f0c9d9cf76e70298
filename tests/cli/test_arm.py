"""`arm` and `disarm` as people type them: one clear sentence each, nothing half-done, and a mark that survives every failure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.cli.group import execute
from pydbt.controller.boot_chain import why_unarmed
from pydbt.controller.control import ControlServer, write_saved_status
from pydbt.controller.primary import arming, end_tracking, opening
from pydbt.controller.primary.armed import without_arming
from pydbt.controller.primary.leftover import pin_dir_of
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import StateError
from pydbt.device.block import DirectReader
from pydbt.device.clean import clean_marker
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.capture import Capture
from pydbt.store.map_file import load_map, map_digest, save_map
from pydbt.store.map_image import MapHeader
from pydbt.store.secondary_record import MAP_FILE_NAME, SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VolumeState, create_state, load_state, save_state
from tests.lab.disks import ensure_bpffs, make_filesystem
from tests.lab.patience import run
from tests.lab.programs import Outcome

BLOCK = 4096
ANOTHER_BOOT = "00000000-0000-0000-0000-000000000000"


class Machine:
    """A configured volume `data`, in sync when its closing record was written in an earlier boot; and the program on it."""

    def __init__(self, root: Path, disk: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.disk, self.state_dir, self._capsys = disk, root / "state", capsys
        self.state_dir.mkdir()
        self.volumes = root / "volumes"
        self.volumes.mkdir()
        lines = f'[run]\nsource = "{disk}"\nsecondary = "10.0.0.2:7790"\nstate = "{self.state_dir}"\ninsecure = true\n'
        (self.volumes / "data.toml").write_text(lines)
        make_filesystem("ext4", Path(disk))
        device = BlockDevice.identify(disk)
        state = create_state(device, BLOCK).with_record(SecondaryRecord(1, "10.0.0.2:7790", SyncPhase.REPLICATING))
        save_map(self.map, MapHeader(state.uuid, state.geometry), DirtyMap(state.geometry.block_count))
        with DirectReader(device) as reader:
            marker = clean_marker(device, reader)
        assert marker["filesystem"]
        marker |= {"boot_id": ANOTHER_BOOT, "maps": {MAP_FILE_NAME: map_digest(self.map)}}
        save_state(self.state_dir, replace(state, boot_id=ANOTHER_BOOT, clean=marker))

    @property
    def map(self) -> Path:
        return self.state_dir / MAP_FILE_NAME

    @property
    def state(self) -> VolumeState:
        state = load_state(self.state_dir)
        assert state is not None
        return state

    @property
    def pins(self) -> Path:
        return pin_dir_of(self.state)

    def run(self, *arguments: object) -> Outcome:
        code = execute([str(argument) for argument in arguments])
        return Outcome(code, *self._capsys.readouterr())

    def done(self, *arguments: object) -> str:
        outcome = self.run(*arguments)
        assert outcome.code == 0, outcome
        return outcome.output

    def write(self, block: int) -> None:
        run(
            "dd",
            "if=/dev/zero",
            f"of={self.disk}",
            f"bs={BLOCK}",
            f"seek={block}",
            "count=1",
            "oflag=direct",
            "status=none",
        )

    def mapped(self) -> list[int]:
        kept = load_map(self.map)
        assert kept is not None
        firsts, counts = kept[1].extents()
        return [block for first, count in zip(firsts, counts, strict=True) for block in range(first, first + count)]


@pytest.fixture
def machine(
    tmp_path: Path, disk: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    ensure_bpffs()
    made = Machine(tmp_path, disk, capsys)
    monkeypatch.setenv("PYDBT_VOLUMES", str(made.volumes))
    monkeypatch.chdir(tmp_path)
    pins = made.pins
    yield made
    Capture.remove_pins(pins)


def test_a_volume_is_armed_by_its_name_or_source_once_and_disarmed_with_all_that_was_written(machine: Machine) -> None:
    assert machine.done("arm", "data").startswith(f"{machine.disk} is armed: every write is tracked")
    assert "nothing to do" in machine.done("arm", machine.disk)
    machine.write(2003)
    listed = machine.run("status")
    assert listed.code == 9 and "armed since" in listed.output, listed
    assert "is disarmed: the next run copies what is out of sync" in machine.done("disarm", "data")
    assert machine.mapped() == [2003] and not machine.pins.exists()
    assert "not armed" in machine.done("disarm", machine.disk)
    clean = machine.state.clean
    assert clean is not None and clean["maps"] == {MAP_FILE_NAME: map_digest(machine.map)}
    save_state(
        machine.state_dir, replace(machine.state, boot_id=ANOTHER_BOOT, clean={**clean, "boot_id": ANOTHER_BOOT})
    )
    assert "every write is tracked" in machine.done("arm", "data"), "the closing record that was written is a whole one"
    assert not machine.state.record(1).taints and machine.mapped() == [2003]


def test_the_link_names_why_the_boot_did_not_arm_it_which_alone_breaks_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine.volumes.parent / "root"
    (root / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr(arming, "why_unarmed", lambda *known: why_unarmed(*known, root))
    mark = machine.state
    assert "every write is tracked" in machine.done("arm", "data"), "still in time"
    save_state(machine.state_dir, mark)
    run("tune2fs", "-L", "changed", machine.disk)
    words = "(it was not armed before its mount: pydbt-arm@data.service is not enabled)"
    assert words in machine.done("arm", "data") and words in machine.state.record(1).taints[0]["reason"]


def test_the_names_of_the_device_are_kept_for_the_next_boot_and_a_folder_that_takes_none_stops_nothing(
    machine: Machine,
) -> None:
    kept = machine.volumes / "data.names"
    for word in ("arm", "disarm"):
        machine.done(word, machine.disk)
        assert f"name {machine.disk}\n" in kept.read_text(), word
        kept.unlink()
    kept.mkdir()
    for word in ("arm", "disarm"):
        machine.done(word, "data")


def test_each_wrong_word_is_one_sentence(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.volumes / "rep.toml").write_text(
        '[secondary]\ntarget = "/x.img"\nlisten = "10.0.0.2:7790"\ninsecure = true\n'
    )
    for word in ("arm", "disarm"):
        machine.run(word).refused(2, "name the volume")
        machine.run(word, "nothing-like-it").refused(2, "nothing-like-it is neither a volume in", "nor a device")
        machine.run(word, "dta").refused(2, "dta", "data")
        machine.run(word, "rep").refused(2, "rep is a replica")
        machine.run(word, "/dev/pydbt-none").refused(2, "does not exist")
    (machine.volumes / "data.toml").unlink()
    for word in ("arm", "disarm"):
        machine.run(word, machine.disk).refused(2, "is not the SOURCE of a volume", "--state DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for word in ("arm", "disarm"):
        machine.run(word, machine.disk).refused(3, f"controller {word} must run as root", "sudo")
    assert not machine.pins.exists()


def test_a_volume_that_was_never_replicated_needs_no_arming(machine: Machine) -> None:
    (machine.state_dir / "volume.json").unlink()
    assert "never replicated: the first run copies the blocks in use" in machine.done("arm", "data")
    assert "not armed" in machine.done("disarm", "data")


def test_a_controller_that_runs_needs_no_arming_and_is_not_disarmed(machine: Machine) -> None:
    with ControlServer(machine.state_dir, lambda _, gone: {"role": "primary"}):
        assert "a controller replicates it" in machine.done("arm", "data")
        machine.run("disarm", "data").refused(4, "a controller replicates", "controller down")


def test_another_size_is_refused_and_nothing_is_changed(machine: Machine) -> None:
    before = replace(machine.state, size_bytes=machine.state.size_bytes + BLOCK)
    save_state(machine.state_dir, before)
    machine.run("arm", "data").refused(2, "was kept for a volume of")
    assert machine.state == before and not machine.pins.exists()


@pytest.mark.parametrize("call", [1, 2])
def test_an_arming_that_fails_at_any_write_of_the_state_leaves_the_closing_record(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    calls: list[int] = []

    def fails(place: Path, state: VolumeState) -> None:
        calls.append(1)
        if len(calls) == call:
            raise StateError("the disk is full: make room")
        save_state(place, state)

    with monkeypatch.context() as broken:
        broken.setattr(arming, "save_state", fails)
        broken.setattr(opening, "save_state", fails)
        machine.run("arm", "data").refused(7, "the disk is full")
    assert not machine.pins.exists() and machine.state.clean is not None and machine.mapped() == []
    assert "every write is tracked" in machine.done("arm", "data")


def test_programs_that_a_killed_arming_left_are_taken_away_and_not_trusted(machine: Machine) -> None:
    """The mark alone tells then what was written, and it was made before they were attached."""
    mark = machine.state
    machine.done("arm", "data")
    save_state(machine.state_dir, replace(mark, boot_id=""))
    assert "every write is tracked" in machine.done("arm", "data")
    save_state(machine.state_dir, replace(mark, boot_id=""))
    run("tune2fs", "-L", "changed", machine.disk)
    assert "written after the closing record" in machine.done("arm", "data")
    assert machine.state.record(1).taints[0]["reason"].endswith("while nothing tracked it")
    assert not machine.map.exists(), "a map that lacks blocks"


def test_a_mark_that_cannot_be_written_leaves_the_volume_armed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.done("arm", "data")
    machine.write(77)

    def fails(*_: object) -> None:
        raise StateError("the disk is full: make room")

    for name in ("merge_into_maps", "save_state"):
        with monkeypatch.context() as broken:
            broken.setattr(end_tracking, name, fails)
            machine.run("disarm", "data").refused(7, "the disk is full")
        assert "nothing to do" in machine.done("arm", "data"), "the programs are still there, and trusted"
    machine.done("disarm", "data")
    assert machine.mapped() == [77]


def test_a_kill_between_the_mark_and_the_end_of_tracking_loses_no_later_write(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.done("arm", "data")
    machine.write(77)
    with monkeypatch.context() as killed:
        killed.setattr(end_tracking.Capture, "remove_pins", lambda _: None)
        machine.done("disarm", "data")
    assert machine.state.clean is not None and machine.pins.exists()
    machine.write(78)
    machine.done("disarm", "data")
    assert machine.mapped() == [77, 78]
    clean = machine.state.clean
    assert clean is not None and clean["maps"] == {MAP_FILE_NAME: map_digest(machine.map)}


def test_a_tainted_volume_gets_no_mark(machine: Machine) -> None:
    """Its comparison has not ended: a later run would take the maps for complete."""
    save_state(machine.state_dir, replace(machine.state, clean=None))
    assert "no closing record was written" in machine.done("arm", "data")
    assert "compares the whole volume (writes may have gone untracked" in machine.done("disarm", "data")
    assert machine.state.clean is None


@pytest.mark.parametrize("was_armed", [True, False])
def test_programs_past_which_the_kernel_has_counted_a_write_give_no_mark_and_no_figure(
    machine: Machine, was_armed: bool
) -> None:
    """Armed, or left by a run that was killed. A record of fewer sectors stands for a write that capture did not see."""
    machine.done("arm", "data")
    state = machine.state if was_armed else without_arming(machine.state)
    assert state.audit is not None and state.audit["offset_sectors"] is not None, "the arming has kept the counts"
    save_state(machine.state_dir, state)
    write_saved_status(machine.state_dir, {"role": "primary", "secondaries": [{"secondary": "10.0.0.2:7790"}]})

    def figure() -> object:
        return json.loads(machine.run("status", "data", "--json").output)["out_of_sync_bytes"]

    machine.write(2003)
    assert figure() == BLOCK
    save_state(
        machine.state_dir, replace(state, audit={**state.audit, "offset_sectors": state.audit["offset_sectors"] - 8})
    )
    assert figure() is None
    said = machine.done("disarm", "data") if was_armed else machine.done("down", machine.disk)
    assert "compares the whole volume (the programs missed 8 sectors of writes" in said
    assert machine.state.clean is None and not machine.pins.exists()
