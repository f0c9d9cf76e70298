"""A device-mapper layer on a raw disk, made before it is mounted, so that snapshots of it can be taken.

``/dev/mapper/NAME`` is a snapshot-origin target over the disk, and passes everything through until a snapshot stands; its
``NAME-space`` holds the device for what a snapshot keeps. Both go with a reboot, and are made again by the same command
(drivers/md/dm-snap.c; Documentation/admin-guide/device-mapper/snapshot.rst). All of it is done by ``dmsetup``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from dataclasses import dataclass

from pydbt.core.errors import BusyError, MachineError, UsageError
from pydbt.device.commands import CommandFailed, run_command
from pydbt.device.sysfs import BlockDevice

LAYER_UUID = "PYDBT-LAYER-"
_SPACE_UUID = "PYDBT-SPACE-"
_SNAPSHOT_UUID = "PYDBT-SNAPSHOT-"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,63}")
_CHUNK_SECTORS = 16
# Whoever suspends must come to the resume: a process of its own, which no signal to this one ends.
_TAKE = """trap '' INT TERM HUP
dmsetup suspend "$1" || exit 1
timeout 20 dmsetup create "$2" --uuid "$3" --table "$4"
code=$?
dmsetup resume "$1" || exit 1
exit $code"""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. Its snapshot, of which there is one at a time, has a name of its own, by which a leftover is known."""

    name: str
    kind = "snapshot"

    @property
    def snapshot(self) -> str:
        """The name of its snapshot in /dev/mapper."""
        return f"{self.name}-pydbt-snapshot"

    def take(self) -> BlockDevice:
        """A snapshot of now. CommandFailed when there is none to be had; the layer is not suspended then."""
        size, origin = _table(self.name)
        table = f"0 {size} snapshot {origin} /dev/mapper/{self.name}-space N {_CHUNK_SECTORS}"
        words = (self.name, self.snapshot, f"{_SNAPSHOT_UUID}{self.name}", table)
        run_command("sh", "-c", _TAKE, "sh", *words, own_session=True)
        return BlockDevice.identify(f"/dev/mapper/{self.snapshot}")

    def remove_leftover(self) -> bool:
        """Remove the snapshot, and let the layer go on if it is suspended; whether there was any."""
        if _exists(self.name) and "SUSPENDED" in run_command("dmsetup", "info", self.name):
            run_command("dmsetup", "resume", self.name)
        if not _exists(self.snapshot):
            return False
        run_command("dmsetup", "remove", "--retry", self.snapshot)
        return True


def layer_of(device: BlockDevice) -> Layer | None:
    """The layer that a device is, if it is one."""
    uuid = device.identity().get("dm_uuid", "")
    return Layer(uuid.removeprefix(LAYER_UUID)) if uuid.startswith(LAYER_UUID) else None


def create_layer(path: str, name: str, space_path: str) -> str:
    """Make ``/dev/mapper/name`` over a device; what it is. Nothing is written to the device itself.

    What ``space_path`` holds is overwritten by snapshots.
    """
    if shutil.which("dmsetup") is None:
        raise MachineError("dmsetup is not installed here: install it (Debian: dmsetup)")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a layer: use letters, digits, _ and . (up to 64)")
    if os.path.exists(f"/dev/mapper/{name}") or _exists(name):
        raise BusyError(f"/dev/mapper/{name} exists already: choose another name")
    device, space = BlockDevice.identify(path), BlockDevice.identify(space_path)
    if device.overlaps(space):
        raise UsageError(f"the snapshot space {space_path} is (a part of) {path} itself: name another device")
    for one, given in ((device, path), (space, space_path)):
        _require_free(one, given)
    with contextlib.ExitStack() as undo:
        for suffix, uuid, one, target in (
            ("-space", _SPACE_UUID, space, "linear {} 0"),
            ("", LAYER_UUID, device, "snapshot-origin {}"),
        ):
            table = f"0 {one.size_sectors} " + target.format(f"{one.major}:{one.minor}")
            run_command("dmsetup", "create", f"{name}{suffix}", "--uuid", f"{uuid}{name}", "--table", table)
            undo.callback(run_command, "dmsetup", "remove", "--retry", f"{name}{suffix}")
        undo.pop_all()
    return f"/dev/mapper/{name}"


def remove_layer(name: str) -> None:
    """Take a layer away, and leave its device as it is. BusyError while it is in use."""
    name = name.removeprefix("/dev/mapper/")
    path = f"/dev/mapper/{name}"
    if not os.path.exists(path) or (layer := layer_of(BlockDevice.identify(path))) is None:
        raise UsageError(f"{name} is no layer made by 'controller layer create'")
    _require_free(BlockDevice.identify(path), path)
    layer.remove_leftover()
    for suffix in ("", "-space"):
        if _exists(f"{name}{suffix}"):
            run_command("dmsetup", "remove", "--retry", f"{name}{suffix}")


def _require_free(device: BlockDevice, path: str) -> None:
    for part in (device, *device.partitions()):
        if mounts := part.mounts():
            raise BusyError(f"{path} is in use: {part.path} is mounted at {mounts[0].point}; unmount it first")
    try:
        os.close(os.open(device.path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(f"{path} is in use: something holds it (a mount, swap, LVM, RAID); release it first") from None
        raise UsageError(f"{path} cannot be opened for writing: {error.strerror}") from None


def _exists(name: str) -> bool:
    try:
        run_command("dmsetup", "info", name)
    except CommandFailed:
        return False
    return True


def _table(name: str) -> tuple[int, str]:
    """(sectors, device below) of a layer."""
    _, size, target, below = run_command("dmsetup", "table", name).split()[:4]
    if target != "snapshot-origin":
        raise CommandFailed(f"{name} is a {target} now, and no layer any more")
    return int(size), below
