"""What lies on a volume, by the numbers that the kernel gives it: the file systems whose pages become the volume's writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydbt.core.errors import DeviceError
from pydbt.device.file_handles import MountPoint
from pydbt.device.mounts import Mount, devices_of_mount, mounts_on, one_of_each
from pydbt.device.sysfs import BlockDevice

_MINOR_BITS = 20  # include/linux/kdev_t.h
_LEVELS_MAX = 16
_OWN_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class WrittenPlaces:
    """``mounted``: for each number, whether a file system is mounted from that block device.

    ``points``: a place where each file system is mounted, by its number: in this mount namespace, if there is one.
    """

    mounted: dict[int, bool]
    points: dict[int, MountPoint]


def written_places(device: BlockDevice) -> WrittenPlaces:
    """For a thread: any user can make the tables of mounts long. DeviceError when the device is gone."""
    stack = _stack_on(device)
    mounts = mounts_on(stack)
    sources = {number for mount in mounts for number in devices_of_mount(mount)}
    mounted = {kernel_number(*number): number in sources for number in stack}
    for mount in mounts:  # of a file system on several devices, a number of its own
        mounted.setdefault(kernel_number(mount.major, mount.minor), False)
    return WrittenPlaces(mounted, _points(mounts))


def own_mounts() -> bytes:
    """The table of this mount namespace: as long as it is the same, so are the places that most people have."""
    return _OWN_MOUNTS.read_bytes()


def kernel_number(major: int, minor: int) -> int:
    """As in super_block.s_dev."""
    return major << _MINOR_BITS | minor


def _points(mounts: Iterable[Mount]) -> dict[int, MountPoint]:
    return {kernel_number(one.major, one.minor): MountPoint(one.point, one.mount_id) for one in one_of_each(mounts)}


def _stack_on(device: BlockDevice) -> set[tuple[int, int]]:
    """The device, its partitions, and everything that holds these: device-mapper, md."""
    found: set[tuple[int, int]] = set()
    folders = [Path(f"/sys/dev/block/{device.major}:{device.minor}")]
    for _ in range(_LEVELS_MAX):
        above: list[Path] = []
        for folder in folders:
            number = _number_in(folder)
            if number is None or number in found:
                continue
            found.add(number)
            above += [one.parent for one in folder.glob("*/partition")] + list(folder.glob("holders/*"))
        folders = above
    if not found:
        raise DeviceError(f"{device.path} is gone")
    return found


def _number_in(folder: Path) -> tuple[int, int] | None:
    try:
        major, minor = (folder / "dev").read_text().split(":")
    except (OSError, ValueError):
        return None
    return int(major), int(minor)
