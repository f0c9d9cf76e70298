"""DAX: stores to a mapped file go to the memory of the device itself. No bio is made, and nothing sees them.

``queue/dax`` is 1 for a device whose memory can be mapped so. The default of a mount is ``dax=inode``, which no mount option
shows: each file with FS_XFLAG_DAX is mapped so then. Only ``dax=never`` rules it out
(Documentation/filesystems/dax.rst, v5.8).
"""

from __future__ import annotations

from pathlib import Path

from pydbt.device.mounts import devices_of_mount, every_mount
from pydbt.device.stacking import devices_above
from pydbt.device.sysfs import BlockDevice
from pydbt.device.usage import out_of_reach
from pydbt.posix.files import read_entry


def unseen_stores(device: BlockDevice, *, at_start: bool) -> str:
    """Why stores may go to a device that no program sees, as a sentence; empty when that cannot be.

    ``at_start``: a user of the device that cannot be asked counts as well.
    """
    if not maps_memory(device):
        return ""
    stack = devices_above(device)
    numbers = {part.number for part in stack}
    reached: set[tuple[int, int]] = set()
    for mount in every_mount():
        if not (devices := devices_of_mount(mount)) & numbers:
            continue
        reached |= devices
        if "dax=never" not in mount.super_options:
            return (
                f"{device.path} can be mapped with DAX, and the {mount.fs_type} at {mount.point} does not rule it out: such "
                "writes pass every program unseen; mount it with -o dax=never, and start again"
            )
    if at_start and (hidden := out_of_reach(stack, reached)):
        return (
            f"{device.path} can be mapped with DAX, and {hidden.path} is in use where its mount options cannot be read: "
            "release it, and start again"
        )
    return ""


def maps_memory(device: BlockDevice) -> bool:
    """Whether the memory of the device can be mapped."""
    return read_entry(Path(f"/sys/dev/block/{device.disk_major}:{device.disk_minor}/queue/dax")) == "1"
