"""The closing record of a clean stop, which shows later whether the device was written while it was not tracked."""

from __future__ import annotations

import os

from pydbt.core.errors import DeviceError
from pydbt.core.tracking.chain import ClosingFacts, closing_gap
from pydbt.device.below import changed_below, look_below
from pydbt.device.block import DirectReader
from pydbt.device.fingerprint import fingerprint
from pydbt.device.sysfs import BlockDevice
from pydbt.device.usage import is_used
from pydbt.posix.boot import boot_id

CleanStop = dict[str, object]

# Other programs write to their partitions of the disk at any time: this many tries to read between two such writes.
_LOOKS = 200


def clean_marker(device: BlockDevice, reader: DirectReader) -> CleanStop:
    """The kernel's counts and what lies below, which hold in this boot; and the file system's fingerprint, for a later one.

    A fingerprint is taken only of a file system that nothing uses, here or in another namespace, and that was unmounted
    cleanly: what uses a file system may write to it without a change of the fingerprint.
    """
    at_rest = not is_used(device)
    return {
        "boot_id": boot_id(),
        **(write_counts(device) or {}),
        "filesystem": fingerprint(reader) if at_rest else None,
        "below": _below(device),
        "kernel": os.uname().release,
    }


def is_untouched(marker: CleanStop | None, device: BlockDevice, reader: DirectReader | None = None) -> bool:
    """Whether nothing was written since ``marker`` was made, as far as the kernel and the file system show."""
    return not gap_since(marker, device, reader)


def gap_since(marker: CleanStop | None, device: BlockDevice, reader: DirectReader | None = None) -> str:
    """Why something may have been written since ``marker`` was made; empty when nothing shows that.

    Without a marker the stop was not clean, and nobody knows. Without a reader the device is opened for the time of the look.
    """
    if not marker:
        return closing_gap(None)
    if reader is not None:
        return closing_gap(_facts(marker, device, reader))
    with DirectReader(device) as opened:
        return closing_gap(_facts(marker, device, opened))


def _facts(marker: CleanStop, device: BlockDevice, reader: DirectReader) -> ClosingFacts:
    if marker.get("boot_id") == boot_id():
        counts, below = write_counts(device), marker.get("below")
        same = counts is not None and {name: marker.get(name) for name in counts} == counts
        changed = changed_below(below, device) if same and isinstance(below, dict) else ""
        return ClosingFacts(same_boot=True, counts_agree=same, below=changed)
    kept = marker.get("filesystem")
    if kept is None:
        return ClosingFacts(same_boot=False)
    in_use = is_used(device)  # to mount a file system writes to it
    return ClosingFacts(
        same_boot=False,
        fingerprint_kept=True,
        in_use=in_use,
        fingerprint_agrees=not in_use and kept == fingerprint(reader),
        kernel=str(marker.get("kernel", "")),
        kernel_now=os.uname().release,
    )


def write_counts(device: BlockDevice) -> CleanStop | None:
    """Values that change within a boot with every write to the device; None when they are unknown."""
    if not device.counts_io():
        return None
    counters, past = device.counters(), _past_partitions(device) if device.is_partition else 0
    if past is None:
        return None
    return {
        "disk_sequence": device.disk_sequence(),
        "write_sectors": counters.write_sectors,
        "discard_sectors": counters.discard_sectors,
        "past_partitions_sectors": past,
        "backing_file": _backing_file(device),
    }


def _below(device: BlockDevice) -> CleanStop | None:
    """What lies below a device of device-mapper: the counts do not show that a snapshot was merged into it."""
    try:
        below = look_below(device, groups=True)
    except (DeviceError, OSError):
        return None
    return below.to_values() if below.mappings else None


def _past_partitions(device: BlockDevice) -> int | None:
    """Sectors that were written through the disk's own device; None when other programs write too often to measure it.

    A disk counts the writes to its partitions as well (``part_stat_add``). Writes through the disk's own device are counted
    by the disk only, and may lie in any partition.
    """
    disk = device.disk()
    for _ in range(_LOOKS):
        before = _written(disk)
        parts = sum(_written(part) for part in disk.partitions())
        if _written(disk) == before:
            return before - parts
    return None


def _written(device: BlockDevice) -> int:
    counters = device.counters()
    return counters.write_sectors + counters.discard_sectors


def _backing_file(device: BlockDevice) -> list[int] | None:
    """For a loop device, values that change when its file is written by another way; None for other devices.

    A write to any partition of the loop device changes them as well, which may cause a comparison that was not needed.
    """
    path = device.backing_file()
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
