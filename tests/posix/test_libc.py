"""The calls that ``os`` lacks do what their manual pages promise, and raise OSError as ``os`` does."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from pydbt.posix import libc
from pydbt.posix.boot import boot_id

MIB = 1 << 20


def test_a_failure_is_an_oserror_with_its_number() -> None:
    for call in (
        lambda: libc.syncfs(-1),
        lambda: libc.fallocate(-1, 0, 0, 1),
        lambda: libc.sync_file_range(-1, 0, 0, libc.SYNC_FILE_RANGE_WRITE),
    ):
        with pytest.raises(OSError) as failure:
            call()
        assert failure.value.errno == errno.EBADF
    for call in (lambda: libc.inode_and_birth("/none"), lambda: libc.file_system_magic("/none")):
        with pytest.raises(FileNotFoundError):
            call()


def test_a_hole_reads_as_zeros_and_keeps_the_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MIB)
    descriptor = os.open(path, os.O_RDWR)
    try:
        libc.sync_file_range(descriptor, 0, 0, libc.SYNC_FILE_RANGE_WRITE)
        libc.fallocate(descriptor, libc.FALLOC_FL_KEEP_SIZE | libc.FALLOC_FL_PUNCH_HOLE, 4096, MIB)
        libc.syncfs(descriptor)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.fail("the file system of temporary files makes no holes: set TMPDIR to one that does")
        raise
    finally:
        os.close(descriptor)
    assert path.read_bytes() == b"x" * 4096 + bytes(MIB - 4096)


def test_inode_and_birth_are_those_that_stat_prints(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    inode, birth = libc.inode_and_birth(str(path))
    printed = subprocess.run(["stat", "-c", "%i %W", path], capture_output=True, text=True, check=True).stdout.split()
    assert [inode, birth[0] if birth else 0] == [int(number) for number in printed]
    with path.open() as file:
        assert libc.inode_and_birth(file.fileno()) == (inode, birth)


def test_a_file_system_is_known_by_its_number() -> None:
    assert libc.file_system_magic("/proc") == 0x9FA0  # PROC_SUPER_MAGIC
    assert libc.file_system_magic("/sys") == 0x62656572  # SYSFS_MAGIC


def test_the_boot_has_the_identifier_that_the_kernel_shows() -> None:
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip() and len(boot_id()) == 36
