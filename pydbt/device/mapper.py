"""Requests to device-mapper: tables, names and numbers of its devices, new devices, and changes of tables under load.

All requests use ``dmsetup``, except those for which ``suspender`` gives a reason.
Documentation/admin-guide/device-mapper; a device number is written as in its tables, ``major:minor``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydbt.device.commands import CommandFailed, run_command
from pydbt.device.sysfs import BlockDevice

Table = list[list[str]]
SNAPSHOT_UUID = "PYDBT-SNAPSHOT-"
_IS_THERE = Path("/sys/class/misc/device-mapper")
# The unit in which a snapshot keeps overwritten data.
_CHUNK_SECTORS = 16


def exists(name: str) -> bool:
    """Whether device-mapper has a device of this name."""
    return _info(name) is not None


def is_suspended(name: str) -> bool:
    """Whether reads and writes of a device wait for a resume."""
    info = _info(name)
    return info is not None and info[1] == "Suspended"


def uuid_of(name: str) -> str:
    """A device's UUID; empty when there is no such device, or it has none."""
    info = _info(name)
    return "" if info is None else info[0]


def has_loaded(name: str) -> bool:
    """Whether a device has a table that waits for its next resume."""
    info = _info(name)
    return info is not None and info[2] in ("Inactive", "Both")


def _info(name: str) -> list[str] | None:
    """A device's UUID, its state and its tables, as dmsetup prints them; None when there is no such device.

    They come from the list of all devices, because dmsetup's error for an absent device does not differ from other errors.
    sysfs lacks devices that have not had a table yet.
    """
    if not _IS_THERE.exists():
        return None
    words = ("--noheadings", "--separator", "\t", "-o", "name,uuid,suspended,tables_loaded")
    for line in run_command("dmsetup", "info", "-c", *words).splitlines():
        first, *others = line.split("\t")
        if first == name:
            return others
    return None


def table_of(name: str) -> Table:
    """The live table, one row per target: its first sector, its length in sectors, its kind, its arguments."""
    return [line.split() for line in run_command("dmsetup", "table", name).splitlines() if line.strip()]


def only_target(name: str, wanted: str) -> tuple[int, list[str]]:
    """(sectors, arguments) of a device of one target. CommandFailed when the table has others, or one of another kind."""
    table = table_of(name)
    if [row[2:3] for row in table] != [[wanted]]:
        kinds = ", ".join(row[2] for row in table if len(row) > 2) or "nothing"
        raise CommandFailed(f"{name} is now {kinds}, and no longer {wanted}")
    return int(table[0][1]), table[0][3:]


def number_of(name: str) -> str:
    """A device's number, by its name in device-mapper."""
    words = ("--noheadings", "--separator", ":", "-o", "major,minor")
    return run_command("dmsetup", "info", "-c", *words, name).strip()


def number(device: BlockDevice) -> str:
    """Any device's number."""
    return f"{device.major}:{device.minor}"


def device_of(name: str) -> BlockDevice:
    """The block device of a name, by a path that needs no links."""
    return device_numbered(number_of(name))


def device_numbered(number: str) -> BlockDevice:
    """The block device of a number."""
    major, minor = number.split(":")
    return BlockDevice.from_number(int(major), int(minor))


def create_device(name: str, uuid: str, sectors: int, target: str) -> None:
    """Make a device of one target."""
    run_command("dmsetup", "create", name, "--uuid", uuid, "--table", f"0 {sectors} {target}")


def create_hidden(name: str, uuid: str, table: Table) -> None:
    """Make a device with a table that is only loaded. udev makes no links for it but the one of its name."""
    run_command("dmsetup", "create", name, "--notable", "--uuid", uuid)
    load_table(name, table)


def create_snapshot(name: str, of: str, sectors: int, origin: str, space: str) -> None:
    """Make a hidden snapshot for ``take_snapshot``. It ends with its device. ``of`` ends its UUID.

    ``origin`` and ``space`` are numbers (drivers/md/dm-snap.c; ``N``: nothing is kept for later).
    """
    table = [["0", str(sectors), "snapshot", origin, space, "N", str(_CHUNK_SECTORS)]]
    create_hidden(name, f"{SNAPSHOT_UUID}{of}", table)


def load_table(name: str, table: Table) -> None:
    """Give a device a table for its next resume."""
    run_command("dmsetup", "load", name, given=_text(table))


def forget_loaded(name: str) -> None:
    """Drop the loaded table of a device, and resume it with its live table when it is suspended."""
    run_command("dmsetup", "clear", name)
    if is_suspended(name):
        run_command("dmsetup", "resume", name)


def bring_up_hidden(name: str) -> None:
    """Activate a device made by ``create_hidden``."""
    _suspender("hidden", name)


def take_snapshot(name: str, snapshot: str, table: Table | None = None) -> None:
    """Activate a loaded snapshot between two writes to a device. A file system directly on the device is frozen for it.

    With ``table``, which must still be the device's live table, the device continues with its loaded table. CommandFailed
    when any step fails; the device then continues with the table that it had.
    """
    _suspender("take", name, snapshot, *([] if table is None else [_text(table)]))


def put_back(name: str, table: Table) -> None:
    """Activate the loaded table of a device between two writes, in place of ``table``."""
    _suspender("put-back", name, _text(table))


def _text(table: Table) -> str:
    return "\n".join(map(" ".join, table))


def _suspender(*words: str) -> None:
    """Run the suspender. It has no time limit, because a file system that is frozen writes out its dirty data."""
    program = str(Path(__file__).with_name("suspender.py"))
    run_command(sys.executable, "-I", "-S", program, *words, name="device-mapper", patience_s=None)


def remove_device(name: str) -> None:
    """Remove a device. CommandFailed when it stays in use for longer than a moment."""
    run_command("dmsetup", "remove", "--retry", name)


def is_named(name: str) -> bool:
    """Whether a name is in use, in device-mapper or as a path."""
    return os.path.exists(f"/dev/mapper/{name}") or exists(name)
