"""Snapshots of device-mapper volumes that were made without LVM, also of mounted ones.

For as long as the snapshot stands, the volume's own table is that of a device below it, and the volume is a snapshot-origin
over that one; afterwards the table is put back. LVM does the same with its volumes. A table is changed while writers wait, so
that every write goes by the one or by the other (drivers/md/dm-snap.c, dm.c).

Only for tables that do nothing but point at other devices: two devices with one such table do not disturb each other.
An encrypted volume's would need its key, and others keep state of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.device import mapper
from pydbt.device.sysfs import BlockDevice

_POINTING = {"linear", "striped"}
# Not these: LVM's volumes are LVM's to change, and layers have snapshots of their own.
_OTHERS = ("LVM-", "PYDBT-")
_BELOW_UUID = "PYDBT-BELOW-"
_SNAPSHOT_UUID = "PYDBT-SNAPSHOT-"


@dataclass(frozen=True, slots=True)
class MappedVolume:
    """A volume by its name in device-mapper. ``snapshot`` is the name of its snapshot, ``space`` the device of what that keeps.

    ``space`` may be left out where a leftover is all that is looked for.
    """

    name: str
    snapshot: str
    space: BlockDevice | None = None
    kind = "snapshot"

    @property
    def below(self) -> str:
        """The name of the device that has the volume's own table meanwhile."""
        return below_of(self.snapshot)

    def take(self) -> BlockDevice:
        """A snapshot of now. CommandFailed when there is none to be had; ``remove_leftover`` tidies up after that."""
        assert self.space is not None
        self.remove_leftover()
        table = mapper.table_of(self.name)
        sectors = sum(int(row[1]) for row in table)
        mapper.create_hidden(self.below, f"{_BELOW_UUID}{self.snapshot}", "\n".join(map(" ".join, table)))
        mapper.bring_up_hidden(self.below)
        below = mapper.number_of(self.below)
        table_of_snapshot = mapper.snapshot_table(sectors, below, mapper.number(self.space))
        mapper.create_hidden(self.snapshot, f"{_SNAPSHOT_UUID}{self.snapshot}", table_of_snapshot)
        mapper.load(self.name, f"0 {sectors} snapshot-origin {below}")
        mapper.switch(self.name, self.snapshot)
        return mapper.device_of(self.snapshot)

    def remove_leftover(self) -> bool:
        """Put the volume's table back, let it go on if it is suspended, and remove the snapshot; whether there was any."""
        return remove_leftover(self.snapshot, self.name)


def mapped_volume(device: BlockDevice, snapshot: str, space: BlockDevice | None) -> MappedVolume | None:
    """The volume that a device is, if snapshots of it can be taken, or one is left, in this way."""
    name = device.mapper_name()
    if not name or device.identity().get("dm_uuid", "").startswith(_OTHERS):
        return None
    if not (mapper.uuid_of(below_of(snapshot)) or (space is not None and not other_targets(name))):
        return None
    return MappedVolume(name, snapshot, space)


def other_targets(name: str) -> list[str]:
    """The kinds of targets in a table that do more than point at other devices."""
    return sorted({row[2] for row in mapper.table_of(name)} - _POINTING)


def below_of(snapshot: str) -> str:
    return f"{snapshot}_below"


def remove_leftover(snapshot: str, name: str | None) -> bool:
    """Take a snapshot away, and the device below ``name``, which may be gone (None), as the volume's own table has it."""
    below = below_of(snapshot)
    if mapper.uuid_of(below) != f"{_BELOW_UUID}{snapshot}":
        return False
    if name is not None and mapper.exists(name):
        if [row[2:4] for row in mapper.table_of(name)] == [["snapshot-origin", mapper.number_of(below)]]:
            mapper.load(name, "\n".join(map(" ".join, mapper.table_of(below))))
            mapper.switch(name)
        else:
            mapper.forget_loaded(name)
    for left in (snapshot, below):
        if mapper.exists(left):
            mapper.remove(left)
    return True
