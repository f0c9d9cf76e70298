"""What tells after a clean stop whether the device was written while nobody tracked it."""

from __future__ import annotations

import os

from pydbt.device.block import DirectReader
from pydbt.device.fingerprint import fingerprint
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.boot import boot_id

Marker = dict[str, object]

# Others write to their partitions of the disk all the time: so many looks for an instant between two of their writes.
_LOOKS = 200


def clean_marker(device: BlockDevice, reader: DirectReader) -> Marker:
    """The kernel's own counts, which hold for this boot, and for a later one what the file system tells of itself.

    The file system's word is taken only of one that nobody has mounted: another would be written at its unmounting.
    """
    at_rest = not device.mounts() and not device.holders()
    return {"boot_id": boot_id(), **(_counts(device) or {}), "filesystem": fingerprint(reader) if at_rest else None}


def is_untouched(marker: Marker, device: BlockDevice, reader: DirectReader) -> bool:
    """Whether nothing was written since ``marker`` was made, as far as kernel and file system can tell."""
    if marker.get("boot_id") == boot_id():
        counts = _counts(device)
        return counts is not None and {name: marker.get(name) for name in counts} == counts
    # A file system that is mounted already has been written by that.
    kept = marker.get("filesystem")
    return kept is not None and not device.mounts() and kept == fingerprint(reader)


def _counts(device: BlockDevice) -> Marker | None:
    """What changes within a boot with every write to the device; None when that cannot be told."""
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


def _past_partitions(device: BlockDevice) -> int | None:
    """Sectors written to the disk itself and not to one of its partitions; None when others write too fast to tell.

    A disk counts what its partitions count as well (``part_stat_add``), and alone what was written by its own name, which
    may lie in any of them.
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
    """Of a loop device, what changes when the file behind it is written without it; None for others.

    It changes with every partition of it: such a neighbour may have a comparison made that was not needed.
    """
    path = device.backing_file()
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
