"""Blocks that are read arrive whole, in pieces that leave a disk to others, in memory that is bounded and used again."""

from __future__ import annotations

import queue

import numpy as np
import pytest

from pydbt.controller.primary.block_reader import POOL_BYTES, READ_BYTES, BlockReader
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import MediumError
from pydbt.core.primary.events import ReadBlocks
from pydbt.core.units import MIB, Geometry

GEOMETRY = Geometry(64 * MIB, 4096)


class NumberedDisk:
    """Every 8 bytes are their own offset."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def read_extent(self, offset_bytes: int, length_bytes: int, into: memoryview) -> None:
        self.lengths.append(length_bytes)
        into[:length_bytes] = np.arange(offset_bytes, offset_bytes + length_bytes, 8, dtype="<u8").tobytes()


@pytest.fixture
def disk():
    return NumberedDisk()


@pytest.fixture
def answers():
    return queue.SimpleQueue()


@pytest.fixture
def reader(disk, answers):
    reader = BlockReader(disk, GEOMETRY, lambda: 0, answers.put)
    yield reader
    reader.close()


def read(reader: BlockReader, answers: queue.SimpleQueue, identifier: int, *runs: tuple[int, int]) -> memoryview:
    asked = Runs(*(np.array(column) for column in zip(*runs, strict=True)))
    reader.submit(ReadBlocks(identifier, asked))
    answer = answers.get(timeout=60)
    assert (answer.reading, answer.error) == (identifier, "")
    return reader.reading(identifier).data


def test_a_batch_is_whole_and_in_order_though_it_is_read_in_pieces_that_leave_the_disk_to_others(reader, disk, answers):
    data = read(reader, answers, 1, (0, 700), (5000, 1), (6000, 300))
    wanted = [np.arange(first * 4096, (first + count) * 4096, 8) for first, count in ((0, 700), (5000, 1), (6000, 300))]
    assert np.array_equal(np.frombuffer(data, "<u8"), np.concatenate(wanted))
    assert max(disk.lengths) <= READ_BYTES and sum(disk.lengths) == 1001 * 4096


def test_memory_of_a_batch_that_is_over_is_used_again(reader, answers):
    first = read(reader, answers, 1, (0, 1024)).obj
    reader.drop(1)
    assert read(reader, answers, 2, (4096, 1024)).obj is first


def test_the_pool_of_buffers_is_bounded_whatever_their_sizes_were(reader, answers):
    batches = range(1, 41)
    for identifier in batches:
        read(reader, answers, identifier, (0, 64 * identifier))
    for identifier in batches:
        reader.drop(identifier)
    assert 0 < sum(map(len, reader._pool)) <= POOL_BYTES


class DiskWithBadBlocks(NumberedDisk):
    """Some blocks of it cannot be read."""

    bad = (3, 200, 5000, 6001)

    def read_extent(self, offset_bytes: int, length_bytes: int, into: memoryview) -> None:
        if any(offset_bytes < (block + 1) * 4096 and block * 4096 < offset_bytes + length_bytes for block in self.bad):
            self.lengths.append(length_bytes)
            raise MediumError(f"no read at {offset_bytes}")
        super().read_extent(offset_bytes, length_bytes, into)


def test_blocks_that_cannot_be_read_are_named_and_the_others_are_whole_and_in_order(answers):
    disk = DiskWithBadBlocks()
    reader = BlockReader(disk, GEOMETRY, lambda: 0, answers.put)
    try:
        asked = Runs(np.array([0, 5000, 6000]), np.array([700, 1, 300]))
        reader.submit(ReadBlocks(1, asked))
        answer = answers.get(timeout=60)
        assert answer.unreadable.blocks().tolist() == [3, 200, 5000, 6001] and "no read at" in answer.error
        readable = asked.minus(answer.unreadable)
        wanted = [np.arange(block * 4096, (block + 1) * 4096, 8) for block in readable.blocks().tolist()]
        data = reader.reading(1)
        assert np.array_equal(np.frombuffer(data.data, "<u8"), np.concatenate(wanted))
        assert answer.length_bytes == len(data.data) == readable.total() * 4096
        single = sum(length == 4096 for length in disk.lengths)
        assert single < 20, "it is narrowed by halving, and not read block by block"
        units = Runs(np.array([4]), np.array([5]))
        assert data.blocks(1, units).payload[0][:8] == (4 * 4096).to_bytes(8, "little")
    finally:
        reader.close()


def test_where_nothing_can_be_read_every_block_is_named(answers):
    disk = DiskWithBadBlocks()
    reader = BlockReader(disk, GEOMETRY, lambda: 0, answers.put)
    try:
        reader.submit(ReadBlocks(1, Runs(np.array([3, 200]), np.array([1, 1]))))
        answer = answers.get(timeout=60)
        assert answer.unreadable.blocks().tolist() == [3, 200] and answer.length_bytes == 0
    finally:
        reader.close()
