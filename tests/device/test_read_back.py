"""A target that is a loop device: data that its file did not take is an error, though the kernel tells of none."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.blocks.apply_plan import PlannedWrites
from pydbt.core.errors import DeviceError, MediumError
from pydbt.device.read_back import NotTaken, ReadBack
from pydbt.device.target import Target
from pydbt.posix import libc
from tests.lab.disks import Device, crowded_loop, loop_device

MIB = 1 << 20
BLOCK = 4096


def write(target: Target, offset: int, data: bytes) -> None:
    columns = (np.array([value], np.int64) for value in (offset // 512, len(data) // 512, 0))
    target.write_runs(PlannedWrites(*columns), memoryview(data))


def fill(filler: Path, left_bytes: int) -> None:
    room = os.statvfs(filler.parent)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize - left_bytes))


@pytest.mark.parametrize("careful", [False, True])
def test_data_that_the_file_of_a_loop_device_did_not_take_is_an_error_of_the_target(
    tmp_path: Path, careful: bool
) -> None:
    with crowded_loop(tmp_path, 4 * MIB, 8 * MIB) as (device, filler):
        target = Target(str(device.path))
        try:
            if careful:
                target.be_careful()
            data = os.urandom(16 * BLOCK)
            write(target, 0, data)
            fill(filler, 5 * BLOCK)
            with pytest.raises(DeviceError, match=r"cannot be written at byte .*is not there|No space left") as found:
                write(target, 32 * BLOCK + 512, data)
            assert not isinstance(found.value, MediumError) and target.failed_at is not None
            with pytest.raises(DeviceError):
                target.try_again()
            filler.unlink()
            target.try_again()
            write(target, 32 * BLOCK + 512, data)
            target.sync()
        finally:
            target.close()
        contents = device.contents()
        assert contents[: len(data)].tobytes() == data
        assert contents[32 * BLOCK + 512 :][: len(data)].tobytes() == data


def test_a_block_that_is_written_through_must_be_there(tmp_path: Path) -> None:
    with crowded_loop(tmp_path, 4 * MIB, 8 * MIB) as (device, filler):
        target = Target(str(device.path))
        try:
            fill(filler, 0)
            with pytest.raises(DeviceError):
                target.write_through(64 * BLOCK, memoryview(os.urandom(BLOCK)))
        finally:
            target.close()


@contextlib.contextmanager
def reading(folder: Path, offset: int, data: bytes) -> Iterator[tuple[ReadBack, Device]]:
    """A reader of a loop device that has this data in its cache."""
    with loop_device(folder, 4 * MIB) as device:
        descriptor = os.open(device.path, os.O_RDWR)
        try:
            assert os.pwrite(descriptor, data, offset) == len(data)
            reader = ReadBack.where_needed(descriptor, os.fstat(descriptor).st_rdev)
            assert reader is not None
            yield reader, device
            reader.close()
        finally:
            os.close(descriptor)


@pytest.mark.parametrize("place", [0, 700_000, 2 * MIB - 1])
def test_the_first_byte_that_differs_is_named(tmp_path: Path, place: int) -> None:
    data = bytearray(os.urandom(2 * MIB))
    offset = 3 * 512
    with reading(tmp_path, offset, bytes(data)) as (reader, _):
        views = [memoryview(data)[:100_000], memoryview(data)[100_000:]]
        reader.require(offset, views)
        data[place] ^= 1
        with pytest.raises(NotTaken) as missing:
            reader.require(offset, views)
        assert missing.value.place == offset + place and missing.value.errno == errno.ENOSPC


def test_beyond_the_end_of_the_device_nothing_is_there(tmp_path: Path) -> None:
    with reading(tmp_path, 0, b"") as (reader, device), pytest.raises(OSError, match="ends before"):
        reader.require(device.size_sectors * 512, [bytes(512)])


def test_a_file_with_all_of_its_room_is_not_read_again_until_it_has_a_hole(tmp_path: Path) -> None:
    with crowded_loop(tmp_path, 4 * MIB, 8 * MIB) as (device, filler):
        disk = filler.parent / "disk.img"
        descriptor = os.open(device.path, os.O_RDWR)
        reader = ReadBack.where_needed(descriptor, os.fstat(descriptor).st_rdev)
        assert reader is not None and reader.is_due
        with disk.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 4 * MIB)
            assert not reader.is_due
            libc.fallocate(file.fileno(), libc.FALLOC_FL_KEEP_SIZE | libc.FALLOC_FL_PUNCH_HOLE, MIB, BLOCK)
            assert reader.is_due
        reader.close()
        os.close(descriptor)


def test_a_file_needs_no_second_look(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert ReadBack.where_needed(file.fileno(), 0) is None
