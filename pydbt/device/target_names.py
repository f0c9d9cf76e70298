"""How udev and LVM know devices: gathered from ``/sys`` and from the links below ``/dev``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from pydbt.core.configured.rule_hits import ATTRIBUTES, SeenDevice, is_hit
from pydbt.core.configured.target_rules import TargetRule, is_lasting_link, match_of
from pydbt.core.errors import PydbtError, UsageError
from pydbt.device.stacking import devices_above, places_under
from pydbt.device.sysfs import BlockDevice, all_disks
from pydbt.posix.files import read_entry

_DEVICES = Path("/dev")
_LINK_FOLDERS = ("disk/by-id", "disk/by-path", "disk/by-partuuid", "mapper")


def target_rule(name: str, path: str | os.PathLike[str]) -> TargetRule:
    """What rules say of the target of replica ``name``. UsageError when ``path`` is no block device, DeviceError."""
    device = BlockDevice.identify(path)
    written = os.path.abspath(path)
    link = os.path.relpath(written, _DEVICES) if written.startswith("/dev/") and os.path.islink(written) else ""
    found = match_of(
        device.identity(), mapper_name=device.mapper_name(), kernel_name=device.name.replace("!", "/"), link=link
    )
    if found is None:
        raise UsageError(
            f"{written} has no name that outlasts a boot: name it by a link of /dev/disk/by-id or /dev/disk/by-path"
        )
    links = {f"/dev/{one}" for one in _links_to(device, link) if is_lasting_link(one)}
    return TargetRule(name, written, found, tuple(sorted(links)))


def all_names(path: str | os.PathLike[str]) -> list[str]:
    """Every name of a device below ``/dev`` that these folders have, with the kernel's own. UsageError, DeviceError."""
    device = BlockDevice.identify(path)
    return sorted({f"/dev/{one}" for one in _links_to(device, "")} | {device.path, os.path.abspath(path)})


def others_hit(rule: TargetRule, target: str | os.PathLike[str] | None, devices: Iterable[SeenDevice]) -> list[str]:
    """Those of the devices that a rule hits, other than the target with what lies on it.

    ``target``: None when its disk is away. What the root file system lies on is never the target's own.
    """
    own: set[tuple[int, int]] = set()
    if target is not None:
        with contextlib.suppress(PydbtError):  # away
            own = {one.number for one in devices_above(BlockDevice.identify(target))}
    own -= root_numbers()
    return [device.path for device in devices if device.number not in own and is_hit(rule, device)]


def root_numbers() -> set[tuple[int, int]]:
    """What the root file system lies on: partitions, the disks that these are a part of, and what is mapped in between."""
    below = [place for place in places_under("/") if isinstance(place, BlockDevice)]
    return {number for device in below for number in (device.number, device.disk_number)}


def seen_devices() -> list[SeenDevice]:
    """Every block device that the kernel has now, as udev sees it."""
    links = _links_by_number()
    found = []
    for disk in all_disks():
        try:
            devices = [disk, *disk.partitions()]
        except (PydbtError, OSError):
            devices = [disk]  # a partition was removed meanwhile
        for device in devices:
            own = links.get(os.makedev(*device.number), [])
            names = (device.path, *(f"/dev/{link}" for link in own))
            found.append(SeenDevice(device.path, device.number, device.partition, _chain(device), names))
    return found


def _chain(device: BlockDevice) -> tuple[tuple[str, dict[str, str]], ...]:
    folder = Path(os.path.realpath(f"/sys/dev/block/{device.major}:{device.minor}"))
    found = []
    for one in (folder, *folder.parents):
        if (one / "uevent").is_file():  # else it is no device of its own, as the folder "block"
            texts = {name: text for name in ATTRIBUTES if (text := read_entry(one / name))}
            found.append((one.name.replace("!", "/"), texts))
    return tuple(found)


def _links_to(device: BlockDevice, link: str) -> list[str]:
    links = _links_by_number().get(os.makedev(*device.number), [])
    return [link, *links] if link else links


def _links_by_number() -> dict[int, list[str]]:
    """Relative to ``/dev``, by the number of the device that each leads to."""
    found: dict[int, list[str]] = {}
    for folder in _LINK_FOLDERS:
        with contextlib.suppress(OSError):
            for name in os.listdir(_DEVICES / folder):
                with contextlib.suppress(OSError):  # a broken link, or removed meanwhile
                    number = os.stat(_DEVICES / folder / name).st_rdev
                    found.setdefault(number, []).append(f"{folder}/{name}")
    return found
