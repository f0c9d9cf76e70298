"""What lies below a volume, and whether that shows a change of its content that no write to the volume explains.

A snapshot that is merged rolls a volume back, and a file behind a loop device can be written by its name: neither is a write to
the device, so programs and counters on the device agree all the same. But it shows below: in the tables of device-mapper, in
the number of changes of an LVM volume group, in the times of the file.
Sources: drivers/md/dm-snap.c (snapshot-merge), Documentation/admin-guide/device-mapper/snapshot.rst, drivers/block/loop.c.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

# While a device has this target, the content of its snapshot takes the place of its own.
_MERGING = "snapshot-merge"
_LVM = "LVM-"
_LVM_ID_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Mapping:
    """A device of device-mapper: its name, the kinds of its targets, and a digest of its table."""

    name: str
    kinds: str
    digest: str


@dataclass(frozen=True, slots=True)
class LoopFile:
    """The file behind a loop device: device, inode, time of its last write and of its last change.

    ``written_sectors`` is the count of the loop device's own writes that have completed; None when it is unknown, or was not
    taken while the device was at rest. Then nobody can tell whose write the times are of.
    """

    name: str
    device: int
    inode: int
    written_ns: int
    changed_ns: int
    written_sectors: int | None


@dataclass(frozen=True, slots=True)
class Below:
    """All that lies below a volume, by device number, and the changes of its volume groups by their identifiers.

    It is true in one boot. ``groups`` is None where it was not asked for, or LVM did not tell.
    """

    boot_id: str
    mappings: dict[str, Mapping] = field(default_factory=dict)
    files: dict[str, LoopFile] = field(default_factory=dict)
    groups: dict[str, int] | None = None

    def to_values(self) -> dict[str, Any]:
        """For the state file."""
        return {
            "boot_id": self.boot_id,
            "mappings": {number: [one.name, one.kinds, one.digest] for number, one in self.mappings.items()},
            "files": {
                number: [one.name, one.device, one.inode, one.written_ns, one.changed_ns, one.written_sectors]
                for number, one in self.files.items()
            },
            "groups": self.groups,
        }

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Below:
        """ValueError, TypeError or KeyError when they are none."""
        return cls(
            values["boot_id"],
            {number: Mapping(*one) for number, one in values["mappings"].items()},
            {number: LoopFile(*one) for number, one in values["files"].items()},
            values["groups"],
        )

    @property
    def at_rest(self) -> bool:
        """Whether every later write past a loop device will show."""
        return all(one.written_sectors is not None for one in self.files.values())


def mapping(name: str, table: list[list[str]]) -> Mapping:
    """``table``: its rows as ``dmsetup table`` prints them, which hides keys."""
    kinds = dict.fromkeys(row[2] for row in table if len(row) > 2)
    text = "\n".join(" ".join(row) for row in table)
    return Mapping(name, ", ".join(kinds) or "without a table", hashlib.sha256(text.encode()).hexdigest()[:32])


def group_of(dm_uuid: str) -> str | None:
    """The identifier of the volume group that a device of this UUID belongs to, without hyphens; None for other devices."""
    rest = dm_uuid.removeprefix(_LVM)
    return rest[:_LVM_ID_LENGTH] if rest != dm_uuid and len(rest) >= 2 * _LVM_ID_LENGTH else None


def change_at_rest(before: Below, now: Below) -> str:
    """Why the content may have changed while no controller held the device; empty when nothing shows that."""
    if before.boot_id != now.boot_id:
        return ""  # numbers mean something else; what else is known of another boot is judged elsewhere
    for number, one in before.mappings.items():
        other = now.mappings.get(number)
        if other is None:
            return f"{one.name} is no longer below the volume"
        if other != one:
            was = f"it was {one.kinds}, and is {other.kinds}" if other.kinds != one.kinds else f"still {one.kinds}"
            return f"the table of {other.name} has changed ({was}): a snapshot that is merged does that"
    if before.groups and now.groups != before.groups:
        return "the volume group has changed: a snapshot can have been made and merged in it"
    return _change_of_files(before, now)


def change_while_held(before: Below, now: Below) -> str:
    """The same between two looks while a controller holds the device open.

    Then LVM puts a merge off; snapshots come and go, and parts of the volume move, without a change of its content.
    """
    for number, one in now.mappings.items():
        was = before.mappings.get(number)
        if was is not None and _MERGING in one.kinds and _MERGING not in was.kinds:
            return f"a snapshot is being merged into {one.name}"
    return _change_of_files(before, now)


def look_to_keep(kept: Below | None, before: Below | None, now: Below, *, own_snapshots: bool, final: bool) -> Below:
    """The look that the next start compares with. One at a loop device under load would be out of date at once.

    ``kept``: what was to be compared with until now; ``before``, ``now``: the last two looks. ``own_snapshots``: the run makes
    snapshots itself. ``final``: nothing writes any more.
    """
    kept = kept or now
    if own_snapshots:  # a killed run's own snapshot is removed before the next start looks
        now = replace(now, mappings=kept.mappings, groups=None)
    elif now.mappings != kept.mappings or now.groups != kept.groups:
        kept = replace(now, files=kept.files)
    files_rest = before is not None and now.at_rest and now.files == before.files
    return replace(kept, groups=now.groups, files=now.files if files_rest or final else kept.files)


def _change_of_files(before: Below, now: Below) -> str:
    for number, one in before.files.items():
        other = now.files.get(number)
        if other is None or (other.device, other.inode) != (one.device, one.inode):
            return f"another file is behind {one.name}"
        times = (other.written_ns, other.changed_ns) != (one.written_ns, one.changed_ns)
        if times and one.written_sectors is not None and other.written_sectors == one.written_sectors:
            return f"the file behind {one.name} was changed past it"
    return ""
