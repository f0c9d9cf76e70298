"""The lines of ``/etc/fstab`` that mount a configured volume: each is to wait for the gate of the volume."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydbt.cli.config_check import identity_of_place
from pydbt.cli.volume_files import VolumeFile
from pydbt.core.configured.fstab import FSTAB, mounts_in_fstab
from pydbt.core.configured.gate_units import why_not_gated
from pydbt.core.configured.problems import Problem


def fstab_file() -> Path:
    """``SYSTEMD_FSTAB`` names another file, as for systemd's own reader (systemd-fstab-generator(8))."""
    return Path(os.environ.get("SYSTEMD_FSTAB") or FSTAB)


def ungated_mounts(volumes: Iterable[VolumeFile]) -> Iterator[Problem]:
    """Each line that would mount a volume before its secondaries can be asked. A file that cannot be read has no lines."""
    names = {
        identity_of_place(volume.place): volume.name
        for volume in volumes
        if volume.role == "run" and volume.place is not None and volume.table.get("no-gate") is not True
    }
    try:
        text = fstab_file().read_text(encoding="utf-8", errors="surrogateescape") if names else ""
    except OSError:
        return
    for mount in mounts_in_fstab(text):
        place = mount.device or (mount.spec if mount.spec.startswith("/") else "")
        name = names.get(identity_of_place(Path(place))) if place else None
        if name is not None and (words := why_not_gated(mount.options)):
            yield Problem(str(fstab_file()), mount.line, f"{mount.point} (volume {name})", "", words)
