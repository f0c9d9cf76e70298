"""Files and control groups are found by the kernel's numbers, and never under another name than their own."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from pydbt.core.units import MIB
from pydbt.device.file_handles import MountPoint, group_mount, path_of_file, path_of_group
from pydbt.device.mounts import mount_id_of
from pydbt.device.sysfs import BlockDevice
from pydbt.device.written_places import kernel_number, written_places
from tests.lab.disks import loop_device, make_filesystem, mounted, partition_of

_FS_IOC_GETVERSION = 0x80087601  # linux/fs.h


def generation_of(path: Path) -> int:
    with path.open("rb") as file:
        raw = fcntl.ioctl(file, _FS_IOC_GETVERSION, bytes(8))
    return int(struct.unpack("<I", raw[:4])[0])


def point_of(folder: Path) -> MountPoint:
    number = mount_id_of(folder)
    assert number is not None
    return MountPoint(str(folder), number)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_is_found_by_its_inode_and_generation_alone(tmp_path: Path, kind: str) -> None:
    with loop_device(tmp_path, 320 * MIB) as device:
        make_filesystem(kind, device)
        with mounted(device, tmp_path / "mounted") as folder:
            file = folder / "a" / "b\n\x1b[1m"
            file.parent.mkdir()
            file.write_bytes(b"x")
            inode, generation, point = file.stat().st_ino, generation_of(file), point_of(folder)
            assert path_of_file(point, inode, generation) == os.fsencode(file)
            assert path_of_file(point, inode, generation + 1) is None, "another file that had this inode"
            assert path_of_file(point, 999_999, 1) is None
            file.rename(folder / "renamed")
            assert path_of_file(point, inode, generation) == os.fsencode(folder / "renamed")
            with (folder / "renamed").open("rb"):
                (folder / "renamed").unlink()
                found = path_of_file(point, inode, generation)
                assert found is None or found.endswith(b" (deleted)")
            assert path_of_file(point, inode, generation) is None


def test_another_file_system_that_lies_over_the_place_is_not_asked(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, loop_device(tmp_path, 64 * MIB) as other:
        for one in (device, other):
            make_filesystem("ext4", one)
        with mounted(device, tmp_path / "mounted") as folder:
            (folder / "file").write_bytes(b"x")
            inode, generation, point = (folder / "file").stat().st_ino, generation_of(folder / "file"), point_of(folder)
            with mounted(other, folder):
                (folder / "elsewhere").write_bytes(b"x")
                assert path_of_file(point, inode, generation) is None


def test_a_control_group_is_found_by_its_number_and_not_when_it_is_gone() -> None:
    mount = group_mount()
    assert mount is not None, "control groups of version 2 are mounted nowhere"
    group = Path(mount) / f"pydbt-test-{os.getpid()}-found"
    group.mkdir()
    try:
        number = group.stat().st_ino
        assert path_of_group(mount, number) == b"/" + os.fsencode(group.name)
    finally:
        group.rmdir()
    assert path_of_group(mount, number) is None
    assert path_of_group(mount, Path(mount).stat().st_ino) == b"/"
    assert path_of_group("/nowhere", number) is None


def test_the_devices_on_a_volume_are_told_with_their_mount_points(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as disk, partition_of(disk, 1, 2048, 65536) as partition:
        numbers = [
            kernel_number(os.major(one), os.minor(one))
            for one in (disk.path.stat().st_rdev, partition.path.stat().st_rdev)
        ]
        places = written_places(BlockDevice.identify(disk.path))
        assert places.mounted == dict.fromkeys(numbers, False) and places.points == {}
        make_filesystem("ext4", partition)
        with mounted(partition, tmp_path / "mounted") as folder:
            places = written_places(BlockDevice.identify(disk.path))
            assert places.mounted == {numbers[0]: False, numbers[1]: True}
            assert places.points == {numbers[1]: point_of(folder)}
            assert written_places(BlockDevice.identify(partition.path)).mounted == {numbers[1]: True}
