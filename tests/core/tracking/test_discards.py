"""Discarded blocks are in doubt exactly where the device does not promise zeros."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.tracking.capture_record import RECORD, Operation, Records
from pydbt.core.tracking.discards import ALWAYS_ZEROS, DiscardPromise, discarded_in_doubt
from pydbt.core.units import Geometry

GEOMETRY = Geometry(64 * 4096, 4096)
CHUNK = 64 << 10


def requests(*writes: tuple[int, int, Operation]) -> Records:
    records = np.zeros(len(writes), RECORD)
    for row, (sector, sectors, operation) in zip(records, writes, strict=True):
        row["sector"], row["sectors"], row["op"], row["kind"] = sector, sectors, operation, 1
    return records


def in_doubt(promise: DiscardPromise, *writes: tuple[int, int, Operation]) -> list[int]:
    return discarded_in_doubt(requests(*writes), promise, GEOMETRY).blocks().tolist()


@pytest.mark.parametrize("operation", [Operation.DISCARD, Operation.SECURE_ERASE])
def test_without_a_promise_every_discarded_block_is_in_doubt(operation: Operation) -> None:
    assert in_doubt(DiscardPromise(0), (8, 16, operation), (44, 8, operation)) == [1, 2, 5, 6]


def test_no_other_write_is_in_doubt_and_none_where_every_sector_reads_as_zeros() -> None:
    assert in_doubt(DiscardPromise(0), (0, 64, Operation.WRITE), (0, 64, Operation.WRITE_ZEROES)) == []
    assert in_doubt(ALWAYS_ZEROS, (3, 111, Operation.DISCARD)) == []
    assert in_doubt(DiscardPromise(0)) == []


def test_the_ragged_ends_of_a_discard_on_a_thin_volume_are_in_doubt() -> None:
    thin = DiscardPromise(CHUNK)
    assert in_doubt(thin, (0, 256, Operation.DISCARD)) == []
    assert in_doubt(thin, (8, 256, Operation.DISCARD)) == [*range(1, 16), 32]
    assert in_doubt(thin, (8, 64, Operation.DISCARD)) == list(range(1, 9)), "no whole chunk lies in it"
    assert in_doubt(DiscardPromise(CHUNK, 8 * 512), (120, 128, Operation.DISCARD)) == []


@given(
    sector=st.integers(0, 400), sectors=st.integers(1, 111), grain=st.sampled_from([1, 3, 8, 16, 24]),
    offset=st.integers(0, 30), block=st.sampled_from([512, 4096]),
)  # fmt: skip
def test_the_blocks_in_doubt_are_those_that_a_look_at_each_sector_tells(
    sector: int, sectors: int, grain: int, offset: int, block: int
) -> None:
    geometry = Geometry(64 * 4096, block)
    found = discarded_in_doubt(
        requests((sector, sectors, Operation.DISCARD)), DiscardPromise(grain * 512, offset * 512), geometry
    )
    discarded = set(range(sector, sector + sectors))

    def grain_of(one: int) -> set[int]:
        first = (one + offset) // grain * grain - offset
        return set(range(first, first + grain))

    kept = {one for one in discarded if not grain_of(one) <= discarded}
    expected = {one // geometry.block_sectors for one in kept}
    assert set(found.blocks().tolist()) == expected
