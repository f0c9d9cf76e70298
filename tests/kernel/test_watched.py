"""Memory that a program changes while it is written by a direct write, or as swap: each write that met a change is flagged."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.units import MIB
from tests.lab.changing_memory import KINDS, PROGRAM
from tests.lab.disks import Device, loop_device, swap_on, zram_device
from tests.lab.images import differing_of
from tests.lab.patience import run
from tests.lab.tracking import PAYLOAD, Rebuilt, tracked

# Anonymous memory that is pushed out to swap, a few pages at a time, and changed at once, while it is written. It breathes, so
# that a reader on a busy machine finds room for the data.
_SWAPPING = """
import mmap, os, sys, time
memory = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_ANONYMOUS | mmap.MAP_PRIVATE)
memory.write(os.urandom(8 << 20))
ends, number = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < ends:
    for at in range(0, 8 << 20, 64 << 10):
        number += 1
        memory.madvise(21, at, 64 << 10)  # MADV_PAGEOUT
        for page in range(at, at + (64 << 10), 4096):
            memory[page + 2000 : page + 2008] = number.to_bytes(8, "little")
        time.sleep(0.002)
"""


def flagged_last(replica: Rebuilt) -> tuple[np.ndarray, np.ndarray]:
    """For each sector, whether the last write of it that completed has the flag; and whether the last one that was submitted has
    no data with it, because there was no room."""
    flagged, without = np.zeros((2, len(replica.image) // 512), bool)
    columns = ("kind", "sector", "sectors", "cookie", "flags")
    by_cookie: dict[int, tuple[int, int]] = {}
    for kind, sector, sectors, cookie, flags in zip(*(replica.records[name].tolist() for name in columns), strict=True):
        if kind == RecordKind.SUBMIT:
            by_cookie[cookie] = sector, sectors
            without[sector : sector + sectors] = flags & RecordFlag.NO_PAYLOAD != 0
        else:
            at, count = by_cookie.pop(cookie) if flags & RecordFlag.BIO_BASED else (sector, sectors)
            flagged[at : at + count] = flags & RecordFlag.UNSTABLE != 0
    return flagged, without


def differs_only_where_flagged(device: Device, work: Callable[[], object], bio_based: bool = False) -> int:
    """Until the disk and the replica differ at all, where the replica has the data. Returns in how many sectors."""
    with tracked(device, PAYLOAD, bio_based=bio_based) as capture:
        assert capture.payload_available, capture.payload_reason
        replica = Rebuilt(capture, device.contents())
        deadline = time.monotonic() + 120
        while True:
            replica.follow(work)
            differing = differing_of(replica.image, device.contents(), 512)
            flagged, without = flagged_last(replica)
            differing = differing[~without[differing]]
            replica.check_no_record_lost()
            silent = differing[~flagged[differing]]
            assert not len(silent), f"{len(silent)} of {len(differing)} sectors that differ have no flag: {silent[:5]}"
            if len(differing):
                return len(differing)
            assert time.monotonic() < deadline, "no write met a change: the test proves nothing"


@pytest.mark.parametrize("pieces", [1, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_no_block_of_a_direct_write_differs_without_the_flag(tmp_path: Path, kind: str, pieces: int) -> None:
    with loop_device(tmp_path, 16 * MIB) as device:
        differs_only_where_flagged(device, lambda: run(sys.executable, PROGRAM, device.path, kind, pieces, 400))


def test_memory_is_watched_only_while_that_is_asked_for(tmp_path: Path) -> None:
    """Else what was not summed raises no alarm; but each write from a file's memory does, because that is dirty."""
    with loop_device(tmp_path, 16 * MIB) as device, tracked(device, PAYLOAD) as capture:
        replica = Rebuilt(capture, device.contents())
        for on in (True, False, True):
            capture.watch_memory(on)
            before = capture.counters().unstable
            for kind in ("private", "file"):
                replica.follow(lambda kind=kind: run(sys.executable, PROGRAM, device.path, kind, 16, 400))  # type: ignore[misc]
                assert (capture.counters().unstable > before) == (on or kind == "file"), (on, kind)


def test_no_block_of_swap_differs_without_the_flag(tmp_path: Path) -> None:
    with loop_device(tmp_path, 32 * MIB) as device:
        run("mkswap", device.path)

        def swap() -> None:
            with swap_on(device.path):
                run(sys.executable, "-c", _SWAPPING, 3)

        differs_only_where_flagged(device, swap)


def follow_direct_writes(device: Device, replica: Rebuilt, threads: int, skips: tuple[int, ...]) -> None:
    """Of many sizes, some from huge pages. ``skips``: in which bytes of a page memory begins."""
    script = Path(__file__).with_name("direct_writes.py")
    replica.follow(lambda: run(sys.executable, script, device.path, threads, *skips))
    replica.check_equals(device)
    assert (replica.records["kind"] == RecordKind.COMPLETE).sum() > 100


def test_direct_writes_that_nobody_changes_have_no_flag(tmp_path: Path) -> None:
    with loop_device(tmp_path, 128 * MIB) as device, tracked(device, PAYLOAD) as capture:
        replica = Rebuilt(capture, device.contents())
        follow_direct_writes(device, replica, threads=16, skips=(0, 512))
        assert capture.counters().unstable == 0


def test_without_requests_direct_writes_that_nobody_changes_have_no_flag() -> None:
    with zram_device(128 * MIB) as device, tracked(device, PAYLOAD, bio_based=True) as capture:
        replica = Rebuilt(capture, device.contents())
        # zram itself takes a part of a page for all of it
        follow_direct_writes(device, replica, threads=1, skips=(0,))
        assert capture.counters().unstable == 0


def test_without_requests_a_direct_write_is_flagged_when_its_memory_changes() -> None:
    with zram_device(16 * MIB) as device:
        differs_only_where_flagged(
            device, lambda: run(sys.executable, PROGRAM, device.path, "private", 16, 400), bio_based=True
        )
