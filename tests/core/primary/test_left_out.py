"""Free blocks that were not given to the secondary are known, until they are given."""

from __future__ import annotations

import numpy as np

from pydbt.core.primary.left_out import LeftOut
from pydbt.core.tracking.capture_record import RECORD, Operation
from pydbt.core.units import Geometry
from tests.core.primary.parts import runs, state_of, write

GEOMETRY = Geometry(64 * 4096 - 512, 4096)


def left_out_of(left_out: LeftOut) -> list[int]:
    return left_out.blocks.extents().blocks().tolist()


def captured(*writes: tuple[int, int, Operation]) -> np.ndarray:
    records = np.zeros(len(writes), RECORD)
    for row, (sector, sectors, operation) in zip(records, writes, strict=True):
        row["sector"], row["sectors"], row["op"], row["kind"] = sector, sectors, operation, 1
    return records


def test_a_copy_of_some_blocks_leaves_out_the_others_and_one_of_all_none() -> None:
    left_out = LeftOut(GEOMETRY)
    left_out.all_but(runs((8, 56), (0, 4)))
    assert left_out_of(left_out) == [4, 5, 6, 7] and left_out.grew
    left_out.all_but(runs((0, 64)))
    assert left_out_of(left_out) == []


def test_a_block_that_is_written_as_a_whole_is_out_of_it_and_no_other() -> None:
    left_out = LeftOut(GEOMETRY)
    left_out.written(captured((0, 8, Operation.WRITE)))
    left_out.add(runs((0, 8), (62, 2)))
    left_out.written(captured((4, 8, Operation.WRITE), (16, 8, Operation.WRITE), (24, 8, Operation.WRITE_ZEROES)))
    assert left_out_of(left_out) == [0, 1, 4, 5, 6, 7, 62, 63]
    left_out.written(captured((32, 8, Operation.DISCARD), (504, 7, Operation.WRITE)))
    assert left_out_of(left_out) == [0, 1, 4, 5, 6, 7, 62], "the last block of the volume is short"


def test_a_block_that_is_given_to_the_secondary_is_not_left_out_any_more() -> None:
    left_out = LeftOut(GEOMETRY)
    left_out.given(runs((0, 4)))
    assert not left_out.mask(np.array([1, 2])).any()
    left_out.add(runs((0, 8)))
    left_out.given(runs((2, 2)))
    assert left_out.mask(np.array([1, 2, 3, 4])).tolist() == [True, False, False, True]
    assert left_out.take_grown() and not left_out.take_grown(), "it is written down once"
    left_out.add(runs())
    assert not left_out.take_grown()


def test_a_captured_write_is_out_of_it_whatever_the_mode_is() -> None:
    state = state_of()
    state.left_out.add(runs((0, 8)))
    write(state, 3)
    assert not state.left_out.mask(np.array([3])).any() and state.left_out.mask(np.array([4])).all()


def test_only_a_block_that_leaves_the_set_makes_the_set_unsaved() -> None:
    left_out = LeftOut(GEOMETRY)
    left_out.add(runs((8, 8)))
    left_out.written(captured((0, 64, Operation.WRITE), (128, 8, Operation.WRITE)))
    left_out.given(runs((20, 4)))
    assert not left_out.unsaved, "none of these was in it"
    left_out.written(captured((80, 8, Operation.WRITE)))
    assert left_out.unsaved and left_out_of(left_out) == [8, 9, 11, 12, 13, 14, 15]


def test_a_left_out_block_that_came_into_use_is_saved_soon_because_no_bitmap_remembers_it() -> None:
    left_out = LeftOut(GEOMETRY)
    left_out.add(runs((8, 8)))
    assert left_out.take_grown()
    left_out.found(runs(), runs((0, 4)))
    assert not left_out.take_grown()
    left_out.found(runs(), runs((0, 9)))
    assert left_out.take_grown() and left_out_of(left_out) == [9, 10, 11, 12, 13, 14, 15]
