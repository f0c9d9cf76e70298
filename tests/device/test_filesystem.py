"""A replica of the used blocks is the file system, whole."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.units import MIB
from pydbt.device.block import DirectReader, aligned_buffer
from pydbt.device.filesystem import UsedExtents, complement, used_extents
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import image, loop_over, mounted, partition_of
from tests.lab.patience import run

FILE_SYSTEMS = {
    "ext4": ["mkfs.ext4", "-q"],
    "ext4 with blocks of 1 KiB": ["mkfs.ext4", "-q", "-b", "1024"],
    "ext4 with bigalloc": ["mkfs.ext4", "-q", "-O", "bigalloc", "-C", "65536"],
    "ext4 without a journal": ["mkfs.ext4", "-q", "-O", "^has_journal"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "xfs with reverse mapping": ["mkfs.xfs", "-q", "-f", "-m", "rmapbt=1,reflink=1"],
    "xfs with blocks of 1 KiB": ["mkfs.xfs", "-q", "-f", "-b", "size=1024"],
}
CHECKS = {"ext4": ["e2fsck", "-fn"], "xfs": ["xfs_repair", "-n"]}


def _fill(point: Path, seed: int) -> dict[str, bytes]:
    """Files of many sizes, some of them removed again, so that used and free space are interleaved."""
    source = random.Random(seed)
    kept = {}
    for number in range(200):
        content = source.randbytes(source.choice([10, 4096, 70_000, 300_000]))
        path = point / f"folder{number % 7}" / f"file{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        if number % 3:
            kept[str(path.relative_to(point))] = content
    os.sync()
    for path in point.glob("folder*/file*"):
        if str(path.relative_to(point)) not in kept:
            path.unlink()
    return kept


def _copy_used(device: BlockDevice, used: UsedExtents, to: Path) -> None:
    """What an initial copy sends, onto an image whose every other byte is rubbish."""
    with DirectReader(device) as reader, open(to, "wb") as file:
        file.write(b"\xa5" * device.size_bytes)
        for first, length in zip(used.firsts_bytes.tolist(), used.lengths_bytes.tolist(), strict=True):
            buffer = aligned_buffer(length)
            reader.read_extent(first, length, buffer)
            file.seek(first)
            file.write(buffer)


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_the_used_blocks_are_a_sound_copy_of_a_mounted_file_system(tmp_path: Path, kind: str) -> None:
    fs_type = kind.split()[0]
    with loop_over(image(tmp_path / "a", 400 * MIB)) as path:
        run(*FILE_SYSTEMS[kind], path)
        device = BlockDevice.identify(path)
        with mounted(path, tmp_path / "mount") as point:
            kept = _fill(point, seed=5)
            used = used_extents(device)
            assert not used.whole and fs_type in used.reason
            assert used.total_bytes < 200 * MIB
            # The copy is taken under the mount, as after a crash: its log still has to be replayed.
            _copy_used(device, used, tmp_path / "copy")
    with loop_over(tmp_path / "copy") as copy:
        with mounted(copy, tmp_path / "mount", "-o", "nouuid" if fs_type == "xfs" else "rw") as point:
            for name, content in kept.items():
                assert (point / name).read_bytes() == content, name
        run(*CHECKS[fs_type], copy)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_space_freed_a_moment_ago_is_left_out_only_once_its_freeing_is_on_the_disk(
    tmp_path: Path, fs_type: str
) -> None:
    """A crash after the map was taken must not bring a file back whose blocks nobody copied."""
    with loop_over(image(tmp_path / "a", 400 * MIB)) as path:
        run(*FILE_SYSTEMS[fs_type], path)
        device = BlockDevice.identify(path)
        with mounted(path, tmp_path / "mount") as point:
            content = random.Random(1).randbytes(8 * MIB)
            (point / "file").write_bytes(content)
            os.sync()
            os.truncate(point / "file", 0)  # frees at once, in memory, where removing the file may wait
            used = used_extents(device)
            _copy_used(device, used, tmp_path / "copy")
    with (
        loop_over(tmp_path / "copy") as copy,
        mounted(copy, tmp_path / "mount", "-o", "nouuid" if fs_type == "xfs" else "rw") as point,
    ):
        assert (point / "file").read_bytes() in (b"", content)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_the_map_of_a_file_system_on_a_partition_counts_from_the_partitions_beginning(
    tmp_path: Path, fs_type: str
) -> None:
    with loop_over(image(tmp_path / "a", 500 * MIB)) as disk, partition_of(disk, 1, 2049, 400 * 2048) as path:
        run(*FILE_SYSTEMS[fs_type], path)
        with mounted(path, tmp_path / "mount"):
            device = BlockDevice.identify(path)
            used = used_extents(device)
            assert not used.whole and used.total_bytes < 200 * MIB
            ends = used.firsts_bytes + used.lengths_bytes
            assert (used.firsts_bytes[1:] > ends[:-1]).all() and ends[-1] <= device.size_bytes
            whole = used_extents(BlockDevice.identify(disk))
            assert whole.whole and whole.total_bytes == 500 * MIB


def test_space_beyond_the_file_system_counts_as_used(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 64 * MIB + 512)) as path:
        run("mkfs.ext4", "-q", path, "32M")
        with mounted(path, tmp_path / "mount"):
            used = used_extents(BlockDevice.identify(path))
            assert used.firsts_bytes[-1] <= 32 * MIB
            assert used.firsts_bytes[-1] + used.lengths_bytes[-1] == 64 * MIB + 512


def test_a_mount_point_hidden_under_another_mount_does_not_mislead(tmp_path: Path) -> None:
    with (
        loop_over(image(tmp_path / "a", 32 * MIB)) as below,
        loop_over(image(tmp_path / "b", 64 * MIB)) as above,
    ):
        for path in (below, above):
            run("mkfs.ext4", "-q", path)
        with mounted(below, tmp_path / "mount"), mounted(above, tmp_path / "mount"):
            assert used_extents(BlockDevice.identify(below)).whole
            assert not used_extents(BlockDevice.identify(above)).whole


def test_a_device_that_is_not_mounted_is_copied_whole_with_a_reason(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 32 * MIB)) as path:
        run("mkfs.ext4", "-q", path)
        used = used_extents(BlockDevice.identify(path))
        assert used.whole and used.firsts_bytes.tolist() == [0] and used.total_bytes == 32 * MIB
        assert "no ext4 or XFS is mounted" in used.reason


def test_another_file_system_is_copied_whole_with_a_reason(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 130 * MIB)) as path:
        run("mkfs.btrfs", "-q", "-f", path)
        with mounted(path, tmp_path / "mount"):
            assert used_extents(BlockDevice.identify(path)).whole


@settings(deadline=None)
@given(
    size=st.integers(1, 60),
    free=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 30)), max_size=8),
)
def test_the_used_runs_are_exactly_the_rest_without_the_free_runs(size: int, free: list[tuple[int, int]]) -> None:
    firsts, lengths = complement(np.array(free, dtype=np.int64).reshape(-1, 2), size)
    covered = {byte for first, length in free for byte in range(first, first + length)}
    found = [byte for first, length in zip(firsts, lengths, strict=True) for byte in range(first, first + length)]
    assert found == [byte for byte in range(size) if byte not in covered]
    assert (lengths > 0).all() and (firsts[1:] > (firsts + lengths)[:-1]).all()
