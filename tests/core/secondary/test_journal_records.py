"""A record of the journal is read only where it was written, by an incarnation that counts, and whole."""

from __future__ import annotations

import struct

import pytest

from pydbt.core.protocol.frames import Begin
from pydbt.core.secondary.journal import (
    RECORD_HEADER_BYTES,
    JournalRecordKind,
    decode_record_header,
    encode_pad,
    encode_record,
    record_bytes,
    record_is_whole,
)

AT, INCARNATION = 4096, 5


def begin() -> bytes:
    return b"".join(map(bytes, encode_record(Begin(resync=1, epoch=9, total_bytes=0, flags=0), AT, INCARNATION)))


def decoded(data: bytes, at: int = AT, room: int | None = 1 << 20, incarnations: tuple[int, int] = (5, 5)):
    return decode_record_header(data, at, room, incarnations)


def with_byte(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes([value]) + data[place + 1 :]


def test_a_record_is_found_where_it_was_written() -> None:
    header = decoded(begin())
    assert header is not None and header.kind is JournalRecordKind.BEGIN and header.end == AT + len(begin())
    assert record_is_whole(header, begin()[RECORD_HEADER_BYTES : RECORD_HEADER_BYTES + header.length])
    assert not record_is_whole(header, b"\xff" * header.length)


@pytest.mark.parametrize(
    ("why", "found"),
    [
        ("cut off", decoded(begin()[: RECORD_HEADER_BYTES - 1])),
        ("no magic", decoded(with_byte(begin(), 0, 0))),
        ("from another place", decoded(begin(), at=AT + 64)),
        ("of an earlier incarnation", decoded(begin(), incarnations=(6, 9))),
        ("of a later incarnation", decoded(begin(), incarnations=(1, 4))),
        ("longer than the segment", decoded(begin(), room=len(begin()) - 1)),
        ("a pad that ends elsewhere", decoded(encode_pad(AT, 4096, INCARNATION), room=8192)),
    ],
)
def test_anything_else_is_the_end_of_the_journal(why: str, found: object) -> None:
    assert found is None, why


def test_an_unknown_kind_and_an_impossible_length_are_the_end_of_the_journal() -> None:
    good = begin()
    kinds = [place for place in range(RECORD_HEADER_BYTES) if good[place] == JournalRecordKind.BEGIN]
    unknown = [decoded(with_byte(good, place, 99)) for place in kinds]
    assert None in unknown
    length = struct.pack("<I", len(good))
    places = [place for place in range(RECORD_HEADER_BYTES - 4) if good[place : place + 4] == struct.pack("<I", 8)]
    assert any(decoded(good[:place] + length + good[place + 4 :]) is None for place in places)


def test_a_pad_takes_the_rest_of_its_segment_and_its_body_does_not_count() -> None:
    header = decoded(encode_pad(AT, 4096, INCARNATION), room=4096)
    assert header is not None and header.kind is JournalRecordKind.PAD and record_bytes(header.length) == 4096
    assert record_is_whole(header, b"never written")
