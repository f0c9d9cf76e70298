"""What a device returns of the sectors that were discarded, as far as its kind tells.

The kernel promises nothing for disks (``discard_zeroes_data`` is 0 since v4.12, 48920ff2a5a9). A loop device over a file punches
holes; memory disks drop whole pages; a thin volume unmaps whole chunks and ignores the rest (drivers/md/dm-thin.c,
process_discard_bio).
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from pydbt.core.tracking.discards import DiscardPromise
from pydbt.core.units import SECTOR_BYTES
from pydbt.device import mapper
from pydbt.device.commands import CommandFailed
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.files import read_entry

_IN_MEMORY = re.compile(r"(zram|ram)\d+")
_NOTHING = DiscardPromise(0)


def discard_promise(device: BlockDevice) -> DiscardPromise:
    """The promise of a device; of one that is not known, that it returns anything at all."""
    start_bytes = device.start_sector * SECTOR_BYTES
    backing_file = device.backing_file()
    if backing_file is not None:
        return _NOTHING if backing_file.startswith("/dev/") else DiscardPromise()
    if _IN_MEMORY.fullmatch(device.disk().name):
        return DiscardPromise(mmap.PAGESIZE, start_bytes % mmap.PAGESIZE)
    name = device.mapper_name()
    if name and _is_thin(name):
        chunk = read_entry(Path(f"/sys/dev/block/{device.major}:{device.minor}/queue/discard_granularity")) or "0"
        return DiscardPromise(int(chunk) if chunk.isdecimal() else 0)
    return _NOTHING


def _is_thin(name: str) -> bool:
    try:
        return {row[2] for row in mapper.table_of(name)} == {"thin"}
    except CommandFailed:
        return False
