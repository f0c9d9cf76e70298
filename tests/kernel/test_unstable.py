"""Pages that change while they are written out are recognized."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.units import MIB
from tests.lab.disks import loop_device, mounted
from tests.lab.patience import run
from tests.lab.tracking import PAYLOAD, Rebuilt, tracked

_WRITER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
memory = mmap.mmap(fd, 4 << 20)
print("writing", flush=True)
number = 0
while True:
    number += 1
    for page in range(0, 1024, 5):
        memory[page * 4096 : page * 4096 + 8] = number.to_bytes(8, "little")
"""


@pytest.mark.parametrize("make", [("mkfs.ext4", "-q", "-F"), ("mkfs.xfs", "-q", "-f")], ids=["ext4", "xfs"])
def test_pages_written_to_while_in_flight_raise_the_flag(tmp_path: Path, make: tuple[str, ...]) -> None:
    with loop_device(tmp_path, 320 * MIB) as device:
        run(*make, device.path)
        with mounted(device, tmp_path / "mnt") as root, tracked(device, PAYLOAD) as capture:
            replica = Rebuilt(capture, device.contents())
            (root / "file").write_bytes(bytes(4 * MIB))

            def write_out() -> None:
                command = [sys.executable, "-c", _WRITER, str(root / "file")]
                with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
                    assert writer.stdout
                    writer.stdout.readline()
                    fd = os.open(root / "file", os.O_RDWR)
                    deadline = time.monotonic() + 20
                    while capture.counters().unstable == 0 and time.monotonic() < deadline:
                        os.fdatasync(fd)
                    os.close(fd)
                    writer.kill()

            replica.follow(write_out)
            flagged = replica.records[replica.records["flags"] & RecordFlag.UNSTABLE != 0]
            assert len(flagged) and (flagged["kind"] == RecordKind.COMPLETE).all()
            assert capture.counters().unstable == len(flagged)
            os.sync()
            replica.follow(lambda: None)
            replica.check_equals(device)


def test_files_that_do_not_change_while_written_out_raise_no_flag(tmp_path: Path) -> None:
    """Journal, metadata and data of quiet files: no false alarm, or every volume would be swept forever."""
    with loop_device(tmp_path, 320 * MIB) as device, tracked(device, PAYLOAD) as capture:
        replica = Rebuilt(capture, device.contents())

        def work() -> None:
            for make in (("mkfs.ext4", "-q", "-F"), ("mkfs.xfs", "-q", "-f")):
                run(*make, device.path)
                with mounted(device, tmp_path / "mnt") as root:
                    for number in range(40):
                        with (root / f"{number % 9}").open("wb") as file:
                            file.write(os.urandom(50_000))
                            file.flush()
                            os.fsync(file.fileno())

        replica.follow(work)
        device.flush()
        replica.follow(lambda: None)
        replica.check_equals(device)
        writes = (replica.records["kind"] == RecordKind.COMPLETE).sum()
        assert capture.counters().unstable <= writes // 100, capture.counters()


def test_direct_writes_from_ordinary_memory_do_not_raise_it(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, tracked(device, PAYLOAD) as capture:
        replica = Rebuilt(capture, device.contents())
        replica.follow(lambda: run("dd", "if=/dev/urandom", f"of={device.path}", "bs=1M", "count=32", "oflag=direct"))
        replica.check_equals(device)
        assert capture.counters().unstable == 0
