"""Looks at what lies below a volume: tables of device-mapper, volume groups of LVM, files behind loop devices."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from pydbt.core.errors import DeviceError
from pydbt.core.tracking.below import Below, LoopFile, Mapping, change_at_rest, group_of, mapping
from pydbt.device.commands import run_command
from pydbt.device.mapper import table_of
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.boot import boot_id

# Until a loop device rests, it is looked at this often, this far apart.
_TRIES = 20
# LVM waits for its locks. It is asked from the loop that takes writes from the kernel.
_LVM_S = 10.0
_PAUSE_S = 0.005


def look_below(device: BlockDevice, *, groups: bool = False, patient: bool = False) -> Below:
    """What lies below a device now. DeviceError when a part of it cannot be looked at.

    ``groups``: ask LVM for its volume groups too, which takes a moment. ``patient``: wait for a loop device that is written.
    """
    mappings: dict[str, Mapping] = {}
    files: dict[str, LoopFile] = {}
    in_groups: set[str] = set()
    seen = set()
    waiting = [device.disk()]
    while waiting:
        disk = waiting.pop()
        if disk.number in seen:
            continue
        seen.add(disk.number)
        number = f"{disk.major}:{disk.minor}"
        if name := disk.mapper_name():
            mappings[number] = mapping(name, table_of(name))
            if group := group_of(disk.identity().get("dm_uuid", "")):
                in_groups.add(group)
        if (path := disk.backing_file()) is not None:
            files[number] = _file_behind(disk, path, _TRIES if patient else 1)
        waiting.extend(part.disk() for part in disk.slaves())
    return Below(boot_id(), mappings, files, _changes_of(in_groups) if groups else None)


def changed_below(kept: dict[str, Any] | None, device: BlockDevice) -> str:
    """Why the content of a device that no controller held may have changed below it; empty when nothing shows that.

    ``kept``: what was written down of the last look, None when there was none.
    """
    if not kept:
        return ""
    try:
        before = Below.from_values(kept)
    except (ValueError, TypeError, KeyError):
        return ""
    if before.boot_id != boot_id():
        return ""
    try:
        return change_at_rest(before, look_below(device, groups=bool(before.groups)))
    except (DeviceError, OSError) as error:
        return f"it cannot be looked at ({error})"


def _file_behind(disk: BlockDevice, path: str, tries: int) -> LoopFile:
    """The times count where no write of the loop device was under way before, meanwhile, or after."""
    while True:
        before, quiet = _written_sectors(disk), not disk.in_flight_writes()
        try:
            status = os.stat(path)
        except OSError as error:
            raise DeviceError(f"the file {path} behind {disk.path}: {error.strerror}") from None
        rests = quiet and not disk.in_flight_writes() and before == _written_sectors(disk)
        tries -= 1
        if rests or tries <= 0:
            times = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
            return LoopFile(disk.path, *times, before if rests else None)
        time.sleep(_PAUSE_S)


def _written_sectors(disk: BlockDevice) -> int | None:
    """A loop device counts a request when its file has been written."""
    if not disk.counts_io():
        return None
    counters = disk.counters()
    return counters.write_sectors + counters.discard_sectors


def _changes_of(groups: set[str]) -> dict[str, int] | None:
    """LVM's number of changes of each volume group; empty without any, None when LVM does not tell."""
    if not groups:
        return {}
    try:
        text = run_command("vgs", "-o", "vg_uuid,vg_seqno", "--reportformat", "json", patience_s=_LVM_S)
        return changes_in(text, groups)
    except DeviceError:
        return None


def changes_in(text: str, groups: set[str]) -> dict[str, int]:
    """The numbers of these groups in a report of ``vgs``, whose identifiers have hyphens. DeviceError when it is none."""
    try:
        rows = json.loads(text)["report"][0]["vg"]
        found = {row["vg_uuid"].replace("-", ""): int(row["vg_seqno"]) for row in rows}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise DeviceError("vgs printed no report of the volume groups") from None
    return {group: found[group] for group in groups if group in found}
