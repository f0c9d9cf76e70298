"""A disk with a write cache after a power cut, and the log of a device: the tests' own instruments"""

from __future__ import annotations

import contextlib
import random
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.vm.disks import VolatileDisk
from tests.vm.write_log import Kind, WriteLog

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path):
    with tempfile.TemporaryDirectory(prefix="pydbt-vm-") as sockets:
        new = VolatileDisk(tmp_path, Path(sockets), "disk", 4 * MIB)
        with contextlib.closing(new):
            yield new


def program(disk, *commands):
    """QEMU itself on the disk, killed at the end as a machine is: it flushes when it ends in peace."""
    where = f"driver=nbd,server.type=unix,server.path={disk._socket},export=disk"
    words = [word for command in (*commands, "sigraise 9") for word in ("-c", command)]
    return subprocess.Popen(["qemu-io", "-t", "writeback", "--image-opts", where, *words], stdout=subprocess.DEVNULL)


def qemu_io(disk, *commands):
    assert program(disk, *commands).wait(60) == -9


def pages(disk, *numbers):
    data = disk.path.read_bytes()
    return [data[number * 4096] for number in numbers]


def test_data_that_was_flushed_or_written_with_fua_survives_a_power_cut(disk):
    qemu_io(
        disk,
        "write -P 1 0 4096",
        "flush",
        "write -P 2 4096 4096",
        "write -f -P 3 8192 4096",
        "write -P 4 8192 512",
        "write -z 12288 512",
    )
    assert pages(disk, 0, 1, 2) == [1, 2, 4], "before the cut everything can be read back"
    for seed in range(20):
        disk.cut_power(random.Random(seed))
        assert pages(disk, 0) == [1]
        assert disk.path.read_bytes()[8192 + 512] == 3


def test_a_write_that_was_not_flushed_is_sometimes_there_sometimes_not_and_sometimes_torn(disk):
    seen = set()
    for seed in range(60):
        qemu_io(disk, "write -z 0 64k", "flush", "write -P 1 0 4096", "write -P 2 4096 4096")
        disk.cut_power(random.Random(seed))
        first = disk.path.read_bytes()[:4096]
        seen.add((first.count(1), *pages(disk, 1)))
    assert {(4096, 2), (0, 0), (0, 2), (4096, 0)} <= seen
    assert any(0 < kept < 4096 and kept % 512 == 0 for kept, _ in seen)
    assert disk.lost_bytes > 0


def test_an_overwritten_write_that_is_lost_leaves_what_was_there_before(disk):
    outcomes = set()
    for seed in range(60):
        qemu_io(disk, "write -P 9 0 4096", "flush", "write -P 1 0 4096", "write -P 2 0 4096")
        disk.cut_power(random.Random(seed))
        outcomes.add(tuple(pages(disk, 0)))
    assert outcomes == {(9,), (1,), (2,)}


def test_a_failing_disk_takes_no_flush_after_the_write_that_it_failed_at(disk):
    qemu_io(disk, "write -P 9 0 4096", "flush")
    assert not disk.fail_at(8192, 0.01)
    running = program(disk, "aio_write -P 1 0 8192", "flush")
    try:
        assert disk.fail_at(8192, 20)
    finally:
        running.kill()
        running.wait()
    assert disk.unflushed_bytes == 8192
    outcomes = set()
    for seed in range(4):
        disk.cut_power(random.Random(seed))
        outcomes |= set(pages(disk, 0))
    assert outcomes <= {1, 9}


def log_file(path, *entries, magic=0x6A736677736872, version=1, count=None):
    body = bytearray(
        struct.pack("<QQQI", magic, version, len(entries) if count is None else count, 512).ljust(512, b"\0")
    )
    for sector, sectors, flags, data in entries:
        name = data if flags & Kind.MARK else b""
        body += (struct.pack("<QQQQ", sector, sectors, flags, len(name)) + name).ljust(512, b"\0")
        if not flags & (Kind.MARK | Kind.DISCARD):
            body += data
    path.write_bytes(body)
    return path


def test_a_log_is_replayed_to_its_marks(tmp_path):
    path = log_file(
        tmp_path / "log",
        (0, 2, 0, b"a" * 1024),
        (0, 0, 1, b""),
        (0, 0, 8, b"first"),
        (1, 1, 4, b""),
        (2, 1, 2, b"b" * 512),
        (0, 0, 8, b"last"),
    )
    log, image = WriteLog(path), bytearray(b"x" * 2048)
    at = log.replay(image, 0, "first")
    assert image == b"a" * 1024 + b"x" * 1024
    log.replay(image, at, "last")
    assert image == b"a" * 512 + bytes(512) + b"b" * 512 + b"x" * 512
    with pytest.raises(ValueError, match="no mark never"):
        log.replay(image, 0, "never")


@pytest.mark.parametrize("wrong", [{"magic": 1}, {"version": 2}, {"count": 2}])
def test_a_log_that_is_damaged_or_incomplete_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError):
        list(WriteLog(log_file(tmp_path / "log", (0, 1, 0, bytes(512)), **wrong)))
