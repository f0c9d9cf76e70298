"""Whether anything uses a block device, asked of the kernel and never of a mount table.

A mount in any mount namespace, swap, device-mapper, md and bcache hold their devices exclusively: then an exclusive open fails
(open(2), ``bd_prepare_to_claim``). Loop devices over a device do not, nor do programs such as a virtual machine's
emulator: these are found among the loop devices, and among the open files of all processes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from pydbt.core.errors import DeviceError
from pydbt.core.printable import printable
from pydbt.device.mount_kinds import MountKinds
from pydbt.device.mounts import swap_paths
from pydbt.device.stacking import places_under, same_place
from pydbt.device.sysfs import BlockDevice, all_disks
from pydbt.posix.files import read_entry

_PROC = Path("/proc")
# Any user can have as many files open as he has processes times descriptors. It takes some 10 us to look at one.
_LOOK_S = 5.0


def is_held(path: str) -> bool:
    """Whether a block device has an exclusive user, whatever namespace that is in. OSError when it cannot be opened."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise
    return False


def is_used(device: BlockDevice) -> bool:
    """Whether anything may write to a device, as far as the kernel shows; True when it does not show it."""
    try:
        return is_held(device.path) or bool(other_user(device))
    except (OSError, DeviceError):
        return True


def other_user(device: BlockDevice) -> str:
    """Who may write to a device without holding it exclusively, and the remedy; empty when nobody. OSError, DeviceError.

    A loop device over it, or a program that has it, its disk or a partition of it open for writing. Who only reads, as a
    monitoring program does, is none.
    """
    return _loop_over(device) or _writing_program(device)


def swap_on(device: BlockDevice) -> list[str]:
    """The swap areas that lie on a device: itself, a partition or volume of it, or a file on it."""
    return [path for path in swap_paths() if any(same_place(device, layer) for layer in places_under(path))]


def out_of_reach(stack: list[BlockDevice], reached: Collection[tuple[int, int]]) -> BlockDevice | None:
    """A device that has a user which is neither one of the mounts that were found nor another device of the stack.

    ``stack``: a device and all that is built on it; ``reached``: the devices of the mounts that were found.
    """
    known = {part.number for part in stack if part.number in reached or part.holders()}
    # A claim of a partition is one of its disk as well, and the other way round (bd_may_claim).
    known |= {part.disk_number for part in stack if part.number in known}
    for part in stack:
        with contextlib.suppress(OSError):  # it cannot be opened, so that no file system is on it
            if part.number not in known and part.disk_number not in reached and is_held(part.path):
                return part
    return None


def _loop_over(device: BlockDevice) -> str:
    for disk in all_disks():
        # Of other files, which may lie on a dead network file system, nothing is asked.
        file = disk.backing_file()
        if file and file.startswith("/dev/") and _overlaps(file, device):
            return f"it is attached to {disk.path}; detach it with losetup -d first"
    return ""


def _writing_program(device: BlockDevice) -> str:
    until = time.monotonic() + _LOOK_S
    kinds = MountKinds()
    for entry in _descriptors():
        if time.monotonic() > until:
            return f"the open files of this machine could not be looked at within {_LOOK_S:g} s; try again"
        with contextlib.suppress(OSError):  # closed, or its process has ended
            if _may_be_device(entry, kinds) and _overlaps(entry, device) and _is_for_writing(Path(entry)):
                process = entry.split("/")[2]
                name = read_entry(_PROC / process / "comm") or "unknown"
                return f"process {process} ({printable(name)}) has it open for writing; end it first"
    return ""


def _may_be_device(descriptor: str, kinds: MountKinds) -> bool:
    """Whether an open file is to be asked for its status. OSError.

    One on a dead network file system would not answer for ever. So the name comes first, and elsewhere than in ``/dev`` the kind
    of the file system: a node of the device may lie in a chroot, a container, or anywhere else.
    """
    name = os.readlink(descriptor)
    if name.startswith("/dev/"):
        return True
    return name.startswith("/") and _is_for_writing(Path(descriptor)) and kinds.may_hold_devices(descriptor)


def _descriptors() -> Iterator[str]:
    """The open files of all processes, one by one: a process can have a million."""
    for name in os.listdir(_PROC):
        if name.isdigit():
            with contextlib.suppress(OSError), os.scandir(_PROC / name / "fd") as entries:
                yield from (entry.path for entry in entries)


def _overlaps(path: str, device: BlockDevice) -> bool:
    try:
        status = os.stat(path)
        if not stat.S_ISBLK(status.st_mode):
            return False
        return BlockDevice.from_number(os.major(status.st_rdev), os.minor(status.st_rdev)).overlaps(device)
    except (OSError, DeviceError):
        return False


def _is_for_writing(descriptor: Path) -> bool:
    # Bytes, because a user chooses some of them: the name of a dma-buf for example is no text at all, if it likes.
    for line in (descriptor.parent.parent / "fdinfo" / descriptor.name).read_bytes().split(b"\n"):
        if line.startswith(b"flags:"):
            try:
                return int(line.removeprefix(b"flags:"), 8) & os.O_ACCMODE != os.O_RDONLY
            except ValueError:
                break
    return True
