"""What is asked of device-mapper, by ``dmsetup``: tables, names and numbers of its devices, new ones, and changes under load.

Documentation/admin-guide/device-mapper; a device number is written as in its tables, ``major:minor``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydbt.device.commands import CommandFailed, run_command
from pydbt.device.sysfs import BlockDevice

# What a snapshot keeps at once when a part of it is overwritten.
_CHUNK_SECTORS = 16


def exists(name: str) -> bool:
    """Whether device-mapper has a device of this name."""
    try:
        run_command("dmsetup", "info", name)
    except CommandFailed:
        return False
    return True


def is_suspended(name: str) -> bool:
    """Whether writes and reads of a device wait for somebody's ``dmsetup resume``."""
    return "SUSPENDED" in run_command("dmsetup", "info", name)


def uuid_of(name: str) -> str:
    """A device's UUID; empty when there is no such device, or it has none."""
    try:
        return run_command("dmsetup", "info", "-c", "--noheadings", "-o", "uuid", name).strip()
    except CommandFailed:
        return ""


def table_of(name: str) -> list[list[str]]:
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
    major, minor = number_of(name).split(":")
    return BlockDevice.from_number(int(major), int(minor))


def snapshot_table(sectors: int, origin: str, space: str) -> str:
    """The table of a snapshot that lives no longer than its device (drivers/md/dm-snap.c; ``N``: nothing is kept for later)."""
    return f"0 {sectors} snapshot {origin} {space} N {_CHUNK_SECTORS}"


def create(name: str, uuid: str, sectors: int, target: str) -> None:
    """Make a device of one target."""
    run_command("dmsetup", "create", name, "--uuid", uuid, "--table", f"0 {sectors} {target}")


def create_hidden(name: str, uuid: str, table: str) -> None:
    """Make a device with a table that is only loaded, of which udev makes no links but the one of its name."""
    run_command("dmsetup", "create", name, "--notable", "--uuid", uuid)
    load(name, table)


def load(name: str, table: str) -> None:
    """Give a device a table for its next resume."""
    run_command("dmsetup", "load", name, given=table)


def forget_loaded(name: str) -> None:
    """Let a device that may be suspended go on with the table it has, and have no other."""
    run_command("dmsetup", "clear", name)
    if is_suspended(name):
        run_command("dmsetup", "resume", name)


def bring_up_hidden(name: str) -> None:
    """Let a device made by ``create_hidden`` work."""
    _suspender("--hidden", name)


def switch(name: str, snapshot: str | None = None) -> None:
    """Let the loaded table of a device take effect between two writes; at that moment a loaded snapshot comes to life.

    With a snapshot the file system is frozen for it. CommandFailed when it does not; the device works on with its old table.
    """
    _suspender(name, *([] if snapshot is None else [snapshot]))


def _suspender(*words: str) -> None:
    program = str(Path(__file__).with_name("suspender.py"))
    run_command(sys.executable, "-I", "-S", program, *words, own_session=True, name="device-mapper")


def remove(name: str) -> None:
    """Take a device away. CommandFailed when it is in use for longer than a moment."""
    run_command("dmsetup", "remove", "--retry", name)


def is_named(name: str) -> bool:
    """Whether the name is taken, in device-mapper or as a path."""
    return os.path.exists(f"/dev/mapper/{name}") or exists(name)
