"""What of this machine's own configuration would take a target, as warnings for a person. No device is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydbt.cli.protecting import replica_of
from pydbt.cli.volume_files import VOLUMES, VolumeFile, volumes_folder
from pydbt.core.configured.foreign_claims import claims_in
from pydbt.core.configured.target_rules import RULES_FILE, is_lasting_link, known_targets
from pydbt.core.errors import PydbtError
from pydbt.device.sysfs import BlockDevice

_FILES = ("etc/fstab", "etc/crypttab", "etc/mdadm/mdadm.conf")


def warnings_about(volumes: Iterable[VolumeFile], root: Path = Path("/")) -> Iterator[tuple[VolumeFile, str]]:
    """One sentence for each thing that may go wrong with a target, with its file; ``volumes``: all that are configured."""
    files = list(volumes)
    replicas = [(one, replica.target) for one in files if (replica := replica_of(one)) is not None]
    devices = [(one, target) for one, target in replicas if target.is_block_device()]
    for volume, target in devices:
        where = f"{volume.where('target')}: {target}"
        link = os.path.relpath(target, "/dev")
        if not is_lasting_link(link):
            yield (
                volume,
                (
                    f"{where} tells what the disk carries, which is what SOURCE carries: name the disk itself "
                    "(ls -l /dev/disk/by-id /dev/disk/by-path)"
                ),
            )
        for words in _claims_on(target, root):
            yield volume, f"{where} would be taken by {words}"
    yield from _both_sides(files)
    if volumes_folder() == VOLUMES:
        known = known_targets(_text(root / RULES_FILE))
        for volume, target in devices:
            if volume.name not in known:
                words = f"no rule keeps other programs off {target}: run 'controller protect' when its secondary has started"
                yield volume, f"{volume.where()}: {words}"


def _claims_on(target: Path, root: Path) -> Iterator[str]:
    try:
        device = BlockDevice.identify(target)
    except PydbtError:
        return
    for name in _FILES:
        for claim in claims_in(f"/{name}", _text(root / name)):
            try:
                named = BlockDevice.identify(claim.path)
            except PydbtError:
                continue
            if named.overlaps(device):
                yield f"{claim.file} line {claim.line}, {claim.written}: remove that line, or name the other disk by its own name"


def _both_sides(volumes: list[VolumeFile]) -> Iterator[tuple[VolumeFile, str]]:
    """A volume and its replica on one machine: two devices with the same UUID, of which a mount by UUID takes either."""
    listening = {str(one.table.get("listen")): one for one in volumes if one.role == "secondary"}
    for volume in volumes:
        if volume.role != "run":
            continue
        named = volume.table.get("secondary", [])
        for address in named if isinstance(named, list) else [named]:
            if (replica := listening.get(str(address))) is not None:
                yield (
                    volume,
                    (
                        f"{volume.where('secondary')}: {replica.path} is its replica, on this same machine: both devices have "
                        "one UUID, so mount SOURCE by its path or its PARTUUID"
                    ),
                )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
