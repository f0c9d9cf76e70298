"""Captured writes and read blocks become frames with exactly their content."""

from __future__ import annotations

import logging
import socket
import time

import numpy as np
import pytest

from pydbt.controller.log_limit import LINES, LogLimit
from pydbt.controller.primary.outbox import BlockData, Outbox, stream_frames
from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import ExtentKind, SectorTable
from pydbt.core.errors import PeerError
from pydbt.core.protocol.digests import UnitDigest
from pydbt.core.protocol.frames import Blocks
from pydbt.core.tracking.capture_record import RECORD, Operation
from pydbt.core.tracking.replica_queue import MAX_UPDATE_SECTORS
from pydbt.core.units import MIB, SECTOR_BYTES, Geometry
from pydbt.network.connection import FramedConnection


def apply(frames, size_bytes: int) -> bytearray:
    """The image that frames leave behind, over a disk full of 0xff."""
    image = bytearray(b"\xff" * size_bytes)
    for frame in frames:
        payload = b"".join(frame.payload)
        at = 0
        extents = frame.extents
        for sector, sectors, kind in zip(extents.first_sectors, extents.lengths_sectors, extents.kinds, strict=True):
            start, length = int(sector) * 512, int(sectors) * 512
            if kind == ExtentKind.DATA:
                image[start : start + length] = payload[at : at + length]
                at += length
            else:
                image[start : start + length] = bytes(length)
    return image


def test_a_farewell_to_one_that_takes_nothing_holds_nobody_up():
    """The loop that says it has a ring to empty, and other secondaries to serve."""
    near, far = socket.socketpair()
    with far:
        outbox = Outbox(FramedConnection(near), None, lambda reason: None)
        outbox.put([Blocks(batch=1, extents=SectorTable.of([0], [2048]), payload=(bytes(MIB),))] * 64, MIB)
        began = time.monotonic()
        outbox.close(flush_s=60.0)
        assert time.monotonic() - began < 30.0
        far.close()  # only now does it end
        outbox.wait_for_farewell()
        assert not outbox._thread.is_alive()


def test_each_update_is_told_with_its_own_time_and_a_large_write_with_one_for_all_of_its_parts():
    records = np.zeros(3, dtype=RECORD)
    records["sector"], records["sectors"], records["op"] = [0, 8, 0], [8, 8, 2], Operation.WRITE
    records["time_ns"] = [5, 7, 6]
    (frame,) = stream_frames(records, np.array([1, 2, 3]), 1, bytes(18 * 512), -9)
    assert frame.times is not None and frame.times.clock_offset_ns == -9
    assert frame.times.submitted_ns.tolist() == [5, 7, 6]
    assert stream_frames(records, np.array([1, 2, 3]), 1, bytes(18 * 512))[0].times is None
    large = records[:1].copy()
    large["sectors"] = MAX_UPDATE_SECTORS + 8
    frames = stream_frames(large, np.array([5]), 4, bytes((MAX_UPDATE_SECTORS + 8) * 512), 3)
    assert [frame.times.submitted_ns.tolist() for frame in frames] == [[5], [5]]


def test_writes_discards_and_zeroes_are_streamed_in_order_with_their_numbers():
    records = np.zeros(4, dtype=RECORD)
    records["sector"] = [0, 8, 0, 16]
    records["sectors"] = [8, 8, 2, 8]
    records["op"] = [Operation.WRITE, Operation.DISCARD, Operation.WRITE, Operation.WRITE_ZEROES]
    payload = b"a" * 4096 + b"b" * 1024
    frames = stream_frames(records, np.array([5, 6, 7, 8]), 5, payload)
    assert frames[0].first == 5 and frames[-1].last == 8
    image = apply(frames, 16384)
    assert image == b"b" * 1024 + b"a" * 3072 + bytes(8192) + b"\xff" * 4096


def test_a_write_of_zeroes_costs_no_payload():
    records = np.zeros(1, dtype=RECORD)
    records["sectors"], records["op"] = 64, Operation.WRITE
    frame = stream_frames(records, np.array([1]), 1, bytes(64 * SECTOR_BYTES))[0]
    assert frame.payload_bytes == 0 and apply([frame], 64 * SECTOR_BYTES) == bytes(64 * SECTOR_BYTES)


def test_a_write_larger_than_a_frame_is_streamed_in_parts_that_make_it_whole():
    sectors = 2 * MAX_UPDATE_SECTORS + 5
    payload = np.random.default_rng(1).bytes(sectors * SECTOR_BYTES)
    records = np.zeros(1, dtype=RECORD)
    records["sectors"], records["op"], records["pieces"] = sectors, Operation.WRITE, 9
    frames = stream_frames(records, np.array([12]), 10, payload)
    assert [(frame.first, frame.last) for frame in frames] == [(10, 10), (11, 11), (12, 12)]
    assert apply(frames, len(payload)) == payload


@pytest.fixture
def reading() -> BlockData:
    geometry = Geometry(10 * 4096 - 512)
    data = memoryview(np.random.default_rng(2).bytes(4 * 4096 - 512))
    return BlockData(geometry, Runs(np.array([1, 7]), np.array([1, 3])), data)


def test_digests_are_of_single_blocks_and_the_short_last_block_as_it_is(reading):
    digest = UnitDigest(bytes(range(32)))
    frame = reading.digests(3, Runs(np.array([1, 7]), np.array([1, 3])), 4096, digest)
    assert bytes(frame.digests[:16]) == digest.of(reading.data[:4096])
    assert bytes(frame.digests[-16:]) == digest.of(reading.data[3 * 4096 :])


def test_only_the_blocks_that_the_secondary_asked_for_are_sent(reading):
    wanted = Runs(np.array([7, 9]), np.array([1, 1]))
    image = apply([reading.blocks(1, wanted)], 10 * 4096)
    assert image[7 * 4096 : 8 * 4096] == reading.data[4096:8192]
    assert image[9 * 4096 : 10 * 4096 - 512] == reading.data[3 * 4096 :]
    assert image[8 * 4096 : 9 * 4096] == b"\xff" * 4096 and image[: 7 * 4096] == b"\xff" * (7 * 4096)


def test_a_secondary_that_asks_for_what_it_was_not_offered_is_refused(reading):
    with pytest.raises(PeerError):
        reading.blocks(1, Runs(np.array([8]), np.array([5])))


def test_settled_blocks_are_one_update_of_the_stream(reading):
    frame = reading.settled(9, Runs(np.array([8]), np.array([1])))
    assert (frame.first, frame.last) == (9, 9)
    assert apply([frame], 10 * 4096)[8 * 4096 : 9 * 4096] == reading.data[8192:12288]


def test_a_flapping_link_cannot_flood_the_log_and_what_was_left_out_is_counted(caplog):
    now = [0.0]
    limit = LogLimit(logging.getLogger("test"), lambda: now[0])
    with caplog.at_level(logging.INFO):
        for number in range(100):
            limit.log(logging.INFO, f"normal -> unsynchronized: {number}")
        assert len(caplog.records) == LINES
        now[0] = 11.0
        limit.log(logging.INFO, "normal -> unsynchronized: again")
    assert "94 more" in caplog.text and "again" in caplog.text
