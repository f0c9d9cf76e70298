"""A journal is never promised more room than its disk has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.secondary.journal_room import (
    BESIDE_BYTES,
    RESERVE_BYTES,
    DiskTooSmall,
    RoomEnough,
    RoomMissing,
    journal_room,
    reserve_bytes,
)
from pydbt.core.units import GIB, MIB


def test_a_journal_larger_than_its_disk_is_refused_with_the_size_that_fits() -> None:
    assert journal_room(GIB, 0, 600 * MIB, 600 * MIB) == DiskTooSmall(600 * MIB - BESIDE_BYTES)
    assert journal_room(MIB, 0, MIB, MIB) == DiskTooSmall(0), "the state file needs room too"


def test_room_that_others_use_is_told_and_the_room_of_the_own_journal_counts() -> None:
    assert journal_room(GIB, 0, 4 * GIB, 100 * MIB) == RoomMissing(GIB + RESERVE_BYTES - 100 * MIB)
    assert journal_room(GIB, GIB, 4 * GIB, 100 * MIB) == RoomEnough()


@given(*(st.integers(0, 1 << 45) for _ in range(4)))
def test_enough_means_that_the_whole_journal_fits(limit: int, held: int, disk: int, free: int) -> None:
    match journal_room(limit, held, disk, free):
        case RoomEnough():
            assert limit <= disk and limit + reserve_bytes(limit, disk) <= held + free, "its last segment too"
        case RoomMissing(missing):
            assert limit <= disk and missing > 0 and journal_room(limit, held, disk, free + missing) == RoomEnough()
        case DiskTooSmall(most):
            assert (most < limit or limit == 0) and (most == 0 or journal_room(most, most, disk, disk) == RoomEnough())


def test_a_small_disk_is_not_taken_for_full_because_of_the_room_that_is_left_to_others() -> None:
    assert reserve_bytes(16 * MIB, 37 * MIB) == 21 * MIB // 2
    assert reserve_bytes(GIB, GIB + BESIDE_BYTES) == MIB
    assert reserve_bytes(GIB, 100 * GIB) == RESERVE_BYTES
