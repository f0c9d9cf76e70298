"""A check of the configuration warns of what would take a target, and of both sides on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.cli.taken_targets import warnings_about
from pydbt.cli.volume_files import VolumeFile, read_volume
from pydbt.core.units import MIB
from tests.lab.disks import Device, loop_device, partition_of


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Device]:
    with loop_device(tmp_path, 32 * MIB) as device:
        yield device


def configured(tmp_path: Path, name: str, text: str) -> VolumeFile:
    path = tmp_path / f"{name}.toml"
    path.write_text(text)
    return read_volume(path)


def replica(tmp_path: Path, target: object) -> VolumeFile:
    state = tmp_path / "state"
    return configured(
        tmp_path, "data", f'[secondary]\ntarget = "{target}"\nlisten = "10.0.0.2:7790"\nstate = "{state}"\n'
    )


@pytest.fixture(autouse=True)
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDBT_VOLUMES", str(tmp_path))


def about(volumes: list[VolumeFile], root: Path) -> list[str]:
    return [words for _, words in warnings_about(volumes, root)]


def test_a_line_that_names_the_target_or_a_partition_of_it_is_told(tmp_path: Path, disk: Device) -> None:
    (tmp_path / "etc/mdadm").mkdir(parents=True)
    with partition_of(disk, 1, 2048, 20480) as part:
        (tmp_path / "etc/fstab").write_text(f"UUID=none / ext4\n{part} /srv ext4 defaults 0 2\n")
        (tmp_path / "etc/crypttab").write_text(f"secret {disk} none luks\n")
        (tmp_path / "etc/mdadm/mdadm.conf").write_text("ARRAY /dev/md0 devices=/dev/null\n")
        found = about([replica(tmp_path, disk)], tmp_path)
    assert len(found) == 2
    assert f"/etc/fstab line 2, {part}" in found[0] and f"/etc/crypttab line 1, {disk}" in found[1]
    assert "data.toml line 2" in found[0]


def test_lines_of_other_disks_and_image_files_cause_no_warning(tmp_path: Path, disk: Device) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fstab").write_text("/dev/null /srv ext4\n")
    assert about([replica(tmp_path, disk)], tmp_path) == []
    assert about([replica(tmp_path, tmp_path / "image")], tmp_path) == []


def test_a_target_that_is_named_by_its_content_is_told(
    tmp_path: Path, disk: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_block_device", lambda path: True)
    found = about([replica(tmp_path, "/dev/disk/by-uuid/pydbt-test-none")], tmp_path)
    assert len(found) == 1 and "what SOURCE carries" in found[0]


def test_both_sides_on_one_machine_are_told(tmp_path: Path) -> None:
    volume = configured(tmp_path, "here", '[run]\nsource = "/dev/a"\nsecondary = ["10.0.0.2:7790", "10.0.0.3:7790"]\n')
    found = about([volume, replica(tmp_path, tmp_path / "image")], tmp_path)
    assert len(found) == 1 and "same machine" in found[0] and "here.toml line 3" in found[0]
    assert about([volume], tmp_path) == []
