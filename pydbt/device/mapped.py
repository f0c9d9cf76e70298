"""Snapshots of device-mapper volumes that were made without LVM, also while they are mounted.

While the snapshot exists, a device below the volume has the volume's own table, and the volume is a snapshot-origin over that
device. Afterwards the volume gets its table back. LVM does the same with its volumes. A table is changed while writers wait,
so that every write uses either the old or the new table (drivers/md/dm-snap.c, dm.c).

This works only for tables that just point at other devices: two devices with such a table do not disturb each other. The
table of an encrypted volume would need its key, and other targets keep state. Other programs may change tables as well. Their
change is left as it is, and the snapshot is not used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydbt.core.errors import DeviceError
from pydbt.device import mapper
from pydbt.device.checks import require_own_way
from pydbt.device.commands import CommandFailed
from pydbt.device.sysfs import BlockDevice, all_disks

_POINTING = {"linear", "striped"}
# Volumes with these UUIDs are excluded: LVM changes its own volumes, and layers have snapshots of their own.
_OTHERS = ("LVM-", "PYDBT-")
_BELOW_UUID = "PYDBT-BELOW-"
# Limits that the kernel sets again with each table, although an operator may have chosen them (dm_table_set_restrictions).
_CHOSEN = ("read_ahead_kb", "max_sectors_kb")


@dataclass(frozen=True, slots=True)
class SnapshotSpace:
    """The device for the data that snapshots keep, as found at the start. ``sequence`` differs when its number is used again."""

    device: BlockDevice
    sequence: int | None

    @classmethod
    def of(cls, path: str) -> SnapshotSpace:
        require_own_way(path, "the snapshot space")
        device = BlockDevice.identify(path)
        return cls(device, device.disk_sequence())

    def number(self) -> str:
        """The device's number. CommandFailed when the device is gone."""
        if self.device.has_gone(self.sequence):
            raise CommandFailed(f"the snapshot space {self.device.path} is gone")
        return mapper.number(self.device)


@dataclass(frozen=True, slots=True)
class MappedVolume:
    """A volume, by its device and its name in device-mapper. ``snapshot`` is the name of its snapshot."""

    device: BlockDevice
    name: str
    snapshot: str
    space: SnapshotSpace
    kind = "snapshot"

    @property
    def below(self) -> str:
        """The name of the device that has the volume's own table while the snapshot exists."""
        return below_of(self.snapshot)

    def take(self) -> BlockDevice:
        """Take a snapshot. CommandFailed when that fails; then call ``remove_leftover``."""
        self.remove_leftover()
        if mapper.has_loaded(self.name):
            raise CommandFailed(f"another program has loaded a table of {self.name}, which waits for its resume")
        table = mapper.table_of(self.name)
        if _others_in(table):
            raise CommandFailed(f"the table of {self.name} now does more than point at other devices")
        sectors = sum(int(row[1]) for row in table)
        mapper.create_hidden(self.below, f"{_BELOW_UUID}{self.snapshot}", table)
        mapper.bring_up_hidden(self.below)
        below = mapper.number_of(self.below)
        mapper.create_snapshot(self.snapshot, self.snapshot, sectors, below, self.space.number())
        with _chosen_limits(self.device):
            mapper.load_table(self.name, [["0", str(sectors), "snapshot-origin", below]])
            mapper.take_snapshot(self.name, self.snapshot, table)
        return mapper.device_of(self.snapshot)

    def disturbance(self) -> str:
        """The reason why the snapshot may be wrong: another program changed the volume's table meanwhile. Empty when none did."""
        if is_origin(self.name, self.below):
            return ""
        return f"another program changed the table of {self.name} while its snapshot was read"

    def remove_leftover(self) -> bool:
        """Put the volume's table back, resume it when it is suspended, and remove the snapshot. Returns whether there was one."""
        return remove_leftover(self.snapshot, self.name)


def mapped_volume(device: BlockDevice, snapshot: str, space: SnapshotSpace | None) -> MappedVolume | None:
    """The volume that a device is, when snapshots of it can be taken in this way and there is room for them; else None."""
    name = device.mapper_name()
    if space is None or not name or device.read_only or device.identity().get("dm_uuid", "").startswith(_OTHERS):
        return None
    if other_targets(name) and not is_origin(name, below_of(snapshot)):
        return None
    return MappedVolume(device, name, snapshot, space)


def other_targets(name: str) -> list[str]:
    """The kinds of targets in a volume's table that do more than point at other devices."""
    return _others_in(mapper.table_of(name))


def is_origin(name: str, below: str) -> bool:
    """Whether a volume's table is on ``below``, because a snapshot exists or existed."""
    return mapper.uuid_of(below).startswith(_BELOW_UUID) and _lies_on(mapper.table_of(name), below)


def snapshot_left_on(name: str) -> str:
    """The name of the snapshot that a killed run with any state directory left on a volume; empty when there is none."""
    table = mapper.table_of(name)
    if [row[2] for row in table] != ["snapshot-origin"]:
        return ""
    uuid = mapper.device_numbered(table[0][3]).identity().get("dm_uuid", "")
    return uuid.removeprefix(_BELOW_UUID) if uuid.startswith(_BELOW_UUID) else ""


def below_of(snapshot: str) -> str:
    return f"{snapshot}_below"


def remove_leftover(snapshot: str, name: str) -> bool:
    """Remove a snapshot and the device below its volume, which gets its own table back. Returns whether there was one.

    The volume is the device that is stacked on the lower one. When none is, and ``name`` is suspended, that is resumed.
    """
    below = below_of(snapshot)
    if mapper.uuid_of(below) != f"{_BELOW_UUID}{snapshot}":
        return False
    volumes = [volume for volume in _standing_on(below) if volume.mapper_name() != snapshot]
    for volume in volumes:
        _put_back(volume, below)
    if not volumes and mapper.is_suspended(name):
        mapper.forget_loaded(name)
    if mapper.uuid_of(snapshot) == f"{mapper.SNAPSHOT_UUID}{snapshot}":
        mapper.remove_device(snapshot)
    mapper.remove_device(below)
    return True


def _standing_on(name: str) -> list[BlockDevice]:
    try:
        holders = mapper.device_of(name).holders()
    except DeviceError:
        return []  # it has not had a table yet
    return [disk for disk in all_disks() if disk.name in holders]


def _put_back(volume: BlockDevice, below: str) -> None:
    name = volume.mapper_name()
    live = mapper.table_of(name)
    if not _lies_on(live, below):
        mapper.forget_loaded(name)
        return
    with _chosen_limits(volume):
        mapper.load_table(name, mapper.table_of(below))
        mapper.put_back(name, live)


@contextlib.contextmanager
def _chosen_limits(device: BlockDevice) -> Iterator[None]:
    """Restore the limits that an operator chose for a device, after its table was changed."""
    queue = Path(f"/sys/dev/block/{mapper.number(device)}/queue")
    before = {}
    for limit in _CHOSEN:
        with contextlib.suppress(OSError):
            before[queue / limit] = (queue / limit).read_text()
    try:
        yield
    finally:
        for path, value in before.items():
            with contextlib.suppress(OSError):
                if path.read_text() != value:
                    path.write_text(value)


def _lies_on(table: mapper.Table, below: str) -> bool:
    return [row[2:] for row in table] == [["snapshot-origin", mapper.number_of(below)]]


def _others_in(table: mapper.Table) -> list[str]:
    if not table:
        raise DeviceError("a device-mapper volume has no table")
    return sorted({row[2] for row in table} - _POINTING)
