"""The lines of ``/etc/fstab`` that mount a configured volume: each is to wait for the gate of the volume."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydbt.cli.config_check import identity_of_place
from pydbt.cli.volume_files import VolumeFile, volume_files, volumes_folder
from pydbt.core.configured.boot_order import ArmedVolume
from pydbt.core.configured.fstab import FSTAB, mounts_in_fstab
from pydbt.core.configured.gate_units import gate_unit, needed_by_gate, why_not_gated
from pydbt.core.configured.problems import Problem

UNITS_OF_THIS_MACHINE = Path("/etc/systemd/system")
_GATE = re.compile(r"pydbt-gate@([a-z0-9._-]+)\.service")


def fstab_file() -> Path:
    """``SYSTEMD_FSTAB`` names another file, as for systemd's own reader (systemd-fstab-generator(8))."""
    return Path(os.environ.get("SYSTEMD_FSTAB") or FSTAB)


def ungated_mounts(volumes: Iterable[VolumeFile]) -> Iterator[Problem]:
    """Each line that would mount a volume before its secondaries can be asked. A file that cannot be read has no lines."""
    gated = {
        identity_of_place(volume.place): volume
        for volume in volumes
        if volume.role == "run" and volume.place is not None and volume.table.get("no-gate") is not True
    }
    try:
        text = fstab_file().read_text(encoding="utf-8", errors="surrogateescape") if gated else ""
    except OSError:
        return
    mounts = mounts_in_fstab(text)
    for mount in mounts:
        place = mount.device or (mount.spec if mount.spec.startswith("/") else "")
        volume = gated.get(identity_of_place(Path(place))) if place else None
        if volume is None:
            continue
        words = why_not_gated(mount.options)
        if not words and needed_by_gate(_with_name(volume, mount.device), mounts):
            words = f"expected the state directory {volume.state_dir} elsewhere: the gate needs it before this mount"
        if words:
            yield Problem(str(fstab_file()), mount.line, f"{mount.point} (volume {volume.name})", "", words)


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
