"""Whose a block is: the file that really lies there, in any mount namespace, or unknown; never another file."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.units import MIB
from pydbt.device.block_owner import owner_of
from pydbt.device.fsmap import free_parts, map_records, mount_with_map, open_mount
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import image, loop_over, mounted, mounted_elsewhere
from tests.lab.files import place_of
from tests.lab.patience import run

RMAP = ["mkfs.xfs", "-q", "-f", "-m", "rmapbt=1,reflink=1"]
KINDS = {
    "xfs with reverse mapping": RMAP,
    "xfs": ["mkfs.xfs", "-q", "-f", "-m", "rmapbt=0"],
    "ext4": ["mkfs.ext4", "-q"],
}


@pytest.fixture
def volume(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BlockDevice]:
    with loop_over(image(tmp_path / "a", 400 * MIB)) as path:
        run(*getattr(request, "param", RMAP), path)
        yield BlockDevice.identify(path)


def write(file: Path, size: int = MIB) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(os.urandom(size))
    os.sync()
    return file


def test_a_file_s_block_names_the_file_its_extent_and_the_place_in_it(volume: BlockDevice, tmp_path: Path) -> None:
    with mounted(volume.path, tmp_path / "mount") as point:
        file = write(point / "dir" / "wanted")
        write(point / "other")
        place = place_of(file, 3)
        found = owner_of(volume, place + 5)
        assert found.file == str(file)
        assert found.extent_bytes is not None and found.extent_bytes[0] <= place < sum(found.extent_bytes)
        size = os.statvfs(file).f_bsize
        assert found.why == f"byte {3 * size + 5} of it; inode {file.stat().st_ino}"


def test_a_hostile_name_is_printable(volume: BlockDevice, tmp_path: Path) -> None:
    with mounted(volume.path, tmp_path / "mount") as point:
        file = write(point / os.fsdecode(b"\x1b[31m<b>\n\xff"))
        told = owner_of(volume, place_of(file)).file
        assert told is not None and told.isprintable() and told.endswith("<b>\\x0a\\udcff")


def test_a_file_without_a_known_name_has_its_inode_and_one_that_was_removed_has_no_other_s_name(
    volume: BlockDevice, tmp_path: Path
) -> None:
    with mounted(volume.path, tmp_path / "mount") as point:
        file = write(point / "file")
        place, inode = place_of(file), file.stat().st_ino
        with open(file, "rb"):
            file.unlink()
            write(point / "file", 4096)
            found = owner_of(volume, place)
            assert found.file == f"inode {inode}" and "its name is unknown" in found.why


def test_a_file_in_another_mount_namespace_has_the_name_that_it_has_there(volume: BlockDevice, tmp_path: Path) -> None:
    with mounted_elsewhere(volume.path, tmp_path / "there") as point:
        file = write(point / "file")
        assert owner_of(volume, place_of(file)).file == str(tmp_path / "there" / "file")


@pytest.mark.parametrize(
    ("volume", "words"), [(KINDS["xfs"], "made without reverse mapping"), (KINDS["ext4"], "ext4 ")], indirect=["volume"]
)
def test_where_the_file_system_keeps_no_way_back_a_file_is_unknown(
    volume: BlockDevice, tmp_path: Path, words: str
) -> None:
    with mounted(volume.path, tmp_path / "mount") as point:
        file = write(point / "file")
        found = owner_of(volume, place_of(file))
        assert (found.extent_bytes, found.file) == (None, None)
        assert found.why.startswith("unknown: ") and words in found.why


def test_free_space_and_metadata_are_no_file_s(volume: BlockDevice, tmp_path: Path) -> None:
    with mounted(volume.path, tmp_path / "mount") as point:
        write(point / "file")
        assert owner_of(volume, 0).why == "metadata of the file system: superblocks and headers"
        found = owner_of(volume, volume.size_bytes - 100 * 4096)
        assert (found.file, found.why) == (None, "free space of the file system")


def test_without_a_file_system_it_is_unknown(volume: BlockDevice) -> None:
    found = owner_of(volume, 4096)
    assert (found.extent_bytes, found.file) == (None, None) and found.why.startswith(
        "unknown: no ext4 or XFS is mounted"
    )


@pytest.mark.parametrize("volume", KINDS.values(), ids=KINDS, indirect=True)
def test_the_free_space_of_a_part_is_that_of_the_whole(volume: BlockDevice, tmp_path: Path) -> None:
    chosen = random.Random(1)
    with mounted(volume.path, tmp_path / "mount") as point:
        for number in range(120):
            (point / f"file{number}").write_bytes(os.urandom(chosen.choice([100, 5000, 70_000, 300_000])))
        os.sync()
        for number in range(0, 120, 3):
            (point / f"file{number}").unlink()
    with mounted(volume.path, tmp_path / "mount"):  # again: XFS frees what was removed by and by
        descriptor, _ = open_mount(volume, mount_with_map(volume))
        try:
            whole = free_grid(descriptor, volume, 0, volume.size_bytes)
            for _ in range(20):
                first = chosen.randrange(volume.size_bytes // 4096) * 4096
                end = min(volume.size_bytes, first + 4096 * chosen.choice([1, 25, 1000, 10_000]))
                part = free_grid(descriptor, volume, first, end)
                assert np.array_equal(part, whole[first // 1024 : end // 1024])
        finally:
            os.close(descriptor)


def free_grid(descriptor: int, device: BlockDevice, first: int, end: int) -> np.ndarray:
    """Of each KiB of the part whether it is free."""
    grid = np.zeros(device.size_bytes // 1024, bool)
    last = None if (first, end) == (0, device.size_bytes) else end - 1
    for records in map_records(descriptor, device, first, last):
        for begin, length in free_parts(records).tolist():
            grid[begin // 1024 : (begin + length) // 1024] = True
    return grid[first // 1024 : end // 1024]
