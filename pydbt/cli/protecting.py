"""Which targets of the configured replicas other programs are kept off, and when their rules are written anew."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from pydbt.cli.volume_files import VOLUMES, VolumeFile, read_volume, volume_files, volumes_folder
from pydbt.controller.belonging import is_replica
from pydbt.controller.protection import Protection, Replica, release_target, take_effect, write_rules
from pydbt.core.errors import PydbtError, StateError
from pydbt.core.printable import printable
from pydbt.store.replica_state import REPLICA_FILE_NAME
from pydbt.store.volume_state import VOLUME_FILE_NAME

_log = logging.getLogger("pydbt")


def replica_of(volume: VolumeFile) -> Replica | None:
    """The replica that a file configures now; None for a volume. One whose state cannot be read is what its file says.

    For words only: what is done to a disk goes by its record (``belonging_of``).
    """
    if not volume.role or volume.place is None:
        return None
    try:
        found = is_replica(volume.role, volume.state_dir)
    except StateError:
        found = volume.role == "secondary"
    return Replica(volume.name, volume.place, volume.state_dir) if found else None


def may_be_replicas() -> Iterator[Replica]:
    """What may be one by its file or by its state, as far as files can be read. UsageError when the folder cannot.

    Of a file with a SOURCE that has no record: a rule that a demotion made stays, until the state of a volume is seen.
    """
    for path in volume_files():
        try:
            volume = read_volume(path)
        except PydbtError:
            continue  # 'controller configcheck' tells it
        if not volume.role or volume.place is None:
            continue
        if volume.role == "run" and _is_volume(volume.state_dir):
            continue
        yield Replica(volume.name, volume.place, volume.state_dir, by_file=volume.role == "secondary")


def _is_volume(state_dir: Path) -> bool:
    return (state_dir / VOLUME_FILE_NAME).exists() and not (state_dir / REPLICA_FILE_NAME).exists()


def protect_configured() -> Protection:
    """Write the rules of all configured replicas, and have them take effect. PydbtError."""
    done = write_rules(list(may_be_replicas()))
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
