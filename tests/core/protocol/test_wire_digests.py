"""Digests of equal blocks, such as trimmed ones that all read as zeros, take next to nothing on the wire."""

from __future__ import annotations

import os

import numpy as np
import pytest
import zstandard

from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import WireError
from pydbt.core.protocol import wire
from pydbt.core.protocol.frames import Digests


def body_of(frame: Digests) -> tuple[wire.FrameHeader, bytes]:
    start, *body = wire.encode(frame, 3)
    return wire.decode_frame_header(start), b"".join(bytes(piece) for piece in body)


def test_the_digests_of_many_equal_blocks_are_small_on_the_wire_and_arrive_whole():
    frame = Digests(7, Runs(np.array([0, 9000]), np.array([4096, 100])), os.urandom(16) * 4196)
    header, body = body_of(frame)
    assert len(body) < 1000
    assert wire.decode_body(header, body) == frame


def test_digests_that_do_not_repeat_travel_as_they_are():
    frame = Digests(7, Runs(np.array([5]), np.array([256])), os.urandom(16 * 256))
    header, body = body_of(frame)
    assert header.flags == 0 and len(body) == 16 + 16 + 16 * 256
    assert wire.decode_body(header, body) == frame


def test_compressed_digests_that_tell_of_another_size_are_refused_before_anything_is_unpacked():
    frame = Digests(7, Runs(np.array([0]), np.array([4096])), bytes(16 * 4096))
    start, table, packed = wire.encode(frame, 0)
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    header = wire.decode_frame_header(start)
    for wrong in (bomb, bytes(packed)[:-3], b"", b"nonsense"):
        with pytest.raises((ValueError, zstandard.ZstdError)):
            wire._decode_digests(header, memoryview(bytes(table) + wrong))
    with pytest.raises(WireError):
        wire.decode_body(header, bytes(table) + b"\0" * len(packed))
