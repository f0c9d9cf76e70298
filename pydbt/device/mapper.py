"""What is asked of device-mapper: tables, names and numbers of its devices, new ones, and changes under load.

All of it by ``dmsetup``, but for what ``suspender`` says it cannot do.
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
# What a snapshot keeps at once when a part of it is overwritten.
_CHUNK_SECTORS = 16


def exists(name: str) -> bool:
    """Whether device-mapper has a device of this name."""
    return _info(name) is not None


def is_suspended(name: str) -> bool:
    """Whether writes and reads of a device wait for somebody's resume."""
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
    """UUID, and whether it is suspended and what tables it has, in dmsetup's words; None when there is no such device.

    From the list of all of them: what is said of one that is not there is no different from other failures. sysfs lacks
    those that have had no table yet.
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
    """The live table, a row for each target: its first sector, its length in sectors, its kind, its arguments."""
    return [line.split() for line in run_command("dmsetup", "table", name).splitlines() if line.strip()]


def only_target(name: str, wanted: str) -> tuple[int, list[str]]:
    """(sectors, arguments) of a device of one target. CommandFailed when that is not the whole table, or of another kind."""
    table = table_of(name)
    if [row[2:3] for row in table] != [[wanted]]:
        kinds = ", ".join(row[2] for row in table if len(row) > 2) or "nothing"
        raise CommandFailed(f"{name} is a {kinds} now, and no {wanted} any more")
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
    """Make a device with a table that is only loaded, of which udev makes no links but the one of its name."""
    run_command("dmsetup", "create", name, "--notable", "--uuid", uuid)
    load_table(name, table)


def create_snapshot(name: str, of: str, sectors: int, origin: str, space: str) -> None:
    """Make a hidden snapshot, for ``take_snapshot``, that lives no longer than its device; ``of`` ends its UUID.

    ``origin`` and ``space`` are numbers (drivers/md/dm-snap.c; ``N``: nothing is kept for later).
    """
    table = [["0", str(sectors), "snapshot", origin, space, "N", str(_CHUNK_SECTORS)]]
    create_hidden(name, f"{SNAPSHOT_UUID}{of}", table)


def load_table(name: str, table: Table) -> None:
    """Give a device a table for its next resume."""
    run_command("dmsetup", "load", name, given=_text(table))


def forget_loaded(name: str) -> None:
    """Let a device that may be suspended go on with the table it has, and have no other."""
    run_command("dmsetup", "clear", name)
    if is_suspended(name):
        run_command("dmsetup", "resume", name)


def bring_up_hidden(name: str) -> None:
    """Let a device made by ``create_hidden`` work."""
    _suspender("hidden", name)


def take_snapshot(name: str, snapshot: str, table: Table | None = None) -> None:
    """Let a loaded snapshot come to life between two writes to a device; a file system directly on that is frozen for it.

    With ``table``, what the device must still have then, it goes on with the one that was loaded for it. CommandFailed when
    any of that fails; the device works on with the table it had.
    """
    _suspender("take", name, snapshot, *([] if table is None else [_text(table)]))


def put_back(name: str, table: Table) -> None:
    """Let the table that was loaded for a device take effect between two writes, in the place of ``table``."""
    _suspender("put-back", name, _text(table))


def _text(table: Table) -> str:
    return "\n".join(map(" ".join, table))


def _suspender(*words: str) -> None:
    """It is not ended, however long it takes: a file system that is frozen writes out what it has."""
    program = str(Path(__file__).with_name("suspender.py"))
    run_command(sys.executable, "-I", "-S", program, *words, own_session=True, name="device-mapper", patience_s=None)


def remove_device(name: str) -> None:
    """Take a device away. CommandFailed when it is in use for longer than a moment."""
    run_command("dmsetup", "remove", "--retry", name)


def is_named(name: str) -> bool:
    """Whether the name is taken, in device-mapper or as a path."""
    return os.path.exists(f"/dev/mapper/{name}") or exists(name)
