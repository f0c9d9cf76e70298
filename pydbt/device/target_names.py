"""How udev and LVM know the device of a target: gathered from ``/sys`` and from the links below ``/dev``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydbt.core.configured.target_rules import TargetRule, is_lasting_link, match_of
from pydbt.core.errors import UsageError
from pydbt.device.sysfs import BlockDevice

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


def _links_to(device: BlockDevice, link: str) -> Iterator[str]:
    if link:
        yield link
    for folder in _LINK_FOLDERS:
        try:
            names = os.listdir(_DEVICES / folder)
        except OSError:
            continue
        for name in names:
            place = _DEVICES / folder / name
            try:
                if os.stat(place).st_rdev == os.makedev(device.major, device.minor):
                    yield f"{folder}/{name}"
            except OSError:
                continue  # a broken link, or removed meanwhile
