"""The snapshots that a volume can have, one at a time, and whether one is still whole after it was read.

A snapshot of device-mapper keeps overwritten data in a store, and is invalid when the store is full. Its reads fail then, and
its status shows that; the status is read after the last read. A thin snapshot shares a pool, which may become full as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydbt.core.errors import UsageError
from pydbt.core.units import MIB, SECTOR_BYTES
from pydbt.device import mapped
from pydbt.device.checks import require_unused
from pydbt.device.commands import run_command
from pydbt.device.layer import layer_name, layer_of
from pydbt.device.logical import logical_volume
from pydbt.device.mapped import MappedVolume, SnapshotSpace, mapped_volume, other_targets
from pydbt.device.stacking import places_under, same_place
from pydbt.device.sysfs import BlockDevice

LEAST_STORE_BYTES = MIB


class Snapshotable(Protocol):
    """A volume of which snapshots are taken, always with the same name, so that a leftover one is found."""

    @property
    def kind(self) -> str:
        """``snapshot`` or ``thin``."""

    @property
    def snapshot(self) -> str:
        """The snapshot's name in device-mapper."""

    def take(self) -> BlockDevice:
        """Take a snapshot. CommandFailed when that fails; then call ``remove_leftover``."""

    def remove_leftover(self) -> bool:
        """Remove the snapshot. Returns whether there was one. CommandFailed when that fails; the next ``take`` tries again."""


@dataclass(frozen=True, slots=True)
class Room:
    """The room for a volume's snapshots. ``tag``, the volume's identifier, is in their names.

    ``size_bytes`` is the store of a classic LVM snapshot; None: a share of the volume. ``space`` is the store of a
    device-mapper volume without LVM.
    """

    tag: str
    size_bytes: int | None = None
    space: SnapshotSpace | None = None

    @property
    def snapshot(self) -> str:
        return f"pydbt_{self.tag}"


def snapshotable(device: BlockDevice, room: Room) -> Snapshotable | None:
    """The volume that a device is, when snapshots of it can be taken and there is room for them; else None."""
    if not device.mapper_name():
        return None
    return (
        layer_of(device)
        or logical_volume(device, room.snapshot, room.size_bytes)
        or mapped_volume(device, room.snapshot, room.space)
    )


def require_room(device: BlockDevice, room: Room) -> None:
    """UsageError or BusyError when the device that was named for snapshots cannot be used for this volume."""
    if room.space is None:
        return
    space = room.space.device
    given = f"--snapshot-space {space.path}"
    uuid = device.identity().get("dm_uuid", "")
    if layer_name(device):
        raise UsageError(f"{given}: a layer got its space when it was made; leave this out")
    if uuid.startswith("LVM-"):
        raise UsageError(
            f"{given}: LVM takes a snapshot's room from the volume group: give a size, as in 2G, or leave this out"
        )
    name = device.mapper_name()
    others = other_targets(name) if name else []
    if not name or others or device.read_only or uuid.startswith("PYDBT-"):
        kind = (
            "not a device-mapper volume" if not name
            else f"a device-mapper volume of {', '.join(others)}" if others
            else "read-only" if device.read_only
            else "a part of a layer"
        )  # fmt: skip
        raise UsageError(
            f"{given}: {device.path} is {kind}, of which no snapshot can be taken while it is in use: leave this out, or give "
            "it a layer before it is mounted (controller layer create)"
        )
    if any(same_place(space, layer) for layer in places_under(device.path)):
        raise UsageError(f"{given}: {device.path} itself lies on that device: name another one")
    if any(same_place(device, layer) for layer in places_under(space.path)):
        raise UsageError(
            f"{given}: that device lies on {device.path} itself, and would wait for itself: name another one"
        )
    if space.size_bytes < LEAST_STORE_BYTES:
        raise UsageError(f"{given} has {space.size_bytes} bytes, less than 1 MiB, which any write would fill")
    require_unused(space, space.path)


def problem_of(volume: Snapshotable) -> str:
    """The reason why the data that was read from a volume's snapshot is not valid; empty when it is valid."""
    if isinstance(volume, MappedVolume) and (disturbed := volume.disturbance()):
        return disturbed
    status = run_command("dmsetup", "status", volume.snapshot).split()
    # "0 SECTORS snapshot USED/TOTAL METADATA" or a word in place of the numbers; "0 SECTORS thin MAPPED HIGHEST" or "Fail".
    words = status[3:4]
    if status[2:3] == ["snapshot"] and words and "/" in words[0]:
        used, total = (int(number) for number in words[0].split("/"))
        return "" if used < total else f"the snapshot's store of {total * SECTOR_BYTES} bytes is full"
    if status[2:3] == ["thin"] and words and (words[0].isdigit() or words[0] == "-"):
        return ""
    reason = " ".join(words) or "unknown"
    if status[2:3] == ["snapshot"]:
        return (
            f"the snapshot became invalid ({reason}) before everything was read: its store was full (--snapshot-space)"
        )
    return f"the snapshot {volume.snapshot} failed ({reason}): check its pool"


def remove_left(room: Room, device: BlockDevice | None) -> bool:
    """Remove the snapshots that a killed run left behind. Returns whether there were any. ``device`` None: the volume is gone.

    Call it only when no other controller replicates the volume: snapshots of a run with any state directory are removed.
    """
    name = device.mapper_name() if device else ""
    left = mapped.remove_leftover(room.snapshot, name)
    if device is None or not name:
        return left
    if foreign := mapped.snapshot_left_on(name):
        left = mapped.remove_leftover(foreign, name) or left
    volume = layer_of(device) or logical_volume(device, room.snapshot)
    return left or (volume is not None and volume.remove_leftover())
