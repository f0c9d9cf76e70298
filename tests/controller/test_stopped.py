"""The status of a volume that nobody serves: what is out of sync now, or that nobody knows, and never a 0 of old times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pydbt.cli.locate import last_known
from pydbt.controller.control import write_saved_status
from pydbt.controller.primary import stopped
from pydbt.controller.primary.stopped import with_present_figures
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import DeviceError, StateError
from pydbt.core.protocol.divergence import Divergence
from pydbt.device import clean
from pydbt.kernel import replace as kernel_replace
from pydbt.store.map_file import save_map
from pydbt.store.map_image import MapHeader
from pydbt.store.replica_state import save_record
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.target_problem import save_target_problem
from pydbt.store.volume_state import VolumeState, save_state
from tests.controller.volumes import BLOCKS, GEOMETRY
from tests.core.secondary.test_brain import ADOPTED

SAVED = {
    "role": "primary", "mode": "stopped", "replica_state": "outdated", "out_of_sync_bytes": 0, "lag_bytes": 0,
    "lag_seconds": 0.0, "secondaries": [{"secondary": "h:1", "out_of_sync_bytes": 0, "lag_bytes": 0}],
}  # fmt: skip


def words(*blocks: int) -> np.ndarray:
    bits = np.zeros(BLOCKS, bool)
    bits[list(blocks)] = True
    return np.frombuffer(np.packbits(bits, bitorder="little").tobytes(), "<u8")


def dirty(*blocks: int) -> DirtyMap:
    made = DirtyMap(BLOCKS)
    made.set_blocks(np.array(blocks, np.int64))
    return made


class Machine:
    """A volume as a run left it. ``tracked``: the bits of its programs; None when there are no programs."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.tracked: np.ndarray | None = words(2, 5)
        self.untouched, self.disk_sequence = False, 3
        record = SecondaryRecord(1, "h:1", SyncPhase.REPLICATING)
        self.state = VolumeState(
            "ab" * 16, GEOMETRY.size_bytes, 4096, "/dev/x", {}, (record,), boot_id="now", disk_sequence=3
        )
        self.save()
        self.save_map("dirty.map", dirty(1, 2))
        device = SimpleNamespace(disk_sequence=lambda: self.disk_sequence)
        monkeypatch.setattr(kernel_replace, "tracked_words", lambda pins: self.tracked)
        monkeypatch.setattr(stopped, "boot_id", lambda: "now")
        monkeypatch.setattr(stopped, "BlockDevice", SimpleNamespace(identify=lambda path: device))
        monkeypatch.setattr(clean, "is_untouched", lambda marker, *_: bool(marker) and self.untouched)

    def save(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        save_state(self.place, self.state)

    def save_map(self, name: str, blocks: DirtyMap) -> None:
        save_map(self.place / name, MapHeader(self.state.uuid, GEOMETRY), blocks)

    def figure(self) -> int | None:
        status = with_present_figures(self.place, SAVED)
        (own,) = status["secondaries"]
        assert own["out_of_sync_bytes"] == status["out_of_sync_bytes"] == status["lag_bytes"] == own["lag_bytes"]
        assert status["lag_seconds"] is None
        on_its_way = None if own["out_of_sync_bytes"] is None else 0
        assert status["unacknowledged_bytes"] == own["unacknowledged_bytes"] == on_its_way
        figure: int | None = status["out_of_sync_bytes"]
        return figure


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_blocks_that_the_programs_have_tracked_since_are_counted_with_the_map(machine: Machine) -> None:
    assert machine.figure() == 3 * 4096
    assert with_present_figures(machine.place, SAVED)["tracked"] is True


def test_blocks_in_the_stage_of_the_secondary_are_counted_as_well(machine: Machine) -> None:
    machine.save(secondaries=(replace(machine.state.record(1), unfinished=True),))
    machine.save_map("staged.map", dirty(5, 9))
    assert machine.figure() == 4 * 4096


def test_a_block_that_several_secondaries_lack_counts_once(machine: Machine) -> None:
    second = replace(machine.state.record(1), slot=2, address="h:2")
    machine.save(secondaries=(machine.state.record(1), second))
    machine.save_map(second.map_name, dirty(7, 8, 9))  # and 1 and 2 in the other; 2 and 5 in the kernel
    both = [{"secondary": "h:1"}, {"secondary": "h:2"}]
    status = with_present_figures(machine.place, {**SAVED, "secondaries": both})
    assert [one["out_of_sync_bytes"] for one in status["secondaries"]] == [3 * 4096, 5 * 4096]
    assert (status["out_of_sync_bytes"], status["lag_bytes"]) == (6 * 4096, 5 * 4096)


def test_taints_that_were_saved_before_a_kill_are_in_the_status_although_its_file_is_older(machine: Machine) -> None:
    """``status.json`` is up to ten seconds older than ``volume.json``."""
    green = {"tainted": False, "taints": [], "replica_state": "outdated"}
    saved = {**SAVED, **green, "secondaries": [{"secondary": "h:1", **green}, {"secondary": "h:2", **green}]}
    second = replace(machine.state.record(1), slot=2, address="h:2")
    machine.save(secondaries=(machine.state.record(1), second))
    status = with_present_figures(machine.place, saved)
    assert {**status, **green} == status and all({**one, **green} == one for one in status["secondaries"])
    taint = {"reason": "an unknown operation wrote", "since": "2026-01-02T03:04:05Z"}
    machine.save(secondaries=(machine.state.record(1), replace(second, taints=[taint])))
    status = with_present_figures(machine.place, saved)
    first, other = status["secondaries"]
    assert {**first, **green} == first
    for one in (status, other):
        assert one["tainted"] is True and one["taints"] == [taint["reason"]] and one["replica_state"] == "inconsistent"
    told = {**green, "tainted": True, "taints": [taint["reason"]]}
    status = with_present_figures(machine.place, {**saved, **told, "secondaries": [{"secondary": "h:2", **told}]})
    assert status["replica_state"] == "outdated", "it was told with the taint: the replica is that of an earlier moment"
    machine.save(secondaries=(machine.state.record(1), replace(second, phase=SyncPhase.INITIAL)))
    status = with_present_figures(machine.place, saved)
    assert [one["replica_state"] for one in status["secondaries"]] == ["outdated", "inconsistent"]
    assert (status["replica_state"], status["tainted"]) == ("inconsistent", False)
    (machine.place / "volume.json").write_bytes(b"torn")
    status = with_present_figures(machine.place, saved)
    assert status["tainted"] is None and all(one["tainted"] is None for one in status["secondaries"]), "nobody knows"


def arm(machine: Machine, broken: str = "") -> None:
    machine.save(more={"armed": {"since": "2026-01-02T03:04:05+00:00", "attachment": "now 7", "broken": broken}})


def test_an_armed_volume_has_the_mode_armed_while_its_programs_are_there(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert with_present_figures(machine.place, SAVED)["armed"] is None
    arm(machine)
    gap = ""
    monkeypatch.setattr(stopped, "gap_of", lambda state: gap)
    status = with_present_figures(machine.place, SAVED)
    assert (status["mode"], status["armed"]["broken"], status["tainted"]) == ("armed", "", False)
    assert machine.figure() == 3 * 4096
    write_saved_status(machine.place, SAVED)
    assert last_known(machine.place).startswith(
        "; armed since 2026-01-02T03:04:05+00:00: every write is tracked; last known"
    )
    gap = "the device was away"
    status = with_present_figures(machine.place, SAVED)
    assert (status["mode"], status["armed"]["broken"]) == ("stopped", gap) and machine.figure() is None
    assert "the next run compares everything (the device was away)" in last_known(machine.place)


def test_an_armed_volume_names_the_link_that_was_missing_and_nobody_knows_how_much_differs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = "no closing record was written after the last write"
    arm(machine, link)
    taints = [{"reason": f"writes may have gone untracked: {link}", "since": ""}]
    machine.save(secondaries=(replace(machine.state.record(1), taints=taints),))
    monkeypatch.setattr(stopped, "gap_of", lambda state: "")
    write_saved_status(machine.place, SAVED)
    status = with_present_figures(machine.place, SAVED)
    assert (status["mode"], status["armed"]["broken"], status["out_of_sync_bytes"]) == ("armed", link, None)
    assert link in last_known(machine.place) and "TAINTED" in last_known(machine.place)


def test_an_armed_volume_without_a_saved_status_is_still_shown(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert last_known(machine.place) == "", "a volume that is not armed"
    arm(machine)
    monkeypatch.setattr(stopped, "gap_of", lambda state: "")
    assert "last known state: armed, 12.0 KiB out of sync" in last_known(machine.place)


def test_without_programs_the_map_is_the_truth_only_of_a_device_that_nobody_wrote(machine: Machine) -> None:
    machine.tracked = None
    assert machine.figure() is None
    machine.save(clean={"boot_id": "now"})
    assert machine.figure() is None
    machine.untouched = True
    assert machine.figure() == 2 * 4096
    assert with_present_figures(machine.place, SAVED)["tracked"] is False


def test_a_figure_that_nobody_knows_is_none(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.disk_sequence = 4  # it was away
    assert machine.figure() is None
    machine.disk_sequence = 3
    machine.save(boot_id="before")
    assert machine.figure() is None
    machine.save(boot_id="now")
    assert machine.figure() is not None
    (machine.place / "dirty.map").write_bytes(b"torn")
    assert machine.figure() is None
    (machine.place / "dirty.map").unlink()
    assert machine.figure() is None


def test_beside_a_taint_nobody_knows_how_much_differs(machine: Machine) -> None:
    machine.save(
        secondaries=(replace(machine.state.record(1), taints=[{"reason": "an unknown operation", "since": ""}]),)
    )
    assert machine.figure() is None


@pytest.mark.parametrize("error", [StateError("incomplete"), PermissionError("not root")])
def test_bitmaps_that_cannot_be_read_make_it_unknown(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuses(pins: Path) -> None:
        raise error

    monkeypatch.setattr(kernel_replace, "tracked_words", refuses)
    assert machine.figure() is None


def test_a_device_that_is_gone_makes_it_unknown(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str) -> None:
        raise DeviceError("there is no such device")

    monkeypatch.setattr(stopped, "BlockDevice", SimpleNamespace(identify=gone))
    machine.save(clean={"boot_id": "now"})
    assert machine.figure() is None


@pytest.mark.parametrize(("promoted", "mode"), [("", "demoted"), ("2026-01-02T03:04:05Z", "promoted")])
def test_a_volume_that_is_no_primary_any_more_has_the_mode_demoted_or_promoted(
    tmp_path: Path, promoted: str, mode: str
) -> None:
    save_record(tmp_path, replace(ADOPTED, promoted=promoted))
    refused = {"refused": "split-brain", "connection_problem": "make this side the replica with 'controller demote'"}
    secondaries = [{"secondary": "h:1", **refused}]
    status = with_present_figures(tmp_path, {**SAVED, **refused, "secondaries": secondaries})
    assert (status["mode"], status["out_of_sync_bytes"]) == (mode, None)
    for one in (status, *status["secondaries"]):
        assert one["refused"] == one["connection_problem"] == "", "what a person was to do is done"


def test_the_commands_tell_the_figure_of_now_and_why_the_run_ended(machine: Machine) -> None:
    refused = {"refused": "split-brain", "connection_problem": "split brain: both sides were written"}
    write_saved_status(machine.place, {**SAVED, **refused})
    told = last_known(machine.place)
    assert "last known state: stopped, replica outdated, 12.0 KiB out of sync at " in told
    assert told.endswith("; split brain: both sides were written")
    machine.tracked = None
    assert "an unknown amount out of sync" in last_known(machine.place)


def test_the_status_of_a_secondary_is_as_it_was_saved(tmp_path: Path) -> None:
    saved = {"role": "secondary", "mode": "offline", "secondaries": [], "replica_state": "consistent"}
    assert with_present_figures(tmp_path, saved) == {**saved, "handover": None, "divergence": None}
    save_record(tmp_path, ADOPTED)
    assert with_present_figures(tmp_path, saved) == {**saved, "handover": None, "divergence": None}


def test_a_replica_that_was_promoted_is_called_promoted(tmp_path: Path) -> None:
    save_record(tmp_path, replace(ADOPTED, promoted="2026-01-02T03:04:05Z"))
    write_saved_status(tmp_path, {"role": "secondary", "mode": "offline", "replica_state": "consistent"})
    assert last_known(tmp_path) == "; it was promoted at 2026-01-02 03:04:05 UTC", "it is no replica any more"


def test_the_status_of_a_demoted_side_names_the_writes_that_it_alone_has(tmp_path: Path) -> None:
    own = Divergence("alpha", "/dev/x", differing_bytes=8192)
    write_saved_status(tmp_path, {**SAVED, "tainted": True, "taints": ["writes may have gone untracked"]})
    for found, words in ((own, own.choice), (replace(own, differing_bytes=None), "an unknown number of MiB")):
        save_record(tmp_path, replace(ADOPTED, divergence=found))
        told = last_known(tmp_path)
        assert told.startswith("; it was demoted; this side holds ") and words in told and "TAINTED" not in told, told
    for found in (None, replace(own, differing_bytes=0)):
        save_record(tmp_path, replace(ADOPTED, divergence=found))
        assert last_known(tmp_path) == "; it was demoted"


@pytest.mark.parametrize("change", [{"kept_aside": True}, {"consistent": False}])
def test_a_stopped_replica_is_reported_no_better_than_its_state_file(tmp_path: Path, change: dict[str, bool]) -> None:
    """It may have been killed before a status told that its target lacks something."""
    save_record(tmp_path, replace(ADOPTED, **change))
    saved = {"role": "secondary", "mode": "offline", "replica_state": "consistent"}
    assert with_present_figures(tmp_path, saved)["replica_state"] == "inconsistent"


def test_a_stopped_replica_with_a_known_problem_of_its_target_is_inconsistent(tmp_path: Path) -> None:
    save_record(tmp_path, ADOPTED)
    save_target_problem(tmp_path, "TARGET cannot be written at byte 4096")
    saved = {"role": "secondary", "mode": "offline", "replica_state": "consistent"}
    assert with_present_figures(tmp_path, saved)["replica_state"] == "inconsistent"
