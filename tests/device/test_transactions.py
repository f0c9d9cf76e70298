"""The log that this machine's kernel writes, read from the disk: the same transactions as the file system's own tools show."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pydbt.core.transactions.on_disk import LogOnDisk, read_log
from pydbt.core.transactions.transaction import TransactionState
from pydbt.core.units import KIB, MIB
from pydbt.device.volume_reader import VolumeReader
from tests.core.transactions.test_on_disk import fast_commits_of_logdump, shown_by_logdump, shown_by_logprint
from tests.lab.disks import image, loop_over, make_filesystem, mounted
from tests.lab.patience import run


def append(path: Path, length: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, os.urandom(length))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def few(folder: Path) -> None:
    for number in range(4):
        append(folder / f"file{number}", 100)
    (folder / "file1").unlink()
    (folder / "magic").write_bytes(b"\xc0\x3b\x39\x98" * 2048)
    append(folder / "magic", 5)


def much(folder: Path) -> None:
    """More than a log of 4 MiB holds, so that it wraps."""
    for number in range(16):
        append(folder / f"file{number % 3}", 400 * KIB)


def many(folder: Path) -> None:
    """More than the smallest log of XFS holds, about 5 MiB, so that it begins its second cycle."""
    for turn in range(50):
        for number in range(300):
            (folder / f"{turn}-{number}").touch()
        append(folder / "file", 1)
        for number in range(300):
            (folder / f"{turn}-{number}").unlink()


def appended(folder: Path) -> None:
    append(folder / "file", 5000)
    run("sync", "-f", folder)
    for _ in range(4):
        append(folder / "file", 5000)


def written(
    tmp_path: Path, kind: str, size_bytes: int, mkfs: list[str], options: str, work: Callable[[Path], None]
) -> Path:
    """An image of the volume as it was while it was mounted: what a crash would have left."""
    disk, copy = image(tmp_path / "disk.img", size_bytes), tmp_path / "copy.img"
    with loop_over(disk) as device:
        make_filesystem(kind, device, *mkfs)
        with mounted(device, tmp_path / "mnt", "-o", options) as folder:
            work(folder)
            with VolumeReader(device.path) as reader:
                assert reader.mounted
                live = read_log(reader.read, reader.size_bytes)
            run("cp", "--sparse=always", disk, copy)
        with VolumeReader(device.path) as reader:
            assert not reader.mounted
            after = read_log(reader.read, reader.size_bytes)
    assert live.newest_whole is not None and live.newest_whole.replayed
    assert after.transactions and not any(one.replayed for one in after.transactions), "it was unmounted"
    return copy


def log_of(path: Path) -> LogOnDisk:
    with VolumeReader(path) as reader:
        return read_log(reader.read, reader.size_bytes)


@pytest.mark.parametrize(
    ("mkfs", "options", "work"),
    [
        pytest.param(["-b", "1024"], "data=ordered", few, id="ordered-1k"),
        pytest.param(["-b", "4096"], "data=journal", few, id="journalled-data-4k"),
        pytest.param(["-b", "4096", "-J", "size=4"], "data=journal", much, id="wraps"),
        pytest.param(["-b", "1024", "-O", "fast_commit", "-J", "size=8"], "data=ordered", appended, id="fast-commits"),
        pytest.param(["-t", "ext3", "-b", "1024"], "data=ordered", few, id="ext3"),
    ],
)
def test_the_transactions_of_ext4_are_those_of_debugfs(
    tmp_path: Path, mkfs: list[str], options: str, work: Callable[[Path], None]
) -> None:
    copy = written(tmp_path, "ext4", 40 * MIB, mkfs, options, work)
    log = log_of(copy)
    logdump = run("debugfs", "-c", "-R", "logdump -a", copy)  # -c: the bitmaps are not yet as in the log
    shown = shown_by_logdump(logdump)
    live = [one.transaction for one in log.transactions if one.replayed]
    full = [one for one in live if "." not in one.name]
    assert {one.name: (one.named[:, 0] // log.block_bytes).tolist() for one in full} == shown and shown
    assert all(one.state is TransactionState.COMMITTED for one in live)
    assert [one.name for one in live[len(full) :]] == fast_commits_of_logdump(logdump)
    assert bool(live[len(full) :]) == ("fast_commit" in mkfs)
    if work is much:
        places = [one.transaction.first_block for one in log.transactions]
        assert places != sorted(places), "the log has come round"


@pytest.mark.parametrize(
    ("mkfs", "options", "work"),
    [
        pytest.param([], "defaults", few, id="4k"),
        pytest.param(["-l", "su=32k"], "logbsize=256k", few, id="log-stripe"),
        pytest.param(["--unsupported", "-d", "agcount=1,size=64m"], "defaults", many, id="rolls-over"),
    ],
)
def test_the_transactions_of_xfs_are_those_of_logprint(
    tmp_path: Path, mkfs: list[str], options: str, work: Callable[[Path], None]
) -> None:
    copy = written(tmp_path, "xfs", 300 * MIB, mkfs, options, work)
    shown = shown_by_logprint(run("xfs_logprint", copy))
    log = log_of(copy)
    assert [one.transaction.name for one in log.transactions] == shown and shown
    assert all(len(one.transaction.named) for one in log.transactions)
    if work is many:
        assert {one.transaction.number >> 32 for one in log.transactions} == {1, 2}, "cycles"
