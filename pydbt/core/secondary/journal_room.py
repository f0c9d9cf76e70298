"""Whether the journal's largest size fits the disk that it is to grow on.

A journal that is promised more room than its disk has ends in the middle of a resynchronization, each time again.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.units import MIB

# Beside the journal: the state file, its reserve, and the status.
BESIDE_BYTES = 2 * MIB
RESERVE_BYTES = 64 * MIB
"""Room that a journal leaves free on its file system, for the state file and for others. On a small one it is less."""
_LEAST_RESERVE_BYTES = BESIDE_BYTES // 2


@dataclass(frozen=True, slots=True)
class DiskTooSmall:
    """It can never fit; ``most_bytes`` is the largest journal that could."""

    most_bytes: int


@dataclass(frozen=True, slots=True)
class RoomMissing:
    """It fits the disk, but others use the room: ``missing_bytes`` are not free now."""

    missing_bytes: int


@dataclass(frozen=True, slots=True)
class RoomEnough:
    """There is room for all of it now."""


def reserve_bytes(limit_bytes: int, disk_bytes: int, most_bytes: int = RESERVE_BYTES) -> int:
    """What a journal of this largest size leaves free. On this disk it can always come to that size."""
    return min(most_bytes, max((disk_bytes - limit_bytes) // 2, _LEAST_RESERVE_BYTES))


def journal_room(
    limit_bytes: int, held_bytes: int, disk_bytes: int, free_bytes: int, *, beside_bytes: int = BESIDE_BYTES
) -> DiskTooSmall | RoomMissing | RoomEnough:
    """``held_bytes``: size of the journal that is there already; ``disk_bytes``, ``free_bytes``: of its file system."""
    if limit_bytes + beside_bytes > disk_bytes:
        return DiskTooSmall(max(disk_bytes - beside_bytes, 0))
    beside_bytes = max(beside_bytes, reserve_bytes(limit_bytes, disk_bytes))
    missing = limit_bytes + beside_bytes - held_bytes - free_bytes
    return RoomMissing(missing) if missing > 0 else RoomEnough()
