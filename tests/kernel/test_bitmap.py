"""The bits are exactly the blocks that were written."""

from __future__ import annotations

import json
import mmap
import os
import random
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.blocks.runs import distinct
from pydbt.core.units import MIB
from pydbt.kernel.record import GROUP_BLOCKS
from tests.lab.disks import Device, loop_device, mounted
from tests.lab.images import differing_of
from tests.lab.patience import run
from tests.lab.rounds import short
from tests.lab.tracking import blocks_set, tracked, wait_quiet

GIB = 1 << 30


def blocks_of(ranges: list[tuple[int, int]], block_bytes: int) -> np.ndarray:
    """Blocks that byte ranges (offset, length) touch."""
    return distinct(
        np.concatenate([np.arange(at // block_bytes, -(-(at + size) // block_bytes)) for at, size in ranges])
    )


@pytest.mark.parametrize("block_bytes", short(3, 4096, 512, 65536, *(512 << shift for shift in (1, 2, 4, 5, 6))))
def test_bits_are_exactly_the_blocks_written(tmp_path: Path, block_bytes: int) -> None:
    """Random writes of 512 bytes to a MiB, into a volume whose last block is short."""
    size = 96 * MIB + 512 * 77
    chosen = random.Random(block_bytes)
    with loop_device(tmp_path, size) as device:
        before = device.contents()
        with tracked(device, block_bytes=block_bytes) as capture:
            fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT)
            buffer = mmap.mmap(-1, MIB)
            ranges = [(size - 512, 512)]
            for _ in range(60):
                length = 512 * chosen.choice((1, 2, 8, 9, 64, 500, 2048))
                ranges.append((chosen.randrange((size - length) // 512) * 512, length))
            for offset, length in ranges:
                buffer[:] = os.urandom(MIB)
                os.pwrite(fd, memoryview(buffer)[:length], offset)
            os.close(fd)
            wait_quiet(capture)
            found = blocks_set(capture.active_words())
            assert found.tolist() == blocks_of(ranges, block_bytes).tolist()
            assert found.tolist() == differing_of(before, device.contents(), block_bytes).tolist()
            assert capture.dirty_counts() == (len(found), 0)


@pytest.mark.parametrize("block_bytes", short(1, 512, 4096))
def test_discards_of_many_gibibytes_set_exactly_their_blocks(tmp_path: Path, block_bytes: int) -> None:
    """Whole groups of 32,768 blocks take one bit each; the edges their own."""
    group = GROUP_BLOCKS * block_bytes
    ranges = [
        (3 * MIB + 512, 7 * GIB + 3 * 512),
        (12 * GIB, group),
        (13 * GIB + 512, group - 512),
        (14 * GIB, group - 512),
        (15 * GIB + group - 4096, 8192),
        (16 * GIB + 512, 2 * group - 1024),
        (20 * GIB - MIB, MIB),
    ]
    with loop_device(tmp_path, 20 * GIB) as device, tracked(device, block_bytes=block_bytes) as capture:
        for offset, length in ranges if block_bytes == 4096 else ranges[:4:3]:
            run("blkdiscard", "--offset", str(offset), "--length", str(length), device.path)
            wait_quiet(capture)
            expected = blocks_of([(offset, length)], block_bytes)
            found = blocks_set(capture.active_words())
            assert np.array_equal(found, expected), (offset, length, len(found), len(expected))
            assert capture.dirty_counts()[0] == len(expected)
            edges = np.array([0, 1, 40_000, 700_001, 3_000_000, 20 * GIB // block_bytes])
            one, other = capture.written_counts(edges)
            assert (one + other).tolist() == np.diff(np.searchsorted(expected, edges)).tolist()
            capture.flip()
            assert np.array_equal(blocks_set(capture.quiet_words()), expected)
            capture.zero_quiet()
            assert capture.dirty_counts() == (0, 0)
        assert capture.counters().lost == 0


def test_trim_and_zeroes_are_writes(tmp_path: Path) -> None:
    with loop_device(tmp_path, 300 * MIB) as device, tracked(device) as capture:
        run("blkdiscard", "-z", "--offset", str(8 * MIB), "--length", str(5 * MIB), device.path)
        wait_quiet(capture)
        assert blocks_set(capture.active_words()).tolist() == list(range(2048, 2048 + 1280))
        run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", device.path)
        with mounted(device, tmp_path / "mnt") as folder:
            run("sync", "-f", folder)
            wait_quiet(capture)
            capture.flip()
            capture.zero_quiet()
            run("fstrim", folder)
            wait_quiet(capture)
            assert capture.dirty_counts()[0] > 50_000, "trim of a nearly empty volume covers nearly all of it"


def test_flips_lose_nothing_under_load(tmp_path: Path) -> None:
    """The harvested bits, together, cover what differs and are only what was written."""
    with loop_device(tmp_path, 256 * MIB) as device:
        before = device.contents()
        with tracked(device) as capture:
            load = _start_load(device)
            harvested: list[np.ndarray] = []
            written: list[np.ndarray] = []
            while load.poll() is None:
                capture.flip()
                harvested.append(blocks_set(capture.quiet_words()))
                capture.zero_quiet()
                written.append(capture.drain(1 << 20)["sector"])
                time.sleep(0.01)
            figures = json.loads(load.communicate()[0])
            wait_quiet(capture)
            capture.flip()
            harvested.append(blocks_set(capture.quiet_words()))
            written.append(capture.drain(1 << 20)["sector"])
            assert capture.counters().lost == 0
        assert len(harvested) > 20 and figures["jobs"][0]["write"]["total_ios"] > 1000
        union = distinct(np.concatenate(harvested))
        differing = differing_of(before, device.contents())
        assert len(differing) > 1000
        assert np.isin(differing, union).all(), "a block differs and no flip has shown it"
        assert np.array_equal(union, distinct(np.concatenate(written) // 8).astype(np.int64))


def test_a_bit_is_set_again_by_the_completion(tmp_path: Path) -> None:
    """So that a block read while a write to it was in flight stays dirty."""
    with loop_device(tmp_path, 64 * MIB) as device, tracked(device) as capture:
        load = _start_load(device, seconds=1)
        torn = 0
        while load.poll() is None:
            position = capture.producer_position()
            capture.flip()
            records = capture.drain(1 << 20)
            after = records[(records["position"] * 64 > position) & (records["kind"] == 2)]["sector"] // 8
            submitted = records[(records["position"] * 64 > position) & (records["kind"] == 1)]["sector"] // 8
            late = np.setdiff1d(after, submitted)
            if len(late):
                # Submitted before the flip, completed at its time or after: in one of the two maps for sure.
                both = np.union1d(blocks_set(capture.active_words()), blocks_set(capture.quiet_words()))
                assert np.isin(late, both).all()
                torn += np.isin(late, blocks_set(capture.active_words())).sum()
            capture.zero_quiet()
        load.communicate()
        assert torn > 0, "the load never had a write in flight across a flip"


def _start_load(device: Device, seconds: int = 3) -> subprocess.Popen[str]:
    command = (
        f"fio --name=load --filename={device.path} --rw=randwrite --bs=4k --direct=1 --ioengine=libaio "
        f"--iodepth=16 --runtime={seconds} --time_based --refill_buffers --rate_iops=20000 --output-format=json"
    )
    return subprocess.Popen(command.split(), stdout=subprocess.PIPE, text=True)
