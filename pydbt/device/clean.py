"""What tells after a clean stop whether the device was written while nobody tracked it."""

from __future__ import annotations

from pydbt.device.block import DirectReader
from pydbt.device.fingerprint import fingerprint
from pydbt.device.sysfs import BlockDevice, boot_id

Marker = dict[str, object]


def clean_marker(device: BlockDevice, reader: DirectReader) -> Marker:
    """The kernel's own counts, which hold for this boot, and for a later one what the file system tells of itself.

    The file system's word is taken only of one that nobody has mounted: another would be written at its unmounting.
    """
    at_rest = not device.mounts() and not device.holders()
    return {**_counts(device), "filesystem": fingerprint(reader) if at_rest else None}


def is_untouched(marker: Marker, device: BlockDevice, reader: DirectReader) -> bool:
    """Whether nothing was written since ``marker`` was made, as far as kernel and file system can tell."""
    if marker.get("boot_id") == boot_id():
        return device.counts_io() and {name: marker.get(name) for name in _counts(device)} == _counts(device)
    # A file system that is mounted already has been written by that.
    kept = marker.get("filesystem")
    return kept is not None and not device.mounts() and kept == fingerprint(reader)


def _counts(device: BlockDevice) -> Marker:
    counters = device.counters()
    return {
        "boot_id": boot_id(),
        "disk_sequence": device.disk_sequence(),
        "write_sectors": counters.write_sectors,
        "discard_sectors": counters.discard_sectors,
    }
