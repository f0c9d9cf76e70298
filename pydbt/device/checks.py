"""Checks of SOURCE and TARGET before anything is done. Each refusal is one sentence: the fact that was found, and the remedy.

Every check here is made once, at the start. Later the secondary holds the target open exclusively, which prevents a mount or
a swap area on it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pydbt.core.errors import BusyError, DeviceError, MachineError, NotThere, UsageError
from pydbt.device.dax import unseen_stores
from pydbt.device.mounts import swap_paths
from pydbt.device.retargeted import unseen_completions
from pydbt.device.spread import refuse_spread
from pydbt.device.stacking import kept_in, loops_on_file, places_under, same_place
from pydbt.device.sysfs import BlockDevice
from pydbt.device.target import NO_SUCH_DEVICE, in_devices
from pydbt.device.usage import other_user
from pydbt.posix.held_device import take_held
from pydbt.posix.ownership import file_intruder, way_intruder


def require_root(program: str = "this command", because: str = "it reads block devices and loads eBPF") -> None:
    """MachineError unless the effective user is root."""
    if os.geteuid() != 0:
        raise MachineError(f"{program} must run as root, because {because}: use sudo")


def check_source(path: str | os.PathLike[str], state_dir: str | os.PathLike[str]) -> BlockDevice:
    """The device that SOURCE names, when it can be replicated with its state in ``state_dir``, which need not exist yet."""
    require_root("controller run")
    require_own_way(path, "SOURCE")
    device = BlockDevice.identify(path)
    if device.size_bytes == 0:
        raise NotThere(f"{path} has a size of 0: attach or set up the device before replicating it")
    if unseen := unseen_completions(device):
        raise UsageError(unseen)
    _refuse_state_on(device, path, state_dir, "SOURCE")
    refuse_spread(device)
    if unseen := unseen_stores(device, at_start=True):
        raise UsageError(unseen)
    return device


@contextlib.contextmanager
def had_before(record: Path) -> Iterator[None]:
    """A device that is not there has disappeared, and is no wrong word, where this file tells that it was replicated before.

    A service tries again then: the device may come back.
    """
    try:
        yield
    except NotThere as error:
        if record.exists():
            raise DeviceError(f"{error}; it was there before, and is waited for if a service runs this") from None
        raise


def require_own_way(path: str | os.PathLike[str], role: str) -> None:
    """UsageError when a link or folder on the way to a device or file could be turned to another one by another user."""
    if wrong := way_intruder(path):
        raise UsageError(f"{role} {path} is not safe from other users: {wrong}")


def check_target(
    path: str | os.PathLike[str],
    source: BlockDevice | str | os.PathLike[str] | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    *,
    size_bytes: int | None = None,
    create_bytes: int | None = None,
) -> BlockDevice | None:
    """The device that TARGET names, or None for an image file, when it can be overwritten.

    ``source`` is the replicated device, when it belongs to this machine. ``size_bytes`` is the least size of the target.
    ``create_bytes`` allows the image file to be absent (it is not made here). Only a device needs root.
    """
    target = os.fspath(path)
    require_own_way(target, "TARGET")
    try:
        status = os.stat(target)
    except FileNotFoundError:
        _check_missing(target, create_bytes)
        status = None
    except OSError as error:
        raise UsageError(f"TARGET {target} cannot be looked at: {error.strerror}") from error
    if status is not None and not stat.S_ISREG(status.st_mode):
        require_root("this command", "TARGET is a device, which it takes for itself and writes to")
    if source is not None:
        check_pair(source, target)
    device = None
    if status is None:
        have_bytes = create_bytes or 0
    elif stat.S_ISBLK(status.st_mode):
        device = BlockDevice.identify(target)
        _check_free_device(device, target)
        have_bytes = device.size_bytes
        if state_dir is not None:
            _refuse_state_on(device, target, state_dir, "TARGET")
    elif stat.S_ISREG(status.st_mode):
        if in_devices(target):
            raise UsageError(
                f"TARGET {target} is a regular file among the devices, which lies in memory: remove it, and name a device "
                "(lsblk lists them) or an image file on a disk"
            )
        if wrong := file_intruder(target, status):  # it is asked again of the file that is opened
            raise UsageError(f"TARGET {target} is not safe from other users: {wrong}")
        _check_free_file(target)
        have_bytes = status.st_size
    else:
        raise UsageError(f"TARGET {target} is neither a block device nor an image file: name one of the two")
    if size_bytes is not None and have_bytes < size_bytes:
        raise UsageError(f"TARGET {target} is smaller ({have_bytes} bytes) than SOURCE ({size_bytes} bytes)")
    return device


def check_pair(source: BlockDevice | str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Refuse a TARGET of this machine that is SOURCE, shares sectors with it, lies on it, or carries it."""
    if not isinstance(source, BlockDevice):
        source = BlockDevice.identify(source)
    target_layers = places_under(target) if os.path.exists(target) else places_under(_existing_parent(target))
    source_layers = places_under(source.path)
    top = target_layers[0] if target_layers and os.path.exists(target) else None
    if isinstance(top, BlockDevice) and top.number == source.number:
        raise UsageError(f"TARGET {target} is the SOURCE itself: replicate to another device")
    if isinstance(top, BlockDevice) and top.overlaps(source):
        raise UsageError(_overlap(source, top, os.fspath(target)))
    if any(same_place(source, layer) for layer in target_layers):
        raise UsageError(
            f"TARGET {target} lies on SOURCE {source.path}, so that every write would cause another: "
            "put it on another disk"
        )
    if top is not None and any(same_place(top, layer) for layer in source_layers):
        raise UsageError(f"SOURCE {source.path} lies on TARGET {target}, which would be overwritten: use another")
    file, other = kept_in(source_layers), kept_in(target_layers)
    neighbours = isinstance(top, BlockDevice) and top.disk_number == source.disk_number
    if top is not None and file and other and file.overlaps(other) and not neighbours:
        raise UsageError(f"TARGET {target} and SOURCE {source.path} are both kept in {file.path}: use another target")


