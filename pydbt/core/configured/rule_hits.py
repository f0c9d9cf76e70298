"""Which devices a rule of udev and patterns of LVM would hit, so that none is written that hides another disk.

Two disks may have one serial number (docks for disks, machines that were cloned), and a slot another disk than before.

Source: udev(7): ``ATTR`` and ``KERNEL`` look at the device itself, ``ATTRS`` and ``KERNELS`` also at the devices above it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydbt.core.configured.target_rules import Match, TargetRule, lvm_patterns, lvm_rejects, pattern_of

ATTRIBUTES = ("dm/uuid", "md/uuid", "loop/backing_file", "wwid", "serial", "dm/name")
"""What rules ask for, of a device or of one above it."""


class SeenDevice(NamedTuple):
    """A block device as udev sees it. ``partition``: its number, None for a disk; ``names``: its paths below ``/dev``.

    ``above``: the kernel's name and ``ATTRIBUTES`` of the device itself, and of each one above it.
    """

    path: str
    number: tuple[int, int]
    partition: int | None
    above: tuple[tuple[str, Mapping[str, str]], ...]
    names: tuple[str, ...]


def is_hit(rule: TargetRule, device: SeenDevice) -> bool:
    """Whether the rule, or a pattern of it, keeps other programs off this device."""
    return _by_udev(rule.match, device) or lvm_rejects(lvm_patterns([rule]), device.names)


def _by_udev(match: Match, device: SeenDevice) -> bool:
    key, _, attribute = match.key.rstrip("}").partition("{")
    if match.partition is not None:
        if device.partition != match.partition:
            return False
    elif key not in ("SYMLINK", "KERNEL") and device.partition is not None:
        return False
    upwards = key in ("ATTRS", "KERNELS") or match.partition is not None
    asked = device.above if upwards else device.above[:1]
    match key:
        case "SYMLINK":
            texts = [name.removeprefix("/dev/") for name in device.names]
        case "KERNEL" | "KERNELS":
            texts = [name for name, _ in asked]
        case _:
            texts = [values[attribute] for _, values in asked if attribute in values]
    wanted = re.compile(".".join(map(re.escape, pattern_of(match.value).split("?"))), re.DOTALL)
    return any(wanted.fullmatch(text) for text in texts)
