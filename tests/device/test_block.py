"""A direct read returns the content of the device, whole, or raises one sentence."""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path

import pytest

from pydbt.core.errors import DeviceError
from pydbt.core.units import MIB
from pydbt.device.block import DirectReader, aligned_buffer
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import image, loop_over, mounted, partition_of
from tests.lab.patience import run


def _random_extents(size_bytes: int, grain: int, count: int) -> list[tuple[int, int]]:
    source = random.Random(7)
    extents = []
    for _ in range(count):
        first = source.randrange(0, size_bytes, grain)
        length = min(source.choice([grain, 4096, 65536, 3 * MIB]), size_bytes - first)
        extents.append((first, length))
    return [*extents, (0, size_bytes), (size_bytes - grain, grain)]


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("shift", [0, 8])
def test_every_extent_reads_as_the_image_behind_the_device(tmp_path: Path, sector: int, shift: int) -> None:
    """Aligned or not to the device's sectors, in aligned memory or not, up to an end that is no multiple of 4 KiB.

    Behind the last whole sector of 4096 bytes nobody can read or write; it counts as zeroes.
    """
    file = image(tmp_path / "a", 8 * MIB + 7 * 512, seed=1)
    whole = file.stat().st_size // sector * sector
    content = file.read_bytes()[:whole] + bytes(file.stat().st_size - whole)
    with loop_over(file, "--sector-size", str(sector)) as path, DirectReader(BlockDevice.identify(path)) as reader:
        buffer = aligned_buffer(len(content) + 8)[shift:]
        for first, length in _random_extents(reader.size_bytes, 512, 40):
            reader.read_extent(first, length, buffer)
            assert bytes(buffer[:length]) == content[first : first + length], (first, length)
        reader.check()


def test_a_partition_reads_from_its_own_beginning(tmp_path: Path) -> None:
    file = image(tmp_path / "a", 4 * MIB, seed=2)
    with loop_over(file) as disk, partition_of(disk, 1, 2049, 1001) as path:
        content = file.read_bytes()[2049 * 512 : (2049 + 1001) * 512]
        with DirectReader(BlockDevice.identify(path)) as reader:
            assert reader.size_bytes == len(content)
            buffer = aligned_buffer(len(content))
            reader.read_extent(0, len(content), buffer)
            assert bytes(buffer) == content


def test_a_last_block_that_reaches_beyond_the_device_ends_in_zeroes(tmp_path: Path) -> None:
    file = image(tmp_path / "a", MIB + 512, seed=3)
    with loop_over(file) as path, DirectReader(BlockDevice.identify(path)) as reader:
        buffer = aligned_buffer(8192)
        buffer[:] = b"\xff" * 8192
        reader.read_extent(MIB, 4096, buffer)
        assert bytes(buffer[:4096]) == file.read_bytes()[MIB:] + bytes(3584)
        assert bytes(buffer[4096:]) == b"\xff" * 4096
        with pytest.raises(ValueError):
            reader.read_extent(MIB + 512, 512, buffer)


def test_a_read_sees_what_the_mounted_file_system_wrote_although_the_cache_is_older(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 32 * MIB)) as path:
        run("mkfs.ext4", "-q", path)
        with mounted(path, tmp_path / "mount") as point, DirectReader(BlockDevice.identify(path)) as reader:
            with open(path, "rb") as buffered:
                buffered.read()  # the device's own page cache holds all of it now
            mark = os.urandom(4096)
            (point / "file").write_bytes(mark)
            os.sync()
            buffer = aligned_buffer(reader.size_bytes)
            reader.read_extent(0, reader.size_bytes, buffer)
            assert mark in bytes(buffer)


def test_a_resized_device_is_reported_with_both_sizes(tmp_path: Path) -> None:
    file = image(tmp_path / "a", 2 * MIB)
    with loop_over(file) as path, DirectReader(BlockDevice.identify(path)) as reader:
        os.truncate(file, 3 * MIB)
        run("losetup", "--set-capacity", path)
        with pytest.raises(DeviceError, match=f"resized from {2 * MIB} to {3 * MIB} bytes"):
            reader.check()


def test_a_process_without_a_free_descriptor_takes_no_device_for_one_that_has_vanished(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 2 * MIB)) as path, DirectReader(BlockDevice.identify(path)) as reader:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            reader.check()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        reader.check()


def test_a_device_that_lost_its_medium_has_vanished(tmp_path: Path) -> None:
    file = image(tmp_path / "a", 2 * MIB)
    with loop_over(file) as path, DirectReader(BlockDevice.identify(path)) as reader:
        os.truncate(file, 0)
        run("losetup", "--set-capacity", path)
        with pytest.raises(DeviceError, match="vanished"):
            reader.check()
        with pytest.raises(DeviceError, match="vanished"):
            reader.read_extent(MIB, 4096, aligned_buffer(4096))


def test_a_device_identified_before_it_was_detached_is_not_read(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 2 * MIB)) as disk:
        with partition_of(disk, 1, 2048, 8) as path:
            device = BlockDevice.identify(path)
        with pytest.raises(DeviceError, match="vanished"):
            DirectReader(device)


def test_a_read_error_names_the_device_and_the_place(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 400 * MIB)) as lower:
        run("mkfs.xfs", "-q", lower)
        with mounted(lower, tmp_path / "mount") as point:
            file = image(point / "b", 4 * MIB, seed=4)
            with loop_over(file, "--direct-io=on") as path, DirectReader(BlockDevice.identify(path)) as reader:
                run("xfs_io", "-x", "-c", "shutdown", point)
                with pytest.raises(DeviceError, match=f"{path} cannot be read at byte {MIB}: "):
                    reader.read_extent(MIB, 65536, aligned_buffer(65536))
