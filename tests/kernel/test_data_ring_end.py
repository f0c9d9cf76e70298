"""A slot whose header is the last thing in the data ring has its data at the ring's beginning."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from pydbt.core.units import KIB, MIB
from pydbt.kernel.capture import CaptureOptions
from tests.lab.disks import loop_device
from tests.lab.tracking import tracked

_BLOCK_BYTES = 4096
# A slot of 4 KiB moves the ring's position by 515 * 8 bytes: after at most this many, every place of this ring was one's.
_WRITES = 8192 + 1


def test_every_place_in_the_data_ring_gives_the_bytes_that_were_written(tmp_path: Path) -> None:
    block = memoryview(mmap.mmap(-1, _BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    with (
        loop_device(tmp_path, MIB) as device,
        tracked(device, CaptureOptions(data_ring_bytes=64 * KIB)) as capture,
    ):
        fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT)
        try:
            for number in range(_WRITES):
                block[:8] = number.to_bytes(8, "little")
                os.pwrite(fd, block, number % 256 * _BLOCK_BYTES)
                records = capture.drain()
                assert b"".join(capture.payload(records)) == bytes(block)
                capture.release(records)
        finally:
            os.close(fd)
        assert capture.counters().no_payload == 0
