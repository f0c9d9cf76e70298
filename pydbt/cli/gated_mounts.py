"""What mounts a configured volume at a boot, by ``/etc/fstab`` and by units: each mount is to wait for the gate of the volume."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydbt.cli.config_check import identity_of_place
from pydbt.cli.side import may_be_primary
from pydbt.cli.volume_files import VolumeFile, volume_files, volumes_folder
from pydbt.controller.boot_files import mounts_of_units, read_short
from pydbt.core.configured.boot_order import ArmedVolume
from pydbt.core.configured.fstab import AUTOMOUNT, FSTAB, PlannedMount, mounts_in_fstab, swaps_in_fstab
from pydbt.core.configured.gate_units import gate_unit, needed_by_gate, why_not_gated
from pydbt.core.configured.problems import Problem
from pydbt.core.configured.role import PRIMARY
from pydbt.core.errors import PydbtError
from pydbt.device.stacking import devices_above
from pydbt.device.sysfs import BlockDevice

UNITS_OF_THIS_MACHINE = Path("/etc/systemd/system")
_GATE = re.compile(r"pydbt-gate@([a-z0-9._-]+)\.service")


def fstab_file() -> Path:
    """``SYSTEMD_FSTAB`` names another file, as for systemd's own reader (systemd-fstab-generator(8))."""
    return Path(os.environ.get("SYSTEMD_FSTAB") or FSTAB)


def ungated_mounts(volumes: Iterable[VolumeFile], folder: Path = UNITS_OF_THIS_MACHINE) -> Iterator[Problem]:
    """What would mount a volume, or write to it, at a boot before its secondaries can be asked: lines of ``fstab`` and units.

    Also what lies on a volume: on a partition of it, or on encryption, LVM or RAID above it. A file that cannot be read has no
    lines. ``folder`` has this machine's own drop-ins.
    """
    gated = [
        (volume, place)
        for volume in volumes
        if (place := volume.place) is not None
        and may_be_primary(volume)
        and volume.table_of(PRIMARY).get("no-gate") is not True
    ]
    try:
        text = fstab_file().read_text(encoding="utf-8", errors="surrogateescape") if gated else ""
    except OSError:
        text = ""
    own: dict[object, VolumeFile] = {identity_of_place(place): volume for volume, place in gated}
    above = {number: volume for volume, place in gated for number in _above(place) if number not in own}
    mounts = mounts_in_fstab(text)
    for mount in (*mounts, *(mounts_of_units() if gated else ())):
        found = identity_of_place(Path(mount.device or mount.spec)) if _is_path(mount) else None
        volume = own.get(found) or above.get(found)
        if volume is None or _is_late(mount) or _requires_gate(mount, volume.name, folder):
            continue
        words = _why_ungated(mount, volume, mounts, lies_on_it=found in above)
        if words:
            yield Problem(str(_file_of(mount)), mount.line, f"{mount.point} (volume {volume.name})", "", words)
    for number, device in swaps_in_fstab(text):
        found = identity_of_place(Path(device))
        if (volume := own.get(found) or above.get(found)) is not None:
            words = "expected no swap on this volume: it is written at a boot before the gate has asked anybody"
            yield Problem(str(fstab_file()), number, f"swap (volume {volume.name})", "", words)


def _file_of(mount: PlannedMount) -> Path:
    """Where it is written: a line of ``fstab``, or a unit."""
    return fstab_file() if mount.line else Path(mount.where.rpartition(" in ")[2])


def _is_late(mount: PlannedMount) -> bool:
    """Whether a person or program asks for it by name, when everything is up."""
    return not mount.at_boot and AUTOMOUNT not in mount.options


def _is_path(mount: PlannedMount) -> bool:
    return bool(mount.device) or mount.spec.startswith("/")


def _above(place: Path) -> Iterator[object]:
    """As ``identity_of_place`` of everything that lies on a device: its partitions, and what is built on it."""
    with contextlib.suppress(PydbtError, OSError):
        for device in devices_above(BlockDevice.identify(place)):
            yield "device", os.makedev(device.major, device.minor)


def _why_ungated(mount: PlannedMount, volume: VolumeFile, mounts: list[PlannedMount], *, lies_on_it: bool) -> str:
    """What is wrong with a mount that no drop-in of this machine has wait; empty when nothing is."""
    if lies_on_it:
        return (
            f"expected a drop-in of your own that requires {gate_unit(volume.name)}, for this mount and for its check: it lies "
            f"on {volume.place}, and pydbt-generator knows the mounts of that alone (or set no-gate = true in the volume's file)"
        )
    if not mount.line:
        return (
            f"expected a drop-in of your own that requires {gate_unit(volume.name)}: pydbt-generator makes them for lines of "
            "fstab alone (or set no-gate = true in the volume's file)"
        )
    words = why_not_gated(mount.options)
    if not words and needed_by_gate(_with_name(volume, mount.device), mounts):
        words = f"expected the state directory {volume.state_dir} elsewhere: the gate needs it before this mount"
    return words


def _requires_gate(mount: PlannedMount, name: str, folder: Path) -> bool:
    """Whether a person has the unit of a mount require the gate."""
    own = [] if mount.line else [_file_of(mount)]
    for path in (*own, *sorted((folder / f"{mount.unit}.d").glob("*.conf"))):
        with contextlib.suppress(OSError):
            for line in (read_short(path) or "").split("\n"):
                key, _, units = line.strip().partition("=")
                if key in ("Requires", "BindsTo") and gate_unit(name) in units.split():
                    return True
    return False


def gates_of_nobody(folder: Path = UNITS_OF_THIS_MACHINE) -> Iterator[Problem]:
    """Each line of a person's drop-in that requires the gate of a volume which is not configured: its unit cannot start."""
    known = {path.stem for path in volume_files()}
    for path in sorted(folder.glob("*.d/*.conf")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for number, line in enumerate(lines, start=1):
            for name in _GATE.findall(line.partition("#")[0]):
                if name not in known:
                    words = (
                        f"expected a volume of {volumes_folder()}, and there is none of this name: write its name of now, "
                        "or remove this file; without its gate the unit cannot start"
                    )
                    yield Problem(str(path), number, "", gate_unit(name), words)


def _with_name(volume: VolumeFile, device: str) -> ArmedVolume:
    """The volume as the line of ``fstab`` names it."""
    state = str(volume.state_dir)
    return ArmedVolume(volume.name, device, needs=(state, os.path.realpath(state)))
