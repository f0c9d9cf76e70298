"""A device whose memory is mapped past the block layer is no SOURCE, unless its file systems rule that out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.errors import UsageError
from pydbt.core.units import MIB
from pydbt.device import dax
from pydbt.device.checks import check_source
from pydbt.device.dax import unseen_stores
from pydbt.device.mounts import Mount, read_mounts
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import Device, loop_device, make_filesystem, mounted, mounted_out_of_reach


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """A disk that says of itself what a persistent memory says; it cannot really be mapped."""
    told = dax.read_entry
    monkeypatch.setattr(dax, "read_entry", lambda path: "1" if path.name == "dax" else told(path))
    with loop_device(tmp_path, 64 * MIB) as device:
        make_filesystem("ext4", device)
        yield device


def mounted_with(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Every mount shows these options as well: a disk without DAX takes none of them."""

    def shown() -> list[Mount]:
        return [
            Mount(m.mount_id, m.major, m.minor, m.point, m.options, m.fs_type, m.source, (*m.super_options, *options))
            for m in read_mounts()
        ]

    monkeypatch.setattr(dax, "every_mount", shown)


@pytest.mark.parametrize("options", [(), ("dax",), ("dax=always",), ("dax=inode",)])
def test_every_mount_that_does_not_rule_it_out_is_refused_the_default_as_well(
    disk: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    with mounted(disk, tmp_path / "mount") as point:
        mounted_with(monkeypatch, *options)
        with pytest.raises(UsageError, match="dax=never") as caught:
            check_source(disk, tmp_path / "state")
        assert str(point) in str(caught.value) and len(str(caught.value)) < 300
        assert unseen_stores(BlockDevice.identify(disk), at_start=False)


def test_a_mount_that_rules_it_out_and_a_disk_that_is_not_mounted_are_accepted(
    disk: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_source(disk, tmp_path / "state")
    with mounted(disk, tmp_path / "mount"):
        mounted_with(monkeypatch, "dax=never")
        check_source(disk, tmp_path / "state")


def test_a_mount_that_cannot_be_read_is_refused(disk: Device, tmp_path: Path) -> None:
    with mounted_out_of_reach(disk, tmp_path / "nowhere"), pytest.raises(UsageError, match="cannot be read"):
        check_source(disk, tmp_path / "state")


def test_a_disk_without_it_may_be_mounted_in_any_way(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as device:
        make_filesystem("ext4", device)
        with mounted(device, tmp_path / "mount"):
            assert unseen_stores(BlockDevice.identify(device), at_start=True) == ""
