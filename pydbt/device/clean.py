"""What tells after a clean stop whether the device was written while nobody tracked it."""

from __future__ import annotations

from pydbt.device.sysfs import BlockDevice, boot_id


def clean_marker(device: BlockDevice) -> dict[str, object]:
    """What tells later whether the device was written while nobody looked: the kernel's own counts of this boot."""
    counters = device.counters()
    return {
        "boot_id": boot_id(),
        "disk_sequence": device.disk_sequence(),
        "write_sectors": counters.write_sectors,
        "discard_sectors": counters.discard_sectors,
    }
