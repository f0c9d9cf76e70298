"""Times, marks and transactions in the stream: what may be in them, and what this version refuses."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.errors import WireError
from pydbt.core.protocol import frames as f
from pydbt.core.protocol import wire
from pydbt.core.protocol.completed import COMPLETED_DTYPE, MAX_COMPLETED, Completed
from pydbt.core.protocol.mark import MAX_NAME_BYTES, NamedMark, check_name
from pydbt.core.protocol.stream_times import MAX_TIMES, ClockOffset, StreamTimes
from pydbt.core.protocol.unit_rows import decode_units
from tests.lab.decoder import Decoder

NS = 1_000_000_000
ROW = (48211, 100, 100, 5 * NS, 9 * NS, 0, 1, 0, 0)


def through_the_wire(frame: f.Frame, change: tuple[int, bytes] | None = None) -> f.Frame:
    """``change``: bytes of the body, and what is to be in their place, as another program might send it."""
    pieces = [bytes(piece) for piece in wire.encode(frame, 0)]
    header = wire.decode_frame_header(pieces[0])
    body = bytearray(b"".join(pieces[1:]))
    if change is not None:
        body[change[0] : change[0] + len(change[1])] = change[1]
    decoded = wire._DECODERS[header.kind](header, memoryview(body))
    if change is None:
        decoder = Decoder()
        decoder.feed(b"".join(pieces))
        assert decoder.next() == decoded
    return decoded


def stream(times: StreamTimes | None, first: int = 7, last: int = 8) -> f.Stream:
    return f.Stream(first, last, SectorTable.of([8], [8]), (bytes(4096),), times)


def mark(**others: object) -> NamedMark:
    given = {"sequence": 5, "number": 9, "name": "a", "set_ns": NS, "clock_offset_ns": -7, "synced": True, **others}
    return NamedMark(**given)  # type: ignore[arg-type]


def completed(*rows: tuple[int, ...], after: int = 200) -> Completed:
    return Completed(after, 3, np.array(list(rows), COMPLETED_DTYPE))


def test_each_update_has_its_time_and_one_offset_between_the_clocks() -> None:
    times = StreamTimes(-(1 << 40), np.array([3 * NS, 0], np.uint64))
    assert through_the_wire(stream(times)) == stream(times)
    assert stream(times) != stream(None)
    with pytest.raises(ValueError, match="1 times for updates 7 to 8"):
        stream(StreamTimes(0, np.array([1], np.uint64)))
    with pytest.raises(ValueError, match="away from another"):
        StreamTimes(1 << 62, np.array([1], np.uint64))


def test_a_frame_with_times_has_bounded_room_for_them() -> None:
    many = StreamTimes(0, np.zeros(MAX_TIMES + 1, np.uint64))
    with pytest.raises(ValueError, match="more updates or extents than it may"):
        f.Stream(1, MAX_TIMES + 1, SectorTable.of([], []), (), many)
    short = stream(StreamTimes(0, np.zeros(2, np.uint64)))
    with pytest.raises(ValueError, match="do not fit"):  # it says that it has more updates than times
        through_the_wire(short, (8, struct.pack("<Q", 1_000_000)))


def test_the_flag_of_times_is_for_streams_alone() -> None:
    header = bytes(wire.encode(f.Commit(1, 2), 0)[0])
    flagged = header[:6] + b"\x02\x00" + header[8:]
    with pytest.raises(WireError, match=r"unknown flags|checksum"):
        wire.decode_frame_header(flagged)


def test_another_device_than_the_first_is_refused_everywhere() -> None:
    with pytest.raises(ValueError, match="another device than 0"):
        through_the_wire(stream(None), (24 + 13, b"\x01"))
    with pytest.raises(ValueError, match="another device"):
        decode_units(struct.pack("<QIBBH", 1, 1, 1, 1, 0))
    with pytest.raises(ValueError, match="another device than 0"):
        through_the_wire(completed(ROW), (24 + 45, b"\x01"))


@pytest.mark.parametrize("name", ["before migration 14", "ü" * (MAX_NAME_BYTES // 2), "1"])
def test_a_mark_arrives_as_it_was_set(name: str) -> None:
    one = mark(name=name, partly=True, uncertain_bytes=4096)
    assert through_the_wire(one) == one


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "\x1b[2J", "x" * (MAX_NAME_BYTES + 1), None, 7, "\udc80"])
def test_a_name_that_no_terminal_could_show_names_no_mark(name: object) -> None:
    with pytest.raises(ValueError, match=r"a mark has a name|the name of a mark|is not a text"):
        check_name(name)


@pytest.mark.parametrize(
    ("at", "value"), [(40, b"\x04"), (42, b"\x02"), (44, b"\x01"), (0, bytes(8)), (8, bytes(8)), (48, b"\xff")]
)
def test_a_mark_with_anything_else_in_it_is_refused(at: int, value: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        through_the_wire(mark(), (at, value))


def test_transactions_arrive_as_they_completed() -> None:
    told = completed(ROW, (48211, 120, 130, 6 * NS, 0, 3, 1, 0, 0), (7 << 32 | 9, 200, 200, 0, 0, 0, 2, 0, 0))
    assert through_the_wire(told) == told
    assert told != completed(ROW) and told != mark()


@pytest.mark.parametrize(
    "rows",
    [
        (), ((1, 100, 99, 0, 0, 0, 1, 0, 0),), ((1, 100, 201, 0, 0, 0, 1, 0, 0),), ((1, 1, 1, 0, 0, 0, 3, 0, 0),),
        ((1, 1, 1, 0, 0, 0, 1, 0, 1),), (ROW,) * (MAX_COMPLETED + 1),
    ],
    ids=["none", "whole before its end", "whole later", "of no file system", "reserved", "too many"],
)  # fmt: skip
def test_impossible_rows_of_transactions_are_refused(rows: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"."):
        completed(*rows)


def test_another_number_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="another number of rows"):
        through_the_wire(completed(ROW), (16, b"\x02"))


def test_the_offset_changes_when_a_clock_was_set_and_not_for_the_time_between_two_looks() -> None:
    offset = ClockOffset()
    assert offset.look(10 * NS, 100 * NS) == 90 * NS
    assert offset.look(11 * NS, 101 * NS + 99_999) == 90 * NS
    assert offset.look(12 * NS, 102 * NS + 100_000) == 90 * NS + 100_000
    assert offset.look(13 * NS, 50 * NS) == 37 * NS, "a clock that was set back"
