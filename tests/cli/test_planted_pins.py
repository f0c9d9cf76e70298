"""Files that another user put in the place of pinned programs: root removes nothing behind them, and reports nothing untrue."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pydbt.cli import overview
from pydbt.cli.group import execute
from pydbt.controller import pinned, registry
from pydbt.controller.primary import leftover
from pydbt.core.errors import MachineError, UsageError
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel import pins
from pydbt.store.volume_state import create_state, save_state
from tests.lab.programs import ROOT, Outcome

NOBODY = 65534
VOLUME = "ab" * 16


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of root's; what it holds has names as pins have."""
    place = tmp_path / "victim"
    (place / VOLUME).mkdir(parents=True)
    for name in ("precious", "meta", "link_submit"):
        (place / name).touch()
        (place / VOLUME / name).touch()
    return place


def whole(victim: Path) -> bool:
    return sorted(os.listdir(victim / VOLUME)) == ["link_submit", "meta", "precious"] and len(os.listdir(victim)) == 4


def give(place: Path) -> Path:
    os.chown(place, NOBODY, NOBODY, follow_symlinks=False)
    return place


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the pins of this machine would be, which has no controller."""
    monkeypatch.setattr(registry, "RUN_DIR", tmp_path / "run")
    monkeypatch.setattr(overview, "STATE_ROOT", tmp_path / "lib")
    for module in (pinned, leftover, overview):
        monkeypatch.setattr(module, "PINS", tmp_path / "pins")
    return tmp_path / "pins"


def planted_link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)
    give(place)


def planted_folder(place: Path, victim: Path) -> None:
    place.mkdir()
    give(place)
    for name in (VOLUME, f"{VOLUME}-next"):
        (place / name).symlink_to(victim)
        give(place / name)
    (place / "empty").mkdir()
    give(place / "empty")


PLANTED = pytest.mark.parametrize("plant", [planted_link, planted_folder])
Plant = Callable[[Path, Path], None]


def test_nothing_is_removed_behind_a_link_in_the_place_of_pins(tmp_path: Path, victim: Path) -> None:
    for link in (tmp_path / "theirs", tmp_path / "own"):
        link.symlink_to(victim)
    give(tmp_path / "theirs")
    for place in (tmp_path / "theirs", tmp_path / "own", tmp_path / "theirs" / VOLUME):
        with pytest.raises(MachineError, match=f"{place}.*not safe from other users.*remove it and start again"):
            pins.remove_pins(place)
        with pytest.raises(MachineError):
            pins.read_raw_meta(place)
        assert whole(victim), place


def test_nothing_is_removed_in_a_folder_of_another_user(tmp_path: Path, victim: Path) -> None:
    give(victim)
    for place in (victim, victim / VOLUME):
        with pytest.raises(MachineError, match=f"user {NOBODY}"):
            pins.remove_pins(place)
    assert whole(victim)


def test_a_folder_that_was_exchanged_between_its_opening_and_the_look_at_its_way_is_left_alone(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "volume"
    victim.rename(place)
    (tmp_path / "new").mkdir()

    def exchanging(*_: object) -> str:
        place.rename(victim)
        (tmp_path / "new").rename(place)
        return ""

    monkeypatch.setattr(pins, "folder_intruder", exchanging)
    with pytest.raises(MachineError, match="exchanged just now"):
        pins.remove_pins(place)
    assert whole(victim) and place.exists()


def test_own_pins_are_removed_and_none_are_no_error(tmp_path: Path) -> None:
    place = tmp_path / "volume"
    place.mkdir()
    for name in ("meta", "bits", "link_submit"):
        (place / name).touch()
    pins.remove_pins(place)
    assert not place.exists()
    pins.remove_pins(place)
    assert pins.read_raw_meta(place) is None


@PLANTED
def test_no_command_takes_what_another_user_planted_for_programs(
    machine: Path, victim: Path, capsys: pytest.CaptureFixture[str], plant: Plant
) -> None:
    plant(machine, victim)
    assert leftover.pinned_programs() == []
    with pytest.raises(UsageError, match="no programs of a volume"):
        leftover.detach_pinned(VOLUME)
    Outcome(execute(["status"]), *capsys.readouterr()).refused(9, "no volume and no replica is known")
    Outcome(execute(["down", "--volume", VOLUME]), *capsys.readouterr()).refused(2, "no programs of a volume")
    assert execute(["down", "--all"]) == 0
    assert capsys.readouterr().out == "nothing was running\n"
    assert whole(victim) and os.path.lexists(machine)


@PLANTED
def test_a_volume_is_not_called_tracked_for_what_another_user_planted(
    machine: Path, victim: Path, tmp_path: Path, disk: str, plant: Plant
) -> None:
    device = BlockDevice.identify(disk)
    state, state_dir = create_state(device, 4096), tmp_path / "state"
    state_dir.mkdir()
    save_state(state_dir, state)
    (victim / VOLUME).rename(victim / state.uuid.hex)
    plant(machine, victim)
    if plant is planted_folder:
        (machine / state.uuid.hex).symlink_to(victim)
    assert not leftover.is_tracked(state_dir)
    assert not leftover.detach_leftover(state_dir)
    leftover.warn_of_others(machine / VOLUME, device)
    assert (victim / "precious").exists() and (victim / state.uuid.hex / "precious").exists()


def test_where_others_may_write_it_is_unknown_which_programs_there_are(
    machine: Path, tmp_path: Path, disk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine / VOLUME).mkdir(parents=True)
    machine.chmod(0o777)
    words = ("unknown which programs are in the kernel", "chmod go-w")
    code = execute(["status"])
    listed = capsys.readouterr().out
    assert code == 9 and all(part in listed for part in words)
    Outcome(execute(["down", "--all"]), *capsys.readouterr()).refused(3, *words)
    code = execute(["down", disk])
    Outcome(code, *capsys.readouterr()).refused(3, *words)
    assert (machine / VOLUME).exists()
    machine.chmod(0o755)
    assert [one.name for one in leftover.pinned_programs()] == [VOLUME]


def test_only_a_folder_that_nobody_of_ours_can_have_had_counts_as_planted(machine: Path) -> None:
    machine.mkdir()
    give(machine)
    assert pinned.pinned_names() == []
    machine.parent.chmod(0o777)  # here its maker may have taken away ours
    try:
        with pytest.raises(MachineError, match="unknown which programs"):
            pinned.pinned_names()
    finally:
        machine.parent.chmod(0o700)


def test_wherever_bpffs_is_mounted_by_advice_or_script_nobody_else_may_make_folders_in_it() -> None:
    files = [
        ROOT / "README.md",
        *(file for top in ("docs", "scripts", "pydbt", "tests") for file in (ROOT / top).rglob("*")),
    ]
    found = 0
    for file in files:
        if file.suffix in (".md", ".py", ".sh", "") and file.is_file() and file != Path(__file__):
            for line in file.read_text(errors="replace").splitlines():
                if re.search(r"""mount\W+-t\W+bpf\b(?!"\))""", line):
                    found += 1
                    assert "mode=0700" in line, f"{file}: {line}"
    assert found >= 4
