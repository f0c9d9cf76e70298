"""An image that is rebuilt from captured payload equals the device, byte for byte."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.units import MIB
from tests.lab.disks import Device, loop_device, mounted, partition_of
from tests.lab.patience import run
from tests.lab.tracking import PAYLOAD, Rebuilt, tracked, wait_quiet

_FILES = Path("/usr/lib/python3")


@contextlib.contextmanager
def replicated(device: Device) -> Iterator[Rebuilt]:
    """A replica that has to equal the device in the end."""
    before = device.contents()
    with tracked(device, PAYLOAD) as capture:
        assert capture.payload_available, capture.payload_reason
        replica = Rebuilt(capture, before)
        yield replica
        device.flush()
        replica.follow(lambda: None)
        replica.check_equals(device)


def work_with_files(device: Device, folder: Path) -> None:
    """Copy, overwrite, delete and trim."""
    with mounted(device, folder) as root:
        shutil.copytree(_FILES / "dist-packages" / "bcc", root / "files", symlinks=True)
        (root / "big").write_bytes(os.urandom(9 * MIB))
        os.sync()
        shutil.rmtree(root / "files")
        with (root / "big").open("r+b") as file:
            for number in range(50):
                file.seek(number * 150_001)
                file.write(os.urandom(5000))
        run("fstrim", root)


@pytest.mark.parametrize(
    ("make", "size_mib"),
    [
        pytest.param(("mkfs.ext4", "-q", "-F"), 160, id="ext4"),
        pytest.param(("mkfs.ext4", "-q", "-F", "-b", "1024"), 96, id="ext4-1k"),
        pytest.param(("mkfs.xfs", "-q", "-f"), 320, id="xfs"),
        pytest.param(("mkfs.xfs", "-q", "-f", "-b", "size=1024"), 320, id="xfs-1k"),
    ],
)
def test_a_file_system_from_mkfs_to_unmount(tmp_path: Path, make: tuple[str, ...], size_mib: int) -> None:
    with loop_device(tmp_path, size_mib * MIB) as device, replicated(device) as replica:
        replica.follow(lambda: run(*make, device.path))
        replica.follow(lambda: work_with_files(device, tmp_path / "mnt"))


def test_a_disk_with_sectors_of_4096_bytes(tmp_path: Path) -> None:
    with loop_device(tmp_path, 320 * MIB, sector_bytes=4096) as device, replicated(device) as replica:
        replica.follow(lambda: run("mkfs.xfs", "-q", "-f", device.path))
        replica.follow(lambda: work_with_files(device, tmp_path / "mnt"))


def test_a_partition_and_writes_to_its_disk_that_reach_into_it(tmp_path: Path) -> None:
    with (
        loop_device(tmp_path, 160 * MIB) as disk,
        partition_of(disk, 1, 2049, 200_001) as partition,
        replicated(partition) as replica,
    ):
        replica.follow(lambda: run("mkfs.ext4", "-q", "-F", partition.path))
        replica.follow(lambda: work_with_files(partition, tmp_path / "mnt"))
        # 1 MiB before the partition to 1 MiB into it, and the same at its end.
        for start_mib in (0, 98):
            replica.follow(
                lambda start=start_mib: run(
                    "dd",
                    "if=/dev/urandom",
                    f"of={disk.path}",
                    "bs=2M",
                    "count=1",
                    "oflag=direct,seek_bytes",
                    "iflag=fullblock",
                    f"seek={start * MIB}",
                )
            )
        submitted = replica.records[replica.records["kind"] == RecordKind.SUBMIT]
        clipped = submitted[submitted["flags"] & RecordFlag.CLIPPED != 0]
        assert (clipped["sector"] == 0).any() and (clipped["sector"] > 0).any()
        assert (submitted["sector"] + submitted["sectors"] <= partition.size_sectors).all()


def test_a_whole_disk_sees_the_writes_to_its_partitions(tmp_path: Path) -> None:
    with (
        loop_device(tmp_path, 64 * MIB) as disk,
        partition_of(disk, 1, 2048, 65_536) as partition,
        replicated(disk) as replica,
    ):
        replica.follow(lambda: run("mkfs.ext4", "-q", "-F", partition.path))
        replica.follow(lambda: work_with_files(partition, tmp_path / "mnt"))
        assert replica.records["sector"][replica.records["sectors"] > 0].min() >= 2048


def test_direct_writes_of_many_mebibytes(tmp_path: Path) -> None:
    """Also from huge pages, whose vectors are of 2 MiB."""
    with loop_device(tmp_path, 128 * MIB) as device, replicated(device) as replica:
        buffer = mmap.mmap(-1, 40 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        buffer.madvise(mmap.MADV_HUGEPAGE)
        buffer[:] = os.urandom(40 * MIB)

        def write() -> None:
            fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT)
            try:
                for offset, length in ((0, 8 * MIB), (8 * MIB, 40 * MIB), (50 * MIB, 32 * MIB), (90 * MIB, 512)):
                    assert os.pwrite(fd, memoryview(buffer)[:length], offset) == length
            finally:
                os.close(fd)

        replica.follow(write)
        assert replica.records["sectors"].max() >= 2 * 1024, "the kernel split what was to be one bio"


def test_a_write_of_256_separate_pages(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, replicated(device) as replica:
        buffer = mmap.mmap(-1, 2 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        buffer.madvise(mmap.MADV_NOHUGEPAGE)
        buffer[:] = os.urandom(2 * MIB)
        pages = [memoryview(buffer)[at : at + 4096] for at in range(2 * MIB - 4096, -1, -8192)]

        def write() -> None:
            fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT)
            try:
                assert os.pwritev(fd, pages, MIB) == MIB
                assert os.pwritev(fd, [page[512:1536] for page in pages[:64]], 3 * MIB) == 64 * 1024
            finally:
                os.close(fd)

        replica.follow(write)
        assert replica.records["pieces"].max() >= 200


def test_large_folios_written_back_by_xfs(tmp_path: Path) -> None:
    with loop_device(tmp_path, 400 * MIB) as device, replicated(device) as replica:
        replica.follow(lambda: run("mkfs.xfs", "-q", "-f", device.path))

        def write() -> None:
            with mounted(device, tmp_path / "mnt") as root:
                run("dd", "if=/dev/urandom", f"of={root / 'file'}", "bs=8M", "count=12", "conv=fsync")

        replica.follow(write)
        assert replica.records["sectors"].max() >= 2 * 1024


def test_discards_and_zeroes_carry_no_data_and_are_applied(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, replicated(device) as replica:
        replica.follow(lambda: run("dd", "if=/dev/urandom", f"of={device.path}", "bs=1M", "count=64", "oflag=direct"))
        replica.follow(lambda: run("blkdiscard", "--offset", str(MIB), "--length", str(5 * MIB), device.path))
        replica.follow(lambda: run("blkdiscard", "-z", "--offset", str(9 * MIB), "--length", str(MIB), device.path))
        without_data = replica.records[replica.records["flags"] & RecordFlag.NO_DATA_OP != 0]
        assert set(without_data["op"].tolist()) >= {3, 9}
        assert not without_data["data"].any()


def test_payload_can_be_switched_off_and_on(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, tracked(device, PAYLOAD) as capture:
        found = []
        for wanted in (True, False, True):
            capture.set_payload(wanted)
            run("dd", "if=/dev/urandom", f"of={device.path}", "bs=4096", "count=7", "oflag=direct")
            wait_quiet(capture)
            records = capture.drain()
            assert not (records["flags"] & RecordFlag.NO_PAYLOAD).any(), "that flag is for payload that was wanted"
            found.append(len(capture.payload(records)))
            capture.release(records)
        assert found == [7, 0, 7]
        assert capture.data_used_bytes() == 0


def test_data_may_be_released_in_any_order(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, tracked(device, PAYLOAD) as capture:
        fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, MIB)
        for length in (512, 4096, 5120, 16384, 20480, 65536, 70144, MIB):
            os.pwrite(fd, memoryview(buffer)[:length], 0)
        os.close(fd)
        wait_quiet(capture)
        records = capture.drain()
        pieces = capture.payload(records)
        submitted = records[records["kind"] == RecordKind.SUBMIT]
        assert sum(map(len, pieces)) == int(submitted["sectors"].sum()) * 512
        del pieces
        order = np.random.default_rng(5).permutation(len(records))
        for index in order:
            assert capture.data_used_bytes() > 0 or not records["data"][order].any()
            capture.release(records[index : index + 1])
        assert capture.data_used_bytes() == 0
