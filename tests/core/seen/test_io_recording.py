"""A recording is read as it was written, up to the place where it was cut off or damaged."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.io_meaning import FileId
from pydbt.core.seen.io_recording import (
    BLOCK_HEAD_BYTES,
    MAGIC,
    BadRecording,
    FileNames,
    Part,
    TraceBegin,
    TraceEnd,
    encode_part,
    parts_of,
)
from tests.core.seen.records import record, records

BEGIN = TraceBegin("/dev/vdb", 1 << 30, 12345, {"operations": ["read"]})
SOME = records(*(record(sector=8 * number, time_ns=number) for number in range(100)))
NAMES: FileNames = {FileId(7, 0, 12, 1): "/srv/a\nb"}


def recording(*parts: Part) -> bytes:
    return MAGIC + b"".join(map(encode_part, parts))


def read(data: bytes) -> list[Part]:
    return list(parts_of(io.BytesIO(data).read))


def block(kind: bytes, content: bytes, *, size: int | None = None, checksum: int | None = None) -> bytes:
    packed = zstandard.ZstdCompressor().compress(content)
    head = (
        kind,
        len(content) if size is None else size,
        len(packed),
        zlib.crc32(packed) if checksum is None else checksum,
    )
    return struct.pack("<4sIII", *head) + packed


def test_a_recording_is_read_as_it_was_written() -> None:
    begin, names, some, end = read(recording(BEGIN, NAMES, SOME, TraceEnd(3, True)))
    assert (begin, names, end) == (BEGIN, NAMES, TraceEnd(3, True))
    assert isinstance(some, np.ndarray) and (some == SOME).all()


def test_records_take_a_small_part_of_their_size() -> None:
    assert len(encode_part(SOME)) < SOME.nbytes / 4


def test_a_recording_of_nothing() -> None:
    assert read(recording(BEGIN, TraceEnd(0, False))) == [BEGIN, TraceEnd(0, False)]


@given(st.data())
def test_a_recording_that_was_cut_off_anywhere_gives_every_part_before_that(data: st.DataObject) -> None:
    whole = recording(BEGIN, SOME, TraceEnd(0, False))
    at = data.draw(st.integers(0, len(whole) - 1))
    found: list[Part] = []
    with pytest.raises(BadRecording):
        found.extend(parts_of(io.BytesIO(whole[:at]).read))
    begin = len(MAGIC) + len(encode_part(BEGIN))
    parts: list[Part] = []
    with pytest.raises(BadRecording):
        for part in parts_of(io.BytesIO(whole[:at]).read):
            parts.append(part)
    assert len(parts) == (at >= begin) + (at >= begin + len(encode_part(SOME)))


@given(st.integers(0, 1 << 20), st.integers(1, 255))
def test_a_byte_that_was_changed_is_noticed_or_changes_nothing(place: int, change: int) -> None:
    whole = bytearray(recording(BEGIN, SOME, TraceEnd(0, False)))
    whole[place % len(whole)] ^= change
    try:
        parts = read(bytes(whole))
    except BadRecording:
        return
    assert parts[0] == BEGIN and isinstance(parts[1], np.ndarray) and (parts[1] == SOME).all()


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_sentence(data: bytes) -> None:
    with pytest.raises(BadRecording):
        read(MAGIC + data)
    with pytest.raises(BadRecording):
        read(data)


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "no recording"),
        (MAGIC + encode_part(SOME), "does not begin"),
        (recording(BEGIN, BEGIN), "does not begin"),
        (recording(BEGIN), "cut off"),
        (recording(BEGIN) + b"RECS", "cut off"),
        (recording(BEGIN) + block(b"RECS", bytes(88), checksum=0), "checksum"),
        (recording(BEGIN) + block(b"RECS", bytes(88), size=87), "size is wrong"),
        (recording(BEGIN) + block(b"RECS", bytes(87)), "content"),
        (recording(BEGIN) + block(b"RECS", b"\xff" * 88), "content"),
        (recording(BEGIN) + block(b"FILE", b"[[1]]"), "content"),
        (recording(BEGIN) + block(b"FILE", b"[" * 100_000), "content"),
        (recording(BEGIN) + block(b"END ", b"{}"), "content"),
        (recording(BEGIN) + block(b"ELSE", b"{}"), "does not know"),
        (recording(BEGIN) + struct.pack("<4sIII", b"RECS", 1 << 31, 9, 0), "larger"),
        (MAGIC + block(b"BEGN", b'{"version": 2}'), "version 2"),
    ],
)
def test_damage_is_told(data: bytes, words: str) -> None:
    with pytest.raises(BadRecording, match=words):
        read(data)


def test_a_block_that_unpacks_to_more_than_it_says_is_refused_before_that() -> None:
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 26))
    bomb = struct.pack("<4sIII", b"RECS", 88, len(packed), zlib.crc32(packed)) + packed
    with pytest.raises(BadRecording, match="size is wrong"):
        read(recording(BEGIN) + bomb)
    assert BLOCK_HEAD_BYTES == 16
