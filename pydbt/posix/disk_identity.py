"""The lasting names of a disk: those that it keeps when a reboot gives it another number and another ``/dev`` name.

``identifiers`` gives each kind apart, to compare two records kind by kind. ``lasting_name`` gives the best of them as
one text, ``lasting_names`` each of them. All are written into state files, so their form stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydbt.posix.files import read_entry

# In the order in which they are written down. A disk's own ``wwid`` counts before that of the device behind it.
_ENTRIES = {
    "dm_uuid": ("dm/uuid",),
    "md_uuid": ("md/uuid",),
    "wwid": ("wwid", "device/wwid"),
    "serial": ("serial", "device/serial"),
    "slot": (),
    "backing_file": ("loop/backing_file",),
}
_BEST_FIRST = ("dm_uuid", "md_uuid", "backing_file", "wwid", "serial", "slot")


def identifiers(disk: Path) -> dict[str, str]:
    """The identifiers of the disk with this folder in sysfs, by kind; empty when only its kernel name is known."""
    found = {kind: _first_of(disk, entries) for kind, entries in _ENTRIES.items()}
    if not found["wwid"] and not found["serial"]:
        found["slot"] = slot_of(disk)
    return {kind: value for kind, value in found.items() if value}


def differing_kinds(recorded: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The kinds of identifier whose values differ; a kind that either side lacks does not differ."""
    return sorted(kind for kind in recorded.keys() & now.keys() if recorded[kind] != now[kind])


def lasting_name(folder: Path) -> str:
    """One text for the disk or partition with this folder in sysfs; empty where the kernel knows nothing lasting."""
    found = lasting_names(folder)
    return next((found[kind] for kind in _BEST_FIRST if kind in found), "")


def lasting_names(folder: Path) -> dict[str, str]:
    """All such texts, by kind. The slot is among them also where the disk has a better name, which it may have got later."""
    part = read_entry(folder / "partition")
    disk = folder.resolve().parent if part else folder
    found = identifiers(disk)
    if slot := slot_of(disk):
        found["slot"] = f"slot:{slot}"
    if file := found.get("backing_file"):
        found["backing_file"] = f"{file}#{lasting_file_name(file)}"
    return {kind: f"{name}-part{part}" if part else name for kind, name in found.items()}


def lasting_file_name(file: int | str) -> str:
    """A text that differs between a file and a later one of the same path, which may have the same inode number.

    Empty when the file is not there; without the time of its birth where the file system does not keep it.
    """
    from pydbt.posix import libc  # only here, because most commands do without it

    try:
        inode, birth = libc.inode_and_birth(file)
    except OSError:
        return ""
    return f"{inode}" if birth is None else f"{inode}.{birth[0]}.{birth[1]}"


def slot_of(disk: Path) -> str | None:
    """The bus address of a virtio disk, given its folder in sysfs; None for other kinds.

    A virtio disk has a serial number only if the machine's maker gave it one, and vdb may have been vdc before a reboot.
    """
    device = Path(os.path.realpath(disk / "device"))
    return device.parent.name if device.name.startswith("virtio") else None


def _first_of(disk: Path, entries: tuple[str, ...]) -> str | None:
    return next((text for entry in entries if (text := read_entry(disk / entry))), None)
