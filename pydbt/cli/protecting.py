"""Which targets of the configured replicas other programs are kept off, and when their rules are written anew."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from pydbt.cli.volume_files import VOLUMES, VolumeFile, read_volume, volume_files, volumes_folder
from pydbt.controller.protection import Protection, Replica, release_target, take_effect, write_rules
from pydbt.controller.secondary.holding import is_replica
from pydbt.core.errors import PydbtError, StateError
from pydbt.core.printable import printable

_log = logging.getLogger("pydbt")


def replica_of(volume: VolumeFile) -> Replica | None:
    """The replica that a file configures now; None for a volume. One whose state cannot be read is what its file says."""
    if not volume.role or volume.place is None:
        return None
    try:
        found = is_replica(volume.role, volume.state_dir)
    except StateError:
        found = volume.role == "secondary"
    return Replica(volume.name, volume.place, volume.state_dir) if found else None


def configured_replicas() -> Iterator[Replica]:
    """All of them, as far as files can be read. UsageError when the folder cannot."""
    for path in volume_files():
        try:
            replica = replica_of(read_volume(path))
        except PydbtError:
            continue  # 'controller configcheck' tells it
        if replica is not None:
            yield replica


def protect_configured() -> Protection:
    """Write the rules of all configured replicas, and have them take effect. PydbtError."""
    done = write_rules(list(configured_replicas()))
    take_effect(done)
    return done


def role_changed(place: Path, *, promoted: bool) -> None:
    """After a promotion or the like: the rules anew, and a target that is a replica no more is let go of.

    Only where this machine's own configuration names the place; what cannot be done is logged.
    """
    if os.geteuid() != 0:
        return
    _write_rules_for(place)
    if promoted:  # what udev hears of partitions then, it judges by the new rules
        release_target(place)


def _write_rules_for(place: Path) -> None:
    try:
        if volumes_folder() != VOLUMES or not _names(place):
            return
        done = protect_configured()
    except PydbtError as error:
        _log.warning("the rules that keep other programs off targets stay as they were: %s", printable(str(error)))
        return
    for problem in done.problems:
        _log.warning("%s", printable(problem))


def _names(place: Path) -> bool:
    """Whether a file of the folder names this device."""
    for path in volume_files():
        try:
            named = read_volume(path).place
        except PydbtError:
            continue
        if named is not None and os.path.realpath(named) == os.path.realpath(place):
            return True
    return False
