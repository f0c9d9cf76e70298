"""Which snapshots a volume can have, one at a time, and whether one is still whole after it was read.

A snapshot of device-mapper keeps what is overwritten in a store, and is invalid once that is full: its reads fail then, and
its status says so, which is looked at after the last read. A thin one shares a pool, which may fill up as well.
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
    """A volume of which snapshots are taken, always under the same name, by which a leftover is known."""

    @property
    def kind(self) -> str:
        """``snapshot`` or ``thin``."""

    @property
    def snapshot(self) -> str:
        """The snapshot's name in device-mapper."""

    def take(self) -> BlockDevice:
        """A snapshot of now. CommandFailed when there is none to be had; ``remove_leftover`` tidies up after that."""

    def remove_leftover(self) -> bool:
        """Remove the snapshot that stands, if any. CommandFailed when that does not work; the next ``take`` tries again."""


@dataclass(frozen=True, slots=True)
class Room:
    """Where a volume's snapshots are. ``tag`` names the volume (its identifier), and so do their names.

    ``size_bytes`` bounds the store of a classic snapshot of LVM's, None: a share of the volume; ``space`` is the store of a
    device-mapper volume without LVM.
    """

    tag: str
    size_bytes: int | None = None
    space: SnapshotSpace | None = None

    @property
    def snapshot(self) -> str:
        return f"pydbt_{self.tag}"


def snapshotable(device: BlockDevice, room: Room) -> Snapshotable | None:
    """What snapshots can be taken of, if the device is such a thing and has room for them."""
    if not device.mapper_name():
        return None
    return (
        layer_of(device)
        or logical_volume(device, room.snapshot, room.size_bytes)
        or mapped_volume(device, room.snapshot, room.space)
    )


def require_room(device: BlockDevice, room: Room) -> None:
    """UsageError or BusyError when a device was named for snapshots of a volume that has no use for it, or cannot have it."""
    if room.space is None:
        return
    space = room.space.device
    given = f"--snapshot-space {space.path}"
    uuid = device.identity().get("dm_uuid", "")
    if layer_name(device):
        raise UsageError(f"{given}: a layer has its space since it was made; leave this out")
    if uuid.startswith("LVM-"):
        raise UsageError(
            f"{given}: LVM takes a snapshot's room from the volume group; give a size, as in 2G, or leave this out"
        )
    name = device.mapper_name()
    others = other_targets(name) if name else []
    if not name or others or device.read_only or uuid.startswith("PYDBT-"):
        kind = (
            "no device-mapper volume" if not name
            else f"a device-mapper volume of {', '.join(others)}" if others
            else "read-only" if device.read_only
            else "a part of a layer"
        )  # fmt: skip
        raise UsageError(
            f"{given}: {device.path} is {kind}, of which no snapshot can be taken while it is in use; leave this out, or give "
            "it a layer before it is mounted (controller layer create)"
        )
    if any(same_place(space, layer) for layer in places_under(device.path)):
        raise UsageError(f"{given}: {device.path} itself lies on that; name another device")
    if any(same_place(device, layer) for layer in places_under(space.path)):
        raise UsageError(f"{given}: that lies on {device.path} itself, and would wait for itself; name another device")
    if space.size_bytes < LEAST_STORE_BYTES:
        raise UsageError(f"{given} has {space.size_bytes} bytes, less than 1 MiB, which any write would fill")
    require_unused(space, space.path)


def problem_of(volume: Snapshotable) -> str:
    """Why what was read of a volume's snapshot is not to be trusted; empty when it is whole."""
    if isinstance(volume, MappedVolume) and (disturbed := volume.disturbance()):
        return disturbed
    status = run_command("dmsetup", "status", volume.snapshot).split()
    # "0 SECTORS snapshot USED/TOTAL METADATA", or a word instead; "0 SECTORS thin MAPPED HIGHEST", or "Fail".
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
    return f"the snapshot {volume.snapshot} failed ({reason}): look at the pool of a thin one"


def remove_left(room: Room, device: BlockDevice | None) -> bool:
    """Remove what a run that was killed left behind; whether there was any. ``device`` None: the volume is gone.

    Nobody else may be replicating the volume: what stands on it is anybody's who was killed, whatever his state directory.
    """
    name = device.mapper_name() if device else ""
    left = mapped.remove_leftover(room.snapshot, name)
    if device is None or not name:
        return left
    if foreign := mapped.snapshot_left_on(name):
        left = mapped.remove_leftover(foreign, name) or left
    volume = layer_of(device) or logical_volume(device, room.snapshot)
    return left or (volume is not None and volume.remove_leftover())
