"""Loop devices below a device, which take a write for done when their file took only the first part of it.

``lo_complete_rq`` in drivers/block/loop.c looks at the length of reads alone: since v4.4 with direct I/O to the file, and
since f2fed441c69b (v6.15, and stable kernels of 2025) always. A file with holes comes to that when its file system is full, and
so does one whose file system gives each write a new place.
"""

from __future__ import annotations

import os

from pydbt.core.units import SECTOR_BYTES
from pydbt.device.sysfs import BlockDevice
from pydbt.posix import libc

# Of ext2 to ext4 and tmpfs: what is there is written where it is (include/uapi/linux/magic.h). XFS may share blocks of files.
_WRITE_IN_PLACE = frozenset({0xEF53, 0x01021994})


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
        if loop.number != own and needs_room(loop.backing_file() or "")
    ]
    if not words:
        return ""
    return (
        f"{device.path} lies on {' and '.join(words)}, a file with holes or shared blocks: when its file system is full, a "
        "write can go in only in part with no error, and blocks can then differ until the next verification; allocate all of "
        "the file (fallocate)"
    )


def needs_room(file: str) -> bool:
    """Whether the file behind a loop device may take more room when it is written. Also where nobody can tell."""
    try:
        status = os.stat(file)
        holes = status.st_blocks * SECTOR_BYTES < status.st_size
        return holes or libc.file_system_magic(file) not in _WRITE_IN_PLACE
    except OSError:  # it has lost its name
        return True