def require_unused(device: BlockDevice, path: str) -> None:
    """BusyError when a device or a part of it is in use, also by who does not hold it; UsageError when it is read-only."""
    for part in (device, *device.partitions()):
        if mounts := part.mounts():
            raise BusyError(f"{path} is in use: {part.path} is mounted at {mounts[0].point}; unmount it first")
    if not _opens_alone(device.path, path):
        raise BusyError(f"{path} is in use: a mount, swap, LVM, RAID or another program holds it; release it first")
    _refuse_other_user(device, path)


def state_on_source(device: BlockDevice, state_dir: str | os.PathLike[str]) -> bool:
    """Whether files in ``state_dir`` lie on ``device``; while it is missing, files beside it count."""
    return any(same_place(device, layer) for layer in places_under(_existing_parent(state_dir)))


def _refuse_state_on(
    device: BlockDevice, path: str | os.PathLike[str], state_dir: str | os.PathLike[str], role: str
) -> None:
    if state_on_source(device, state_dir):
        raise UsageError(
            f"the state directory {state_dir} lies on {role} {path} itself, so that every write would cause another: "
            "choose a directory on another disk with --state"
        )


def _check_missing(target: str, create_bytes: int | None) -> None:
    if in_devices(target):
        raise NotThere(f"TARGET {target} does not exist: {NO_SUCH_DEVICE}")
    if os.path.islink(target):
        raise UsageError(
            f"TARGET {target} is a symbolic link to {os.readlink(target)}, which does not exist: name that file itself, or "
            "remove the link"
        )
    if create_bytes is None:
        raise NotThere(f"TARGET {target} does not exist: to make an image file there, add --create SIZE")
    if not Path(target).parent.is_dir():
        raise UsageError(f"TARGET {target} cannot be created, because {Path(target).parent} is not a directory")


def _check_free_device(device: BlockDevice, target: str) -> None:
    """Refuse a device that anything uses: itself, one of its partitions, or the disk around it."""
    for part in (device, *device.partitions()):
        name = target if part is device else f"{part.path}, a partition of it,"
        if mounts := part.mounts():
            raise BusyError(f"TARGET {target} is in use: {name} is mounted at {mounts[0].point}; unmount it first")
        if part.is_swap():
            raise BusyError(f"TARGET {target} is in use: {name} is swap; run swapoff first")
        if holders := part.holders():
            raise BusyError(f"TARGET {target} is in use: {name} is held by {', '.join(holders)}; release it first")
    if device.is_partition and (mounts := device.disk().mounts()):
        raise BusyError(f"TARGET {target} is in use: the whole disk is mounted at {mounts[0].point}; unmount it first")
    if device.read_only:
        raise UsageError(f"TARGET {target} is read-only: make it writable, or choose another device")
    if device.size_bytes == 0:
        raise UsageError(f"TARGET {target} has a size of 0: attach or set up the device first")
    if not _opens_alone(target, f"TARGET {target}") and not _is_handed_on(device):
        raise BusyError(
            f"TARGET {target} is in use: a mount, swap, RAID or another secondary holds it exclusively; "
            "release it first"
        )
    _refuse_other_user(device, f"TARGET {target}")


def _refuse_other_user(device: BlockDevice, name: str) -> None:
    """BusyError when a loop device or a program may write to a device, although nothing holds it exclusively."""
    try:
        user = other_user(device)
    except OSError as error:
        raise BusyError(f"{name} may be in use: its users cannot be looked for: {error.strerror}") from error
    if user:
        raise BusyError(f"{name} is in use: {user}")


def _opens_alone(path: str, name: str) -> bool:
    """Whether a block device has no exclusive user. UsageError, which calls it ``name``, when it cannot be written."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise UsageError(f"{name} cannot be opened for writing: {error.strerror}") from error
    return True


def _is_handed_on(device: BlockDevice) -> bool:
    """Whether what holds a device is `controller hold`, from which a secondary takes it over."""
    claim = take_held(os.makedev(device.major, device.minor))
    if claim is not None:
        os.close(claim)
    return claim is not None


def _check_free_file(target: str) -> None:
    if loops := loops_on_file(target):
        raise BusyError(
            f"TARGET {target} is in use: it is attached to {loops[0].path}; detach it with losetup -d first"
        )
    for swap in swap_paths():
        if os.path.exists(swap) and os.path.samefile(swap, target):
            raise BusyError(f"TARGET {target} is in use: it is swap; run swapoff first")
    if not os.access(target, os.R_OK | os.W_OK):
        raise UsageError(f"TARGET {target} cannot be written: its file system is mounted read-only")


def _overlap(source: BlockDevice, target: BlockDevice, name: str) -> str:
    if not source.is_partition:
        return (
            f"SOURCE {source.path} is a whole disk and TARGET {name} a partition of it: "
            "replicate the partitions one by one, to another disk"
        )
    if not target.is_partition:
        return f"TARGET {name} is the whole disk that SOURCE {source.path} is a partition of: use another disk"
    return f"TARGET {name} shares sectors with SOURCE {source.path}: use another device"


def _existing_parent(path: str | os.PathLike[str]) -> str:
    """The path itself, or the nearest folder above it that exists."""
    place = os.path.abspath(path)
    while not os.path.exists(place) and place != "/":
        place = os.path.dirname(place)
    return place
