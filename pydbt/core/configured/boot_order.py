"""The order of a boot: a volume is armed before its file system is checked and mounted.

Generators of systemd run before udev, when no device has its names yet. So a volume's names of the last time are kept
(``known_names``), and a mount that goes by any other name cannot be ordered: that is a link of the chain that is missing, which
``pydbt/core/tracking/chain.py`` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydbt.core.configured.fstab import PlannedMount
from pydbt.core.configured.unit_names import device_unit, fsck_unit, made_unit

NEEDED_PATHS = ("/etc", "/usr", "/var/cache/pydbt", "/var/lib/pydbt")
"""Arming reads and writes there, and so comes after their mounts (``RequiresMountsFor=`` of the unit, and what runs at all)."""
NAMES_SUFFIX = ".names"
_NAMES_HEAD = "# Names of the volume's device, for the order of the next boot. The program writes this file."
_SOURCE, _NAME = "source ", "name "
_MAPPER = "/dev/mapper/"
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._@:+-]*")


class ArmedVolume(NamedTuple):
    """A configured volume whose unit is enabled. ``names`` are the paths below ``/dev`` by which its device was known.

    ``needs`` are paths, other than ``NEEDED_PATHS``, without which it cannot be armed.
    """

    name: str
    source: str
    names: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        return arm_unit(self.name)


class DropIn(NamedTuple):
    """A file ``FILE`` in the folder ``UNIT.d``. ``words``: what it orders, for the log; empty when that needs no line."""

    unit: str
    file: str
    text: str
    words: str


def arm_unit(name: str) -> str:
    """The unit that arms a volume."""
    return f"pydbt-arm@{name}.service"


def arming_order(
    volume: ArmedVolume, mounts: Sequence[PlannedMount], device_keepers: Sequence[str] = (), *, is_hidden: bool = False
) -> DropIn:
    """The order of one volume: behind its device, and before each check and mount of it that can wait for that.

    ``device_keepers``: units that take devices away at the shutdown, which is to come after the closing record. ``is_hidden``:
    the unit of its device stays inactive, because it is a replica now; then there is nothing to arm, and nothing to wait for.
    """
    mine = [mount for mount in mounts if mount.device and mount.device in volume.names | {volume.source}]
    needed = needed_by(volume, mounts)
    ordered = [mount for mount in mine if mount.unit and mount not in needed]
    devices = [volume.source] if not volume.names or volume.source in volume.names else []
    devices += [mount.device for mount in ordered if mount.at_boot]
    behind = _each_once(device_unit(device) for device in devices if device.startswith("/dev/") and not is_hidden)
    mapped = sorted(name for name in volume.names if name.startswith(_MAPPER))
    made = _each_once(made_unit(device) for device in (*devices, *mapped) if device.startswith("/dev/"))
    before = _each_once(unit for mount in ordered for unit in (fsck_unit(mount.device), mount.unit))
    lines = [
        "# Made at each boot of /etc/fstab and the units of mounts, by pydbt-generator.",
        "[Unit]",
        *_mount_lines(volume),
        *(f"{key}={unit}" for unit in behind for key in ("Wants", "After")),
        *(f"After={unit}" for unit in (*made, *device_keepers)),
        *(f"Before={unit}" for unit in before),
    ]
    points = _each_once(mount.point for mount in ordered)
    words = f"{volume.name} is armed before the mount of {' and '.join(points)}" if points else (
        f"nothing mounts {volume.name} by a name that it is known by"
    )  # fmt: skip
    return DropIn(volume.unit, "pydbt-order.conf", "\n".join(lines) + "\n", words)


def state_mounts(unit: str, volume: ArmedVolume) -> DropIn | None:
    """Has a unit wait for the file system of the volume's state, wherever that is; None where systemd cannot be told its path."""
    lines = _mount_lines(volume)
    if not lines:
        return None
    text = "\n".join(("# Made at each boot by pydbt-generator.", "[Unit]", *lines)) + "\n"
    return DropIn(unit, "pydbt-state.conf", text, "")


def _mount_lines(volume: ArmedVolume) -> list[str]:
    return [f"RequiresMountsFor={path}" for path in volume.needs if _PLAIN_PATH.fullmatch(path)]


def unordered(volume: ArmedVolume, mounts: Sequence[PlannedMount], ordered: frozenset[str]) -> str:
    """Why a mount at boot did not wait until the volume was armed; empty when each did. ``ordered``: the units that waited.

    One clause for a person, about the first of them.
    """
    needed = needed_by(volume, mounts)
    for mount in mounts:
        if not mount.at_boot or not mount.device or mount.device not in volume.names | {volume.source}:
            continue
        if mount in needed:
            return f"{mount.where} names {mount.spec}, and the arming needs what is mounted there"
        if not mount.unit:
            return f"{mount.where} names {mount.spec}, and systemd has no unit for this mount point"
        if mount.unit not in ordered:
            return f"{mount.where} names {mount.spec}, by which the volume was not known when the machine was booted"
    return ""


def units_ordered_by(texts: Iterable[str]) -> frozenset[str]:
    """The units in ``Before=`` of these files of a unit."""
    lines = (line.strip() for text in texts for line in text.split("\n"))
    return frozenset(unit for line in lines if line.startswith("Before=") for unit in line[7:].split())


def needed_by(volume: ArmedVolume, mounts: Sequence[PlannedMount]) -> list[PlannedMount]:
    """The mounts that the arming needs, directly or by way of others. A mount of these cannot wait for it: that is a circle,

    from which systemd would drop any job.
    """
    found: list[PlannedMount] = []
    waiting = [*NEEDED_PATHS, *volume.needs]
    while waiting:
        path = waiting.pop()
        for mount in mounts:
            if mount not in found and _covers(mount.point, path):
                found.append(mount)
                waiting += [mount.point.rpartition("/")[0], *mount.needs]
    return found


def names_text(source: str, names: Iterable[str]) -> str:
    """The content of the file in which a volume's names are kept; empty when a name has more than one line."""
    lines = [_SOURCE + source, *(_NAME + name for name in sorted(set(names)))]
    return "" if any("\n" in line for line in lines) else "\n".join([_NAMES_HEAD, *lines]) + "\n"


def known_names(text: str, source: str) -> frozenset[str]:
    """The names in such a file; none when it was written for another SOURCE, or is none."""
    lines = text.split("\n")
    if _SOURCE + source not in lines:
        return frozenset()
    return frozenset(line.removeprefix(_NAME) for line in lines if line.startswith(_NAME + "/dev/"))


def _covers(point: str, path: str) -> bool:
    return path == point or (path + "/").startswith(point.rstrip("/") + "/")


def _each_once(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, words)))
