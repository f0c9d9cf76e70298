"""Looks at the disk of a secondary's state directory before its journal begins to grow there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pydbt.controller.options import MIN_JOURNAL_BYTES
from pydbt.controller.roles import JOURNAL_FOLDER
from pydbt.core.errors import StateError, UsageError
from pydbt.core.secondary.journal_room import DiskTooSmall, RoomMissing, journal_room
from pydbt.core.units import MIB, format_bytes

_log = logging.getLogger("pydbt")


def require_journal_room(state_dir: Path, limit_bytes: int) -> None:
    """UsageError when the disk is smaller than the journal may grow; a warning when it has no room for it now."""
    place = Path(os.path.abspath(state_dir))
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        room = os.statvfs(place)
        held = sum(entry.stat().st_blocks * 512 for entry in (state_dir / JOURNAL_FOLDER).glob("*"))
    except OSError as error:
        raise StateError(f"the disk of the state directory {state_dir} cannot be looked at: {error.strerror}") from None
    disk_bytes, free_bytes = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    limit = format_bytes(limit_bytes)
    match journal_room(limit_bytes, held, disk_bytes, free_bytes):
        case DiskTooSmall(most_bytes):
            fits = most_bytes // MIB
            smaller = f"give --journal-size {fits}M or less, or " if most_bytes >= MIN_JOURNAL_BYTES else ""
            raise UsageError(
                f"the journal may grow to {limit} (--journal-size), and the disk of the state directory {state_dir} has "
                f"{format_bytes(disk_bytes)} in all: {smaller}name a directory on a larger disk"
            )
        case RoomMissing(missing_bytes):
            _log.warning(
                "the journal may grow to %s, and %s of that are not free on the disk of the state directory: a "
                "resynchronization that does not fit makes the replica inconsistent until it is complete",
                limit, format_bytes(missing_bytes),
            )  # fmt: skip
