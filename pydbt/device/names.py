"""Every name below ``/dev`` by which a device is known now: its own, and the links that udev has made for it."""

from __future__ import annotations

import os
from pathlib import Path

from pydbt.device.sysfs import BlockDevice
from pydbt.posix.files import read_entry

UDEV_DATABASE = Path("/run/udev/data")
_LINK = "S:"


def device_names(device: BlockDevice, database: Path = UDEV_DATABASE, folder: Path = Path("/dev")) -> frozenset[str]:
    """Absolute paths. udev's own records count, also of a link that another device has by now: a mount may get either.

    Without such a record, the links in the folders where udev makes them are read.
    """
    names = {"/dev/" + device.name.replace("!", "/")}
    if mapped := device.mapper_name():
        names.add(f"/dev/mapper/{mapped}")
    record = read_entry(database / f"b{device.major}:{device.minor}") or ""
    links = [f"/dev/{line.removeprefix(_LINK)}" for line in record.split("\n") if line.startswith(_LINK)]
    return frozenset(names.union(links or _links_in(folder, device)))


def _links_in(folder: Path, device: BlockDevice) -> set[str]:
    found = set()
    number = os.makedev(device.major, device.minor)
    for place in (*folder.glob("disk/by-*/*"), *folder.glob("mapper/*"), *folder.glob("md/*")):
        try:
            if place.stat().st_rdev == number:
                found.add(str(place))
        except OSError:
            continue  # a link to a device that is gone
    return found
