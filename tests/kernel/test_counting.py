"""Every write is seen once: counted against the kernel's own statistics."""

from __future__ import annotations

import mmap
import os
import random
import time
from pathlib import Path

import numpy as np

from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.units import MIB
from tests.lab.disks import loop_device, mounted
from tests.lab.patience import run
from tests.lab.tracking import ADDRESSES, check_completions, tracked, wait_quiet

WRITES = 1009  # a prime: no count that is a multiple of something can pass for it


def test_a_prime_number_of_writes_makes_that_number_of_records(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, tracked(device) as capture:
        before = device.statistics()
        chosen = random.Random(1).choices(range(device.size_sectors // 8), k=WRITES)
        fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 4096)
        for block in chosen:
            os.pwrite(fd, buffer, block * 4096)
        os.close(fd)
        wait_quiet(capture)
        records, after, counters = capture.drain(), device.statistics(), capture.counters()

        assert after["writes"] - before["writes"] == WRITES
        assert after["write_sectors"] - before["write_sectors"] == counters.submitted_sectors == WRITES * 8
        check_completions(capture, WRITES * 8)
        submitted = records[records["kind"] == RecordKind.SUBMIT]
        assert (submitted["sector"] // 8).tolist() == chosen
        assert counters.submitted_records == WRITES
        assert (np.diff(records["position"]) == 1).all()
        assert counters.lost == 0
        for cpu in np.unique(submitted["cpu"]):
            assert (np.diff(submitted["ordinal"][submitted["cpu"] == cpu]) == 1).all()


def test_the_sums_agree_when_quiet_after_flushes_fua_and_many_fsyncs(tmp_path: Path) -> None:
    """Flush sequences complete their data twice in the kernel; here they count once."""
    with loop_device(tmp_path, 128 * MIB) as device, tracked(device, ADDRESSES) as capture:
        before = device.statistics()
        run("mkfs.ext4", "-q", "-F", device.path)
        with mounted(device, tmp_path / "mnt") as folder:
            for number in range(150):
                with (folder / f"{number % 7}").open("ab") as file:
                    file.write(os.urandom(3000))
                    file.flush()
                    os.fsync(file.fileno())
        fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT | os.O_SYNC)  # FUA, or a flush after each
        buffer = mmap.mmap(-1, 4096)
        for number in range(101):
            os.pwrite(fd, buffer, number * 8192)
        os.close(fd)
        wait_quiet(capture)
        counters, after = capture.counters(), device.statistics()
        records = capture.drain()
        written = after["write_sectors"] - before["write_sectors"]
        discarded = after["discard_sectors"] - before["discard_sectors"]
        assert counters.submitted_sectors - counters.submitted_discard_sectors == written
        assert counters.submitted_discard_sectors == discarded
        check_completions(capture, written + discarded)
        assert (records["flags"] & RecordFlag.FUA).any() and (records["flags"] & RecordFlag.PREFLUSH).any()
        flushes = records[(records["sectors"] == 0) & (records["kind"] == RecordKind.SUBMIT)]
        assert len(flushes) and (flushes["flags"] & RecordFlag.PREFLUSH).all(), "flushes are order marks"


def test_reads_are_not_recorded(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, tracked(device) as capture:
        device.contents()
        assert capture.producer_position() == 0
        assert capture.counters().submitted_sectors == 0


def test_other_disks_are_not_recorded(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as ours, loop_device(tmp_path, 16 * MIB) as other, tracked(ours) as capture:
        run("dd", "if=/dev/zero", f"of={other.path}", "bs=1M", "count=4", "oflag=direct")
        assert capture.producer_position() == 0
        assert capture.dirty_counts() == (0, 0)


def test_records_can_be_switched_off_and_the_bits_remain(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, tracked(device) as capture:
        capture.set_records(False)
        run("dd", "if=/dev/zero", f"of={device.path}", "bs=1M", "count=4", "oflag=direct")
        wait_quiet(capture)
        assert len(capture.drain()) == 0
        assert capture.dirty_counts() == (1024, 0)
        capture.set_records(True)
        run("dd", "if=/dev/zero", f"of={device.path}", "bs=4096", "count=1", "oflag=direct")
        wait_quiet(capture)
        records = capture.drain()
        assert (records["kind"] == RecordKind.SUBMIT).sum() == 1


def test_the_time_of_a_record_is_the_monotonic_clock(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, tracked(device) as capture:
        start = time.monotonic_ns()
        run("dd", "if=/dev/zero", f"of={device.path}", "bs=4096", "count=10", "oflag=direct")
        wait_quiet(capture)
        records = capture.drain()
        end = time.monotonic_ns()
        jiffy_ns = 10_000_000  # the longest there is, at HZ=100
        assert (records["time_ns"] >= start - jiffy_ns).all()
        assert (records["time_ns"] <= end).all()
