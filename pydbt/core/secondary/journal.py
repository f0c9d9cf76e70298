"""Records of the secondary's journal: encoding and checking, with no I/O.

docs/reference/format.md has the offset table, and a test compares it with the layout here.

The journal is one endless line of bytes, cut into segments of equal size. A record contains its own position, and the
incarnation of the journal that wrote it (each opening counts up). Old records in a recycled segment have other positions;
records that an earlier incarnation left behind a torn tail have a lower incarnation than the record before them. Neither
is ever taken for current.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import xxhash

from pydbt.core.blocks.sector_table import EXTENT_BYTES, SectorTable
from pydbt.core.protocol.completed import COMPLETED, MAX_COMPLETED_BYTES, Completed
from pydbt.core.protocol.frames import MAX_EXTENTS, MAX_PAYLOAD_BYTES, Begin, Blocks, Commit, Stream
from pydbt.core.protocol.layout import Layout
from pydbt.core.protocol.mark import MARK, MAX_MARK_BYTES, NamedMark
from pydbt.core.protocol.stream_times import MAX_TIMES, times_bytes
from pydbt.core.units import MIB, Buffer

JOURNAL_MAGIC = b"PDJR"
JOURNAL_VERSION = 1
RECORD_ALIGN = 64
"""Records begin at multiples of this, so that the end of a segment always has room for a PAD's header."""
RECORD_HEADER_BYTES = 64
MAX_RECORD_BYTES = 9 * MIB + 4096
SEGMENT_BYTES = 64 * MIB

_HEADER = Layout(
    magic="4s", version="B", kind="B", flags="H", length="I", extent_count="I",
    position="Q", incarnation="Q", first="Q", last="Q",
)  # fmt: skip
_DIGESTED_BYTES = _HEADER.size
_EPOCH = Layout(epoch="Q")
_ZEROS = bytes(RECORD_ALIGN)
RECORD_WITH_TIMES = 1
"""Of a STREAM record: its times lie between the table and the payload."""


class JournalRecordKind(IntEnum):
    """PAD fills the rest of a segment and has no body to check; the others are the frames of the same names."""

    PAD = 1
    STREAM = 2
    BLOCKS = 3
    BEGIN = 4
    COMMIT = 5
    MARK = 6
    COMPLETED = 7


JournalEntry = Stream | Blocks | Begin | NamedMark | Completed | tuple[Commit, int]
"""The content of one record. A COMMIT has the epoch of its BEGIN beside it."""


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The 64 bytes before a record's body. ``first`` and ``last`` by kind:

    STREAM: its sequences; BLOCKS: batch, 0; BEGIN: resync, 0; COMMIT: resync, sequence; MARK: its sequence, twice;
    COMPLETED: the last update before it, twice. ``timed``: the body has the times of a STREAM.
    """

    kind: JournalRecordKind
    length: int
    extent_count: int
    position: int
    incarnation: int
    first: int
    last: int
    digest: bytes
    digested: bytes
    timed: bool = False

    @property
    def end(self) -> int:
        """Position behind the record and its padding."""
        return self.position + record_bytes(self.length)


def record_bytes(body_length: int) -> int:
    """Room a record of that body takes, padding included."""
    return -(-(RECORD_HEADER_BYTES + body_length) // RECORD_ALIGN) * RECORD_ALIGN


def entry_bytes(entry: JournalEntry) -> int:
    """Room an entry's record takes."""
    match entry:
        case Stream() | Blocks():
            times = (
                times_bytes(entry.last - entry.first + 1)
                if isinstance(entry, Stream) and entry.times is not None
                else 0
            )
            return record_bytes(len(entry.extents) * EXTENT_BYTES + times + entry.payload_bytes)
        case NamedMark() | Completed():
            return record_bytes(len(entry.to_bytes()))
    return record_bytes(_EPOCH.size)


def needs_history(entry: JournalEntry) -> bool:
    """Whether programs before layout 2 of the journal would take its record for the journal's end."""
    return isinstance(entry, (NamedMark, Completed)) or (isinstance(entry, Stream) and entry.times is not None)


def encode_record(entry: JournalEntry, position: int, incarnation: int) -> list[Buffer]:
    """An entry as buffers to be written at ``position``, padding included; payload is not copied."""
    flags = 0
    match entry:
        case Stream():
            kind, first, last, count = JournalRecordKind.STREAM, entry.first, entry.last, len(entry.extents)
            body: list[Buffer] = [entry.extents.to_bytes(), *entry.payload]
            if entry.times is not None:
                flags = RECORD_WITH_TIMES
                body.insert(1, entry.times.to_bytes())
        case Blocks():
            kind, first, last, count = JournalRecordKind.BLOCKS, entry.batch, 0, len(entry.extents)
            body = [entry.extents.to_bytes(), *entry.payload]
        case Begin():
            kind, first, last, count = JournalRecordKind.BEGIN, entry.resync, 0, 0
            body = [_EPOCH.pack(entry.epoch)]
        case NamedMark():
            kind, first, last, count = JournalRecordKind.MARK, entry.sequence, entry.sequence, 0
            body = [entry.to_bytes()]
        case Completed():
            kind, first, last, count = JournalRecordKind.COMPLETED, entry.after, entry.after, 0
            body = [entry.to_bytes()]
        case (Commit() as commit, int() as epoch):
            kind, first, last, count = JournalRecordKind.COMMIT, commit.resync, commit.sequence, 0
            body = [_EPOCH.pack(epoch)]
    length = sum(map(len, body))
    header = _HEADER.pack(
        JOURNAL_MAGIC, JOURNAL_VERSION, kind, flags, length, count, position, incarnation, first, last
    )
    digest = xxhash.xxh3_128(header)
    for piece in body:
        digest.update(piece)
    padding = record_bytes(length) - RECORD_HEADER_BYTES - length
    buffers: list[Buffer] = [header + digest.digest(), *body]
    if padding:
        buffers.append(_ZEROS[:padding])
    return buffers


