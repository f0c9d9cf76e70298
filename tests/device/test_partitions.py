"""The partitions of a target are gone while it is held, cannot come back meanwhile, and are read again afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.errors import BusyError, DeviceError, UsageError
from pydbt.core.units import MIB
from pydbt.device.hold import HeldDevice
from pydbt.device.partitions import read_partitions_again, remove_partitions
from pydbt.device.sysfs import BlockDevice
from pydbt.device.target import Target
from tests.lab.disks import Device, image, loop_device, make_filesystem, mounted, partition_of
from tests.lab.patience import run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Device]:
    """A disk of which the kernel has two partitions, as if it had read a table. (This kernel may read none.)"""
    with loop_device(tmp_path, 64 * MIB, partitions=True) as device:
        for number, start_sector in ((1, 2048), (2, 43008)):
            run("addpart", device, number, start_sector, 16384)
        assert numbers(device) == [1, 2]
        yield device


def numbers(disk: Device) -> list[int | None]:
    return [part.partition for part in BlockDevice.identify(disk).partitions()]


def test_a_target_has_no_partitions_while_it_is_one_and_the_kernel_does_not_read_them_again(disk: Device) -> None:
    target = Target(str(disk))
    try:
        assert numbers(disk) == []
        assert not read_partitions_again(disk), "it is held"
        assert numbers(disk) == []
    finally:
        target.close()
    assert read_partitions_again(disk), "it is not held any more"


def test_a_partition_that_is_in_use_stays(disk: Device, tmp_path: Path) -> None:
    run("delpart", disk, 1)
    with partition_of(disk, 1, 2048, 40960) as part:
        make_filesystem("ext4", part)
        with mounted(part, tmp_path / "mount"):
            descriptor = os.open(disk, os.O_RDONLY)
            try:
                assert remove_partitions(descriptor) == [2]
            finally:
                os.close(descriptor)
            assert numbers(disk) == [1]


def test_nothing_else_than_a_disk_has_partitions(tmp_path: Path, disk: Device) -> None:
    with image(tmp_path / "file", MIB).open() as file:
        assert remove_partitions(file.fileno()) == []
    assert not read_partitions_again(tmp_path / "missing") and not read_partitions_again(tmp_path / "file")


def test_a_device_is_held_without_a_way_to_write_to_it(disk: Device) -> None:
    held = HeldDevice(str(disk))
    try:
        assert numbers(disk) == [] and not held.is_gone
        with pytest.raises(OSError, match="busy"):
            os.open(disk, os.O_RDWR | os.O_EXCL)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(held.descriptor, bytes(512), 0)
        with pytest.raises(BusyError, match="in use"):
            HeldDevice(str(disk))
    finally:
        held.close()
    os.close(os.open(disk, os.O_RDWR | os.O_EXCL))


@pytest.mark.parametrize(("name", "kind"), [("file", UsageError), ("missing", DeviceError)])
def test_a_path_that_is_no_device_is_not_held(tmp_path: Path, name: str, kind: type[Exception]) -> None:
    image(tmp_path / "file", MIB)
    with pytest.raises(kind):
        HeldDevice(str(tmp_path / name))
