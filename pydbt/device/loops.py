"""Loop devices below a device, which take a write for done when their file took only the first part of it.

``lo_complete_rq`` in drivers/block/loop.c looks at the length of reads alone: since v4.4 with direct I/O to the file, and
since f2fed441c69b (v6.15, and stable kernels of 2025) always. A file with holes comes to that when its file system is full.
"""

from __future__ import annotations

import os

from pydbt.core.units import SECTOR_BYTES
from pydbt.device.sysfs import BlockDevice


def loops_below(device: BlockDevice) -> list[BlockDevice]:
    """Every loop device that a write to this device goes to: its own disk, or below device-mapper and md."""
    found: dict[tuple[int, int], BlockDevice] = {}
    waiting = [device.disk()]
    while waiting:
        disk = waiting.pop()
        if disk.number in found:
            continue
        found[disk.number] = disk
        waiting.extend(part.disk() for part in disk.slaves())
    return [disk for disk in found.values() if disk.backing_file() is not None]


def short_writes_of(device: BlockDevice, own_are_seen: bool) -> str:
    """By which loop devices blocks can differ unnoticed, as a sentence; empty without such.

    ``own_are_seen``: capture sees what the device's own file took of each write.
    """
    own = device.disk_number if own_are_seen else None
    words = [
        f"{loop.path} ({loop.backing_file()})"
        for loop in loops_below(device)
        if loop.number != own and _has_holes(loop)
    ]
    if not words:
        return ""
    return (
        f"{device.path} lies on {' and '.join(words)}, a file with holes: when its file system is full, a write can go in only "
        "in part with no error, and blocks can then differ until the next verification; allocate all of the file (fallocate)"
    )


def _has_holes(loop: BlockDevice) -> bool:
    """Also where nobody can tell, as of a file that has lost its name."""
    try:
        status = os.stat(loop.backing_file() or "")
    except OSError:
        return True
    return status.st_blocks * SECTOR_BYTES < status.st_size