def encode_pad(position: int, total_bytes: int, incarnation: int) -> bytes:
    """Header of a PAD record that takes ``total_bytes`` up to the end of a segment."""
    length = total_bytes - RECORD_HEADER_BYTES
    header = _HEADER.pack(
        JOURNAL_MAGIC, JOURNAL_VERSION, JournalRecordKind.PAD, 0, length, 0, position, incarnation, 0, 0
    )
    return header + xxhash.xxh3_128(header).digest()


def decode_record_header(
    data: Buffer, position: int, room_bytes: int | None, incarnations: tuple[int, int]
) -> RecordHeader | None:
    """The header at ``position`` if a record of these incarnations (lowest, highest) can begin there, else None.

    ``room_bytes`` is the rest of the segment, None if that was checked before. ``record_is_whole`` checks the digest.
    """
    if len(data) < RECORD_HEADER_BYTES:
        return None
    data = bytes(data[:RECORD_HEADER_BYTES])
    magic, version, kind, flags, length, count, where, incarnation, first, last = _HEADER.unpack_from(data)
    if magic != JOURNAL_MAGIC or version != JOURNAL_VERSION or where != position:
        return None
    if flags and (flags != RECORD_WITH_TIMES or kind != JournalRecordKind.STREAM):
        return None
    if not incarnations[0] <= incarnation <= incarnations[1]:
        return None
    if room_bytes is not None and record_bytes(length) > room_bytes:
        return None
    if kind not in JournalRecordKind.__members__.values():
        return None
    kind = JournalRecordKind(kind)
    if kind is JournalRecordKind.PAD and room_bytes not in (None, record_bytes(length)):
        return None
    sequences = last - first + 1 if flags else None
    if kind is not JournalRecordKind.PAD and not _possible(kind, length, count, sequences):
        return None
    return RecordHeader(
        kind,
        length,
        count,
        where,
        incarnation,
        first,
        last,
        data[_DIGESTED_BYTES:],
        data[:_DIGESTED_BYTES],
        bool(flags),
    )


def _possible(kind: JournalRecordKind, length: int, count: int, timed_sequences: int | None) -> bool:
    match kind:
        case JournalRecordKind.BEGIN | JournalRecordKind.COMMIT:
            return length == _EPOCH.size and count == 0
        case JournalRecordKind.MARK:
            return MARK.size < length <= MAX_MARK_BYTES and count == 0
        case JournalRecordKind.COMPLETED:
            return COMPLETED.size < length <= MAX_COMPLETED_BYTES and count == 0
    payload = length - count * EXTENT_BYTES
    if timed_sequences is not None:
        if not 1 <= timed_sequences <= MAX_TIMES:
            return False
        payload -= times_bytes(timed_sequences)
    return count <= MAX_EXTENTS and 0 <= payload <= MAX_PAYLOAD_BYTES


def record_is_whole(header: RecordHeader, body: Buffer) -> bool:
    """Does the body have the digest of the header? A PAD's body was never written and does not count."""
    digest = xxhash.xxh3_128(header.digested)
    if header.kind is not JournalRecordKind.PAD:
        digest.update(body)
    return digest.digest() == header.digest


def record_extents(header: RecordHeader, body: memoryview) -> tuple[SectorTable, memoryview]:
    """Extents and payload of a STREAM or BLOCKS record, as views of its body. ValueError: they are of a device that this
    program does not know."""
    size = header.extent_count * EXTENT_BYTES
    table = SectorTable.from_bytes(body[:size])
    table.check_device()
    return table, body[size + _times_bytes(header) :]


def record_mark(header: RecordHeader, body: Buffer) -> NamedMark | None:
    """The mark of a MARK record; None of another one."""
    return NamedMark.from_bytes(body) if header.kind is JournalRecordKind.MARK else None


def _times_bytes(header: RecordHeader) -> int:
    return times_bytes(header.last - header.first + 1) if header.timed else 0


def record_epoch(header: RecordHeader, body: Buffer) -> int:
    """The epoch of a BEGIN or COMMIT record; 0 for the others."""
    if header.kind in (JournalRecordKind.BEGIN, JournalRecordKind.COMMIT):
        return int(_EPOCH.unpack_from(body)[0])
    return 0
