"""Data that the target does not take is kept aside by sectors, and read as if it were there; too many bad blocks are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.blocks.apply_plan import ZEROS, PlannedWrites
from pydbt.core.blocks.runs import Runs
from pydbt.core.secondary.bad_blocks import BAD_BLOCK_BYTES, BadBlocks, bad_words, halves, in_one_block, moved

BLOCKS = 8
SECTORS = BLOCKS * 8
SIZE = SECTORS * 512


def planned(*rows: tuple[int, int, int]) -> PlannedWrites:
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return PlannedWrites(columns[:, 0], columns[:, 1], columns[:, 2])


def rows_of(writes: PlannedWrites) -> list[tuple[int, int, int]]:
    return list(zip(writes.sectors.tolist(), writes.lengths_sectors.tolist(), writes.sources.tolist(), strict=True))


def kept(*numbers: int, found: bytes | None = bytes(BAD_BLOCK_BYTES), size: int = SIZE) -> BadBlocks:
    blocks = BadBlocks(size)
    for number in numbers:
        blocks.add(number, found if found is None else found[: blocks.length_bytes(number)])
    return blocks


def lay(image: bytearray, writes: PlannedWrites, buffer: bytes) -> None:
    for sector, count, source in rows_of(writes):
        data = bytes(count * 512) if source == ZEROS else buffer[source : source + count * 512]
        image[sector * 512 : (sector + count) * 512] = data


EXTENTS = st.lists(
    st.tuples(st.integers(0, SECTORS - 1), st.integers(1, 20), st.booleans()), min_size=1, max_size=8
)  # fmt: skip


@given(st.sets(st.integers(0, BLOCKS - 1)), st.lists(EXTENTS, min_size=1, max_size=4))
def test_the_target_and_the_kept_blocks_together_have_everything_that_was_written(bad: set[int], batches: list) -> None:
    """And nothing of it goes to a block that is kept."""
    blocks, disk, truth = kept(*bad), bytearray(SIZE), bytearray(SIZE)
    for number, batch in enumerate(batches):
        buffer = bytes([number + 1]) * SIZE
        for sector, count, zero in batch:
            count = min(count, SECTORS - sector)
            row = planned((sector, count, ZEROS if zero else sector * 512))
            lay(truth, row, buffer)
            rest = blocks.divert(row, memoryview(buffer))
            assert not any(set(range(s // 8, -(-(s + c) // 8))) & bad for s, c, _ in rows_of(rest))
            lay(disk, rest, buffer)
    seen = memoryview(bytearray(disk))
    blocks.overlay(0, seen)
    assert bytes(seen) == bytes(truth)


def test_a_write_that_meets_no_kept_block_is_handed_on_as_it_is() -> None:
    writes = planned((0, 8, 0), (24, 8, 4096))
    blocks = kept(2)
    blocks.unsaved = False
    assert blocks.divert(writes, memoryview(bytes(8192))) is writes and not blocks.unsaved
    assert BadBlocks(SIZE).divert(writes, memoryview(bytes(8192))) is writes


def test_a_run_over_several_kept_blocks_is_cut_around_them() -> None:
    blocks, buffer = kept(1, 3), bytes(range(256)) * 128
    rest = blocks.divert(planned((4, 32, 0)), memoryview(buffer))
    assert rows_of(rest) == [(4, 4, 0), (16, 8, 12 * 512), (32, 4, 28 * 512)]
    assert bytes(blocks.kept[1].content) == buffer[4 * 512 : 12 * 512] and blocks.unsaved
    assert rows_of(blocks.divert(planned((8, 8, ZEROS)), memoryview(b""))) == []
    assert not any(blocks.kept[1].content)


def test_only_the_written_sectors_of_a_block_that_could_not_be_read_are_known() -> None:
    blocks = kept(1, found=None)
    blocks.lay(10, 2, 0, memoryview(b"x" * 1024))
    assert not blocks.is_whole(1) and blocks.to_read(0, 512) == [(0, 512)]
    assert blocks.to_read(BAD_BLOCK_BYTES, 3 * BAD_BLOCK_BYTES) == [(BAD_BLOCK_BYTES, 3 * BAD_BLOCK_BYTES)]
    view = memoryview(bytearray(b"o" * BAD_BLOCK_BYTES))
    blocks.overlay(BAD_BLOCK_BYTES, view)
    assert bytes(view) == b"o" * 1024 + b"x" * 1024 + b"o" * 2048
    blocks.complete(1, b"d" * BAD_BLOCK_BYTES)
    assert blocks.is_whole(1) and blocks.to_read(BAD_BLOCK_BYTES + 512, BAD_BLOCK_BYTES + 1024) == []
    assert bytes(blocks.kept[1].content) == b"d" * 1024 + b"x" * 1024 + b"d" * 2048
    assert blocks.to_read(BAD_BLOCK_BYTES, 2 * BAD_BLOCK_BYTES + 512) == [
        (2 * BAD_BLOCK_BYTES, 2 * BAD_BLOCK_BYTES + 512)
    ]
    around = [(512, BAD_BLOCK_BYTES), (2 * BAD_BLOCK_BYTES, 3 * BAD_BLOCK_BYTES)]
    assert blocks.to_read(512, 3 * BAD_BLOCK_BYTES) == around
    assert blocks.to_read(512, 2 * BAD_BLOCK_BYTES - 512) == around[:1]


def test_a_part_of_a_kept_block_is_read_where_it_was_asked_for() -> None:
    blocks = kept(1, found=bytes(range(256)) * 16)
    view = memoryview(bytearray(1024))
    blocks.overlay(BAD_BLOCK_BYTES + 256, view)
    assert bytes(view) == (bytes(range(256)) * 16)[256:1280]


def test_the_last_block_of_a_target_may_be_short() -> None:
    blocks = kept(7, found=b"e" * 1536, size=SIZE - 5 * 512)
    assert blocks.length_bytes(7) == 1536 and blocks.is_whole(7)


def test_a_block_that_the_target_takes_leaves_the_set_and_the_others_are_tried_in_turn() -> None:
    blocks = kept(2, 5, 6)
    blocks.unsaved = False
    assert blocks.runs().blocks().tolist() == [2, 5, 6] == blocks.to_try()
    blocks.tried(2)
    assert blocks.to_try() == [5, 6, 2] and not blocks.unsaved
    blocks.remove([5])
    assert blocks.unsaved and blocks.to_try() == [6, 2] and len(blocks) == 2
    blocks.tried(6)
    assert blocks.to_try() == [2, 6]


@pytest.mark.parametrize(("size_bytes", "most"), [(1 << 20, 64), (64 << 20, 163), (1 << 40, 1024)])
def test_more_than_a_disk_has_bad_sectors_is_a_failing_disk(size_bytes: int, most: int) -> None:
    blocks = kept(*range(most - 1), found=None, size=size_bytes)
    assert not blocks.is_full
    blocks.add(most - 1, None)
    assert blocks.is_full


@pytest.mark.parametrize(("sector", "count", "first"), [(0, 16, 8), (7, 2, 1), (7, 9, 1), (3, 100, 45), (8, 9, 8)])
def test_a_run_is_halved_between_two_blocks(sector: int, count: int, first: int) -> None:
    assert halves(sector, count) == first and (sector + first) % 8 == 0 and 0 < first < count
    assert not in_one_block(sector, count) and in_one_block(sector, 1)


def test_zeros_stay_zeros_wherever_a_run_is_cut() -> None:
    assert moved(ZEROS, 3) == ZEROS and moved(512, 3) == 2048


def test_the_places_are_named_and_many_are_counted() -> None:
    assert bad_words(Runs.none()) == ""
    assert "cannot be written at byte 8192, at byte 40960: the data for these places (12288 bytes)" in bad_words(
        Runs(np.array([2, 10]), np.array([2, 1]))
    )
    four, five = (bad_words(Runs(np.arange(count) * 4, np.ones(count, np.int64))) for count in (4, 5))
    assert "at byte 32768 and at 1 more place:" in four and "and at 2 more places:" in five
