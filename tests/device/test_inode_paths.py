"""The name of a file by its inode: told when it is that file's, and else unknown."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from pydbt.core.units import MIB
from pydbt.device.inode_paths import InodePaths
from tests.lab.disks import loop_device, make_filesystem, mounted

_GET_VERSION = 0x80087601  # FS_IOC_GETVERSION, include/uapi/linux/fs.h: the inode's generation


def identity(path: Path) -> tuple[int, int, int, int]:
    with path.open("rb") as file:
        generation = struct.unpack("=I", fcntl.ioctl(file, _GET_VERSION, bytes(8))[:4])[0]
        status = os.fstat(file.fileno())
    return os.major(status.st_dev), os.minor(status.st_dev), status.st_ino, generation


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_is_found_renamed_forgotten_and_never_confused_with_its_successor(tmp_path: Path, kind: str) -> None:
    with loop_device(tmp_path, 320 * MIB) as disk:
        make_filesystem(kind, disk)
        with mounted(disk, tmp_path / "mnt") as folder:
            (folder / "deep").mkdir()
            file = folder / "deep" / "name\n\x1b"
            file.write_text("x")
            found = identity(file)
            assert InodePaths().path(*found) == str(file)
            file.rename(folder / "other")
            assert InodePaths().path(*found) == str(folder / "other")
            major, minor, inode, generation = found
            assert InodePaths().path(major, minor, inode, generation + 1) is None, "another file of that number"
            (folder / "other").unlink()
            assert InodePaths().path(*found) is None
            assert InodePaths().path(major, minor, 999_999, 1) is None
            assert InodePaths().path(major, minor, 1 << 40, 1) is None


def test_a_mount_that_is_looked_into_can_be_unmounted(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as disk:
        make_filesystem("ext4", disk)
        paths = InodePaths()
        with mounted(disk, tmp_path / "mnt") as folder:
            (folder / "file").write_text("x")
            found = identity(folder / "file")
            assert paths.path(*found) == str(folder / "file")
        assert paths.path(*found) == str(tmp_path / "mnt" / "file"), "remembered"
        assert InodePaths().path(*found) is None, "and not known to anybody else"


def test_a_file_of_a_mount_on_top_is_not_taken_for_the_hidden_file(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as disk, loop_device(tmp_path, 64 * MIB) as other:
        make_filesystem("ext4", disk)
        make_filesystem("ext4", other)
        with mounted(disk, tmp_path / "mnt") as folder:
            (folder / "file").write_text("x")
            found = identity(folder / "file")
            with mounted(other, tmp_path / "mnt"):
                (folder / "file").write_text("another file of that name")
                assert InodePaths().path(*found) is None


def test_a_file_system_that_is_not_mounted_here() -> None:
    assert InodePaths().path(250, 77, 12, 1) is None
