"""Golden records of the journal: those of earlier versions are read, and those of this version stay readable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.protocol.completed import COMPLETED_DTYPE, Completed
from pydbt.core.protocol.frames import Begin, Blocks, Commit, Stream
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.protocol.stream_times import StreamTimes
from pydbt.core.secondary.journal import (
    RECORD_HEADER_BYTES,
    JournalEntry,
    JournalRecordKind,
    RecordHeader,
    decode_record_header,
    encode_pad,
    encode_record,
    needs_history,
    record_extents,
    record_is_whole,
    record_mark,
)

SAMPLES = Path(__file__).parents[2] / "samples"
PAD_BYTES = 1 << 14
TABLE = SectorTable.of([8, 0, 8], [1, 9, 1], [1, 3, 1], [0, 1, 2])
EARLIER: list[JournalEntry] = [
    Begin(3, 77, 1000),
    Blocks(4, SectorTable.of([8, 100], [2, 50], [1, 3]), (b"a" * 512, b"b" * 512)),
    (Commit(3, 9), 78),
    Stream(10, 12, TABLE, (b"c" * 1024,)),
]
LATER: list[JournalEntry] = [
    Stream(10, 12, TABLE, (b"c" * 1024,), StreamTimes(-7, np.array([1, 1 << 50, 0], np.uint64))),
    Completed(12, 9, np.array([(48211, 11, 12, 5, 6, 3, 1, 0, 0)], COMPLETED_DTYPE)),
    NamedMark(13, 1 << 60, "before migration 14", 5, -7, synced=True),
]


def written(entries: list[JournalEntry]) -> bytes:
    data = b""
    for entry in entries:
        data += b"".join(map(bytes, encode_record(entry, len(data), 5)))
    return data + encode_pad(len(data), PAD_BYTES, 5)


def read(data: bytes) -> list[tuple[RecordHeader, memoryview]]:
    found, view, offset = [], memoryview(data), 0
    while header := decode_record_header(view[offset:], offset, None, (5, 5)):
        length = 0 if header.kind is JournalRecordKind.PAD else header.length
        body = view[offset + RECORD_HEADER_BYTES :][:length]
        assert record_is_whole(header, body)
        found.append((header, body))
        offset = header.end
    return found


@pytest.mark.parametrize(("layout", "entries"), [(1, EARLIER), (2, LATER)])
def test_golden_records_are_read_and_written_as_they_were(layout: int, entries: list[JournalEntry]) -> None:
    data = (SAMPLES / f"journal-layout-{layout}.records").read_bytes()
    assert written(entries) == data
    assert len(read(data)) == len(entries) + 1
    assert all(needs_history(entry) for entry in entries) is (layout == 2)
    assert any(needs_history(entry) for entry in entries) is (layout == 2)


def test_times_lie_between_the_table_and_the_payload_and_change_neither() -> None:
    (plain, body), (timed, timed_body) = read(written(EARLIER))[3], read(written(LATER))[0]
    for one, other in zip(record_extents(plain, body), record_extents(timed, timed_body), strict=True):
        assert one == other
    assert timed.timed and not plain.timed


def test_a_mark_comes_back_from_its_record_and_from_no_other() -> None:
    marks = [record_mark(header, body) for header, body in read(written(LATER))]
    assert [mark for mark in marks if mark is not None] == [LATER[2]]


def test_extents_of_another_device_are_not_applied() -> None:
    header, body = read(written(EARLIER))[3]
    other = bytearray(body)
    other[13] = 1
    with pytest.raises(ValueError, match="another device"):
        record_extents(header, memoryview(other))


@pytest.mark.parametrize(("kind", "at", "value"), [(4, 6, 1), (6, 8, 1), (7, 8, 0), (2, 40, 200)])
def test_a_header_that_no_record_has_is_the_end(kind: int, at: int, value: int) -> None:
    """Flags of another kind, lengths that cannot be, and more times than there is room for."""
    records = [*read(written(EARLIER)), *read(written(LATER))]
    header = next(one for one, _ in reversed(records) if one.kind == kind)
    data = bytearray(header.digested + header.digest)
    data[at] = value
    if kind == 2:
        assert header.timed
        data[at + 2] = 1
    assert decode_record_header(data, header.position, None, (5, 5)) is None
