"""How a still image of a source can be taken: by a snapshot, by freezing the file systems on it, or as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from dataclasses import dataclass

from pydbt.core.errors import UsageError
from pydbt.device.commands import COMMAND_PATH
from pydbt.device.freezer import mount_id_of_descriptor
from pydbt.device.logical import LogicalVolume
from pydbt.device.mounts import Mount, devices_of_mount, mounts_on, one_of_each
from pydbt.device.snapshot import Room, Snapshotable, snapshotable
from pydbt.device.stacking import devices_above, places_under, same_place
from pydbt.device.sysfs import BlockDevice
from pydbt.device.usage import out_of_reach


@dataclass(frozen=True, slots=True)
class Holdable:
    """``mounts``: one mount of each file system that is mounted for writing, to be frozen together. Empty: nothing to freeze.

    ``volume``: a volume of which a snapshot is taken instead. ``never_frozen``: the reason why freezing is not possible.
    """

    mounts: tuple[Mount, ...]
    volume: Snapshotable | None = None
    never_frozen: str = ""

    @property
    def kind(self) -> str:
        return self.volume.kind if self.volume else "freeze" if self.mounts else "quiescent"

    @property
    def apart(self) -> bool:
        """Whether the image is apart from the source, as a snapshot is."""
        return self.volume is not None


def look(device: BlockDevice, room: Room) -> Holdable:
    """How a still image of ``device`` can be taken. UsageError when no way is allowed.

    ``room`` is the room for its snapshots.

    The root file system is never frozen, because nothing could thaw it after a failure. The file system that this process
    logs to is not frozen either, because the process would wait for itself.
    """
    stack = devices_above(device)
    numbers = {part.number for part in stack}
    for part in stack:
        if part.is_swap():
            raise UsageError(
                f"{part.path} is swap, which is written at any time, so no still image is possible: with --capture addresses "
                "a volume needs moments without writes; use --capture payload"
            )
    found = mounts_on(numbers)
    reached = {number for mount in found for number in devices_of_mount(mount)}
    writable = [mount for mount in found if "ro" not in mount.super_options]
    mounts = one_of_each(writable)
    on_root = any(mount.point == "/" for mount in writable)
    never = f"{device.path} carries the root file system, which is never frozen" if on_root else ""
    logged = _logged_to(found)
    for mount in mounts:
        if not never and (mount.major, mount.minor) in logged:
            never = f"this controller logs to a file on {mount.point}, which must be frozen"
    if not never and (hidden := out_of_reach(stack, reached)):
        never = f"{hidden.path} is in use, perhaps mounted in a namespace without a process, and cannot be frozen"
    volume = snapshotable(device, room)
    if volume is not None and not isinstance(volume, LogicalVolume) and (on_root or _carries_programs(device)):
        volume = None  # after a failure while it is suspended no program could resume it; LVM locks its own programs in memory
    if never and volume is None:
        raise UsageError(
            f"{never}: use --capture payload, send the log elsewhere, or put the volume on LVM, for snapshots"
        )
    return Holdable(tuple(mounts), volume, never)


def _carries_programs(device: BlockDevice) -> bool:
    """Whether the programs that resume a suspended volume lie on it."""
    programs = (sys.executable, shutil.which("dmsetup", path=COMMAND_PATH))
    return any(same_place(device, layer) for program in programs if program for layer in places_under(program))


def _logged_to(mounts: list[Mount]) -> set[tuple[int, int]]:
    """The numbers of the file systems to which this process logs, those of ``mounts`` by their mount.

    Their points are not asked: in his own mount namespace another user has there what he likes, a link to the log for example.
    """
    numbers = {mount.mount_id: (mount.major, mount.minor) for mount in mounts}
    found = set()
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                # btrfs has another number in the status of its files.
                found.add((os.major(status.st_dev), os.minor(status.st_dev)))
                found.add(numbers.get(mount_id_of_descriptor(descriptor) or 0, (0, 0)))
    return found - {(0, 0)}
