"""Looks at the disk of a secondary's state directory before its journal begins to grow there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pydbt.controller.options import MIN_JOURNAL_BYTES
from pydbt.controller.roles import JOURNAL_FOLDER
from pydbt.core.errors import StateError, UsageError
from pydbt.core.secondary.journal_room import DiskTooSmall, RoomEnough, RoomMissing, journal_room
from pydbt.core.units import MIB, format_bytes
from pydbt.store.journal_files import whole_disk_bytes

_log = logging.getLogger("pydbt")


def require_journal_room(state_dir: Path, limit_bytes: int) -> None:
    """UsageError when the disk is smaller than the journal may grow."""
    disk_bytes, room = _look(state_dir, limit_bytes)
    if isinstance(room, DiskTooSmall):
        fits = room.most_bytes // MIB
        smaller = f"give --journal-size {fits}M or less, or " if room.most_bytes >= MIN_JOURNAL_BYTES else ""
        raise UsageError(
            f"the journal may grow to {format_bytes(limit_bytes)} (--journal-size), and the disk of the state directory "
            f"{state_dir} has {format_bytes(disk_bytes)} in all: {smaller}name a directory on a larger disk"
        )


def warn_of_journal_room(state_dir: Path, limit_bytes: int) -> None:
    """Log it when the disk could hold the journal, but has no room for all of it now."""
    try:
        _, room = _look(state_dir, limit_bytes)
    except StateError:
        return  # a segment that is removed just now; the journal itself reports a disk that fails
    if isinstance(room, RoomMissing):
        _log.warning(
            "the journal may grow to %s, and its disk lacks %s for that now: a resynchronization that does not fit makes "
            "the replica inconsistent until it is complete",
            format_bytes(limit_bytes), format_bytes(room.missing_bytes),
        )  # fmt: skip


def _look(state_dir: Path, limit_bytes: int) -> tuple[int, DiskTooSmall | RoomMissing | RoomEnough]:
    """The size of the disk, and whether a journal of this size fits there. StateError."""
    place = Path(os.path.abspath(state_dir))
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        room = os.statvfs(place)
        held = sum(entry.stat().st_blocks * 512 for entry in (state_dir / JOURNAL_FOLDER).glob("*"))
    except OSError as error:
        raise StateError(f"the disk of the state directory {state_dir} cannot be looked at: {error.strerror}") from None
    disk_bytes, free_bytes = whole_disk_bytes(room), room.f_bavail * room.f_frsize
    return disk_bytes, journal_room(limit_bytes, held, disk_bytes, free_bytes)
