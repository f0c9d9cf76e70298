"""Frames to bytes and back. docs/reference/format.md has the offset tables, and a test holds them against the layouts here.

Any input is a frame or one WireError, and nothing is allocated before a header of the right magic, version,
checksum and length has asked for it. No I/O here: ``encode`` gives buffers for sendmsg without copying payload,
``decode_frame_header`` and ``decode_body`` serve a receiver that reads into its own memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import xxhash
import zstandard

from pydbt.core.blocks.sector_table import EXTENT_BYTES, SectorTable
from pydbt.core.errors import WireError
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.completed import COMPLETED, MAX_COMPLETED_BYTES, Completed
from pydbt.core.protocol.digests import DIGEST_BYTES
from pydbt.core.protocol.frames import Frame, FrameKind
from pydbt.core.protocol.layout import Layout
from pydbt.core.protocol.mark import MARK, MAX_MARK_BYTES, NamedMark
from pydbt.core.protocol.recent import Recall, Recent
from pydbt.core.protocol.role import Role
from pydbt.core.protocol.standing import Standing
from pydbt.core.protocol.stream_times import MAX_TIMES, StreamTimes, times_bytes
from pydbt.core.protocol.transaction import Transaction
from pydbt.core.protocol.unit_rows import MAX_DIGESTS, UNIT_ROW_BYTES, check_units, decode_units, encode_units
from pydbt.core.protocol.wire_json import decode_json, json_body
from pydbt.core.units import KIB, MIB, Buffer

FRAME_MAGIC = b"PDBT"
FRAME_VERSION = 1
FRAME_HEADER_BYTES = 48
MAX_BODY_BYTES = 9 * MIB
MAX_JSON_BYTES = 64 * KIB
FLAG_ZSTD = 1
FLAG_TIMES = 2

_HEADER = Layout(
    magic="4s", version="B", kind="B", flags="H", body_length="I", header_crc32="I", number="Q", reserved="Q"
)  # fmt: skip
_CHECKED_BYTES = 12
_DIGESTED_BYTES = _HEADER.size
_BLOCKS = Layout(batch="Q", extent_count="I", payload_bytes="I")
_DIGESTS = Layout(batch="Q", extent_count="I", unit_bytes="I")
_WANT = Layout(batch="Q", extent_count="I", reserved="I")
_UNWRITABLE = Layout(extent_count="I", unit_bytes="I")
_RECENT = Layout(extent_count="I", unit_bytes="I")
_STREAM = Layout(first="Q", last="Q", extent_count="I", payload_bytes="I")
_BEGIN = Layout(resync="Q", epoch="Q", total_bytes="Q", flags="I", reserved="I")
_COMMIT = Layout(resync="Q", sequence="Q")
_PING = Layout(token="Q", sequence="Q")
_PING_DATE = Layout(answered="Q", since_ms="Q")  # behind a PING, for a secondary that understands it
_PONG = Layout(token="Q")
_RECALL = Layout(limit_bytes="Q")
_ACK = Layout(
    sequence="Q", batch="Q", resync_committed="Q", applied_sequence="Q", staged_bytes="Q", replica_state="B", reserved="7x"
)  # fmt: skip
_PROGRESS = Layout(progress="Q")  # behind an ACK, for a primary that asks

_BODY_LIMITS: dict[FrameKind, tuple[int, int]] = {
    FrameKind.HELLO: (2, MAX_JSON_BYTES),
    FrameKind.WELCOME: (2, MAX_JSON_BYTES),
    FrameKind.REFUSE: (2, MAX_JSON_BYTES),
    FrameKind.BYE: (2, MAX_JSON_BYTES),
    FrameKind.GENERATION: (2, MAX_JSON_BYTES),
    FrameKind.STANDING: (2, MAX_JSON_BYTES),
    FrameKind.HANDOVER: (2, MAX_JSON_BYTES),
    FrameKind.TRANSACTION: (2, MAX_JSON_BYTES),
    FrameKind.TAKEOVER: (2, MAX_JSON_BYTES),
    FrameKind.ROLE: (2, MAX_JSON_BYTES),
    FrameKind.BEGIN: (_BEGIN.size, _BEGIN.size),
    FrameKind.COMMIT: (_COMMIT.size, _COMMIT.size),
    FrameKind.PING: (_PING.size, _PING.size + _PING_DATE.size),
    FrameKind.PONG: (_PONG.size, _PONG.size),
    FrameKind.RECALL: (_RECALL.size, _RECALL.size),
    FrameKind.ACK: (_ACK.size, _ACK.size + _PROGRESS.size),
    FrameKind.BLOCKS: (_BLOCKS.size, MAX_BODY_BYTES),
    FrameKind.STREAM: (_STREAM.size, MAX_BODY_BYTES),
    FrameKind.COMPLETED: (COMPLETED.size, MAX_COMPLETED_BYTES),
    FrameKind.MARK: (MARK.size, MAX_MARK_BYTES),
    FrameKind.DIGESTS: (_DIGESTS.size, _DIGESTS.size + MAX_DIGESTS * (UNIT_ROW_BYTES + DIGEST_BYTES)),
    FrameKind.WANT: (_WANT.size, _WANT.size + MAX_DIGESTS * UNIT_ROW_BYTES),
    FrameKind.UNWRITABLE: (_UNWRITABLE.size, _UNWRITABLE.size + MAX_DIGESTS * UNIT_ROW_BYTES),
    FrameKind.RECENT: (_RECENT.size, _RECENT.size + MAX_DIGESTS * UNIT_ROW_BYTES),
}
_FLAGS = {FrameKind.BLOCKS: FLAG_ZSTD, FrameKind.STREAM: FLAG_ZSTD | FLAG_TIMES, FrameKind.DIGESTS: FLAG_ZSTD}
_DIGESTS_LEVEL = 1
BULK_KINDS = frozenset({FrameKind.BLOCKS, FrameKind.STREAM, FrameKind.DIGESTS, FrameKind.WANT})


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The 48 bytes before a body, checked. ``digested`` are its first 32, which the digest covers too."""

    kind: FrameKind
    flags: int
    body_length: int
    number: int
    digest: bytes
    digested: bytes


def encode(frame: Frame, number: int, *, compress_level: int | None = None) -> list[Buffer]:
    """A frame as buffers to be sent one after the other; payload buffers are the frame's own.

    ``number`` counts the frames of this direction from 0. ``compress_level`` asks for zstd on payload, which is
    used where it saves anything.
    """
    kind, flags, body = _body(frame, compress_level)
    length = sum(map(len, body))
    start = _HEADER.pack(FRAME_MAGIC, FRAME_VERSION, kind, flags, length, 0, number, 0)
    start = start[:_CHECKED_BYTES] + zlib.crc32(start[:_CHECKED_BYTES]).to_bytes(4, "little") + start[16:]
    digest = xxhash.xxh3_128(start)
    for piece in body:
        digest.update(piece)
    return [start + digest.digest(), *body]


def decode_frame_header(data: Buffer) -> FrameHeader:
    """Check and read the 48 bytes of a header. Raises WireError; allocates nothing that ``data`` asks for."""
    if len(data) != FRAME_HEADER_BYTES:
        raise WireError(f"a frame header has {FRAME_HEADER_BYTES} bytes, not {len(data)}")
    data = bytes(data)
    magic, version, kind_number, flags, length, checksum, number, reserved = _HEADER.unpack_from(data)
    if magic != FRAME_MAGIC:
        raise WireError(f"the peer does not speak this protocol: its frame begins with {magic!r}")
    if checksum != zlib.crc32(data[:_CHECKED_BYTES]):
        raise WireError("a frame header was damaged on the way: its checksum is wrong")
    if version != FRAME_VERSION:
        raise WireError(f"the peer speaks version {version} of the protocol, this program version {FRAME_VERSION}")
    try:
        kind = FrameKind(kind_number)
    except ValueError:
        raise WireError(f"a frame of unknown kind {kind_number}") from None
    low, high = _BODY_LIMITS[kind]
    if not low <= length <= high:
        raise WireError(f"a {kind.name} frame of {length} bytes, outside of {low} to {high}")
    if flags & ~_FLAGS.get(kind, 0):
        raise WireError(f"unknown flags {flags:#x} on a {kind.name} frame")
    if reserved:
        raise WireError("a reserved field of a frame header is not zero")
    return FrameHeader(kind, flags, length, number, data[_DIGESTED_BYTES:], data[:_DIGESTED_BYTES])


def decode_body(header: FrameHeader, body: Buffer) -> Frame:
    """The frame of a header and its body. Bulk payload stays a view of ``body``. Raises WireError."""
    if len(body) != header.body_length:
        raise WireError(f"a body of {len(body)} bytes after a header that announces {header.body_length}")
    digest = xxhash.xxh3_128(header.digested)
    digest.update(body)
    if digest.digest() != header.digest:
        raise WireError(f"a {header.kind.name} frame was damaged on the way: its digest is wrong")
    try:
        return _DECODERS[header.kind](header, memoryview(body).cast("B"))
    except (ValueError, KeyError, TypeError, struct.error, zstandard.ZstdError, RecursionError) as error:
        raise WireError(f"an illegal {header.kind.name} frame: {error}") from None


def check_number(header: FrameHeader, expected: int) -> None:
    """Frames of a direction are numbered without a gap; a lost or repeated one is a WireError."""
    if header.number != expected:
        raise WireError(f"frame {header.number} arrived where frame {expected} was due")


def _body(frame: Frame, compress_level: int | None) -> tuple[FrameKind, int, list[Buffer]]:
    match frame:
        case f.Stream():
            table = _STREAM.pack(frame.first, frame.last, len(frame.extents), frame.payload_bytes)
            flags, pieces = _pack_payload(frame.payload, compress_level)
            times = b"" if frame.times is None else frame.times.to_bytes()
            flags |= FLAG_TIMES if times else 0
            return FrameKind.STREAM, flags, [table + frame.extents.to_bytes() + times, *pieces]
        case f.Blocks():
            table = _BLOCKS.pack(frame.batch, len(frame.extents), frame.payload_bytes)
            flags, pieces = _pack_payload(frame.payload, compress_level)
            return FrameKind.BLOCKS, flags, [table + frame.extents.to_bytes(), *pieces]
        case f.Digests():
            table = _DIGESTS.pack(frame.batch, len(frame.units.firsts), frame.unit_bytes)
            # Whatever was asked for: trimmed space is nothing but zeros, and its digests would outweigh the data.
            flags, pieces = _pack_payload((frame.digests,), _DIGESTS_LEVEL)
            return FrameKind.DIGESTS, flags, [table + encode_units(frame.units), *pieces]
        case f.Want():
            return (
                FrameKind.WANT,
                0,
                [_WANT.pack(frame.batch, len(frame.units.firsts), 0) + encode_units(frame.units)],
            )
        case f.Unwritable():
            table = _UNWRITABLE.pack(len(frame.units.firsts), frame.unit_bytes)
            return FrameKind.UNWRITABLE, 0, [table + encode_units(frame.units)]
        case Recent():
            table = _RECENT.pack(len(frame.units.firsts), frame.unit_bytes)
            return FrameKind.RECENT, 0, [table + encode_units(frame.units)]
        case f.Ack():
            numbers = (frame.sequence, frame.batch, frame.resync_committed, frame.applied_sequence)
            told = _PROGRESS.pack(frame.progress) if frame.progress else b""
            return FrameKind.ACK, 0, [_ACK.pack(*numbers, frame.staged_bytes, frame.replica_state) + told]
        case f.Begin():
            return FrameKind.BEGIN, 0, [_BEGIN.pack(frame.resync, frame.epoch, frame.total_bytes, frame.flags, 0)]
        case f.Commit():
            return FrameKind.COMMIT, 0, [_COMMIT.pack(frame.resync, frame.sequence)]
        case f.Ping():
            date = b"" if frame.answered is None else _PING_DATE.pack(frame.answered, frame.since_ms)
            return FrameKind.PING, 0, [_PING.pack(frame.token, frame.sequence) + date]
        case f.Pong():
            return FrameKind.PONG, 0, [_PONG.pack(frame.token)]
        case Recall():
            return FrameKind.RECALL, 0, [_RECALL.pack(frame.limit_bytes)]
        case Completed():
            return FrameKind.COMPLETED, 0, [frame.to_bytes()]
        case NamedMark():
            return FrameKind.MARK, 0, [frame.to_bytes()]
        case (
            f.Hello() | f.Welcome() | f.Refuse() | f.Bye() | f.Generation() | Standing() | f.Handover()
            | f.Takeover() | Role() | Transaction()
        ):  # fmt: skip
            return FrameKind[type(frame).__name__.upper()], 0, [json_body(frame)]


def _pack_payload(payload: tuple[Buffer, ...], compress_level: int | None) -> tuple[int, list[Buffer]]:
    if compress_level is None or not payload:
        return 0, list(payload)
    whole = payload[0] if len(payload) == 1 else b"".join(payload)
    packed = zstandard.ZstdCompressor(level=compress_level).compress(whole)
    return (FLAG_ZSTD, [packed]) if len(packed) < len(whole) else (0, list(payload))


def _unpack_payload(header: FrameHeader, packed: memoryview, expected: int) -> tuple[Buffer, ...]:
    """``expected`` comes from the extent table and is bounded by it, before anything is decompressed."""
    if expected > f.MAX_PAYLOAD_BYTES:
        raise ValueError(f"{expected} bytes of payload in a frame that takes {f.MAX_PAYLOAD_BYTES}")
    if header.flags & FLAG_ZSTD:
        if zstandard.get_frame_parameters(packed).content_size != expected:
            raise ValueError(f"compressed payload does not announce the {expected} bytes of its extents")
        whole = zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
        if len(whole) != expected:
            raise ValueError(f"compressed payload of {len(whole)} bytes where the extents announce {expected}")
        return (whole,) if expected else ()
    if len(packed) != expected:
        raise ValueError(f"{len(packed)} bytes of payload where the extents announce {expected}")
    return (packed,) if expected else ()


def _rows(body: memoryview, offset: int, count: int, limit: int) -> tuple[memoryview, memoryview]:
    """The rows of a table, and what follows."""
    end = offset + count * EXTENT_BYTES
    if count > limit or end > len(body):
        raise ValueError(f"{count} extents do not fit")
    return body[offset:end], body[end:]


def _decode_stream(header: FrameHeader, body: memoryview) -> Frame:
    first, last, count, size = _STREAM.unpack_from(body)
    rows, rest = _rows(body, _STREAM.size, count, f.MAX_EXTENTS)
    extents, times = SectorTable.from_bytes(rows), None
    if header.flags & FLAG_TIMES:
        length = times_bytes(last - first + 1)
        if not 0 <= last - first < MAX_TIMES or length > len(rest):
            raise ValueError(f"the times of updates {first} to {last} do not fit")
        times, rest = StreamTimes.from_bytes(rest[:length]), rest[length:]
    return f.Stream(first, last, extents, _payload(header, extents, rest, size), times)


def _decode_blocks(header: FrameHeader, body: memoryview) -> Frame:
    batch, count, size = _BLOCKS.unpack_from(body)
    rows, rest = _rows(body, _BLOCKS.size, count, f.MAX_EXTENTS)
    extents = SectorTable.from_bytes(rows)
    return f.Blocks(batch, extents, _payload(header, extents, rest, size))


def _payload(header: FrameHeader, extents: SectorTable, rest: memoryview, size: int) -> tuple[Buffer, ...]:
    extents.check()
    expected = extents.payload_bytes
    if size != expected:
        raise ValueError(f"a payload size of {size} where the extents announce {expected}")
    return _unpack_payload(header, rest, expected)


def _decode_digests(header: FrameHeader, body: memoryview) -> Frame:
    batch, count, unit_bytes = _DIGESTS.unpack_from(body)
    rows, rest = _rows(body, _DIGESTS.size, count, MAX_DIGESTS)
    units = decode_units(rows)
    digests: Buffer = rest
    if header.flags & FLAG_ZSTD:
        check_units(units)  # it bounds what is decompressed
        (digests,) = _unpack_payload(header, rest, units.total() * DIGEST_BYTES)
    return f.Digests(batch, units, digests, unit_bytes)


def _decode_want(header: FrameHeader, body: memoryview) -> Frame:
    batch, count, reserved = _WANT.unpack_from(body)
    rows, rest = _rows(body, _WANT.size, count, MAX_DIGESTS)
    _zero(reserved + len(rest))
    return f.Want(batch, decode_units(rows))


def _decode_unwritable(header: FrameHeader, body: memoryview) -> Frame:
    count, unit_bytes = _UNWRITABLE.unpack_from(body)
    rows, rest = _rows(body, _UNWRITABLE.size, count, MAX_DIGESTS)
    _zero(len(rest))
    return f.Unwritable(decode_units(rows), unit_bytes)


def _decode_recent(header: FrameHeader, body: memoryview) -> Frame:
    count, unit_bytes = _RECENT.unpack_from(body)
    rows, rest = _rows(body, _RECENT.size, count, MAX_DIGESTS)
    _zero(len(rest))
    return Recent(decode_units(rows), unit_bytes)


def _decode_begin(header: FrameHeader, body: memoryview) -> Frame:
    resync, epoch, total, flags, reserved = _BEGIN.unpack(body)
    _zero(reserved)
    return f.Begin(resync, epoch, total, flags)


def _decode_ping(header: FrameHeader, body: memoryview) -> Frame:
    date = _PING_DATE.unpack(body[_PING.size :]) if len(body) > _PING.size else ()
    return f.Ping(*_PING.unpack_from(body), *date)


def _decode_ack(header: FrameHeader, body: memoryview) -> Frame:
    _zero(any(body[41 : _ACK.size]))
    (progress,) = _PROGRESS.unpack(body[_ACK.size :]) if len(body) > _ACK.size else (0,)
    sequence, batch, committed, applied, staged_bytes, state = _ACK.unpack_from(body)
    return f.Ack(sequence, batch, committed, applied, staged_bytes, state, progress)


def _zero(value: int) -> None:
    if value:
        raise ValueError("a reserved field is not zero")


_DECODERS: dict[FrameKind, Callable[[FrameHeader, memoryview], Frame]] = {
    FrameKind.STREAM: _decode_stream,
    FrameKind.BLOCKS: _decode_blocks,
    FrameKind.DIGESTS: _decode_digests,
    FrameKind.WANT: _decode_want,
    FrameKind.UNWRITABLE: _decode_unwritable,
    FrameKind.RECENT: _decode_recent,
    FrameKind.ACK: _decode_ack,
    FrameKind.BEGIN: _decode_begin,
    FrameKind.COMMIT: lambda header, body: f.Commit(*_COMMIT.unpack(body)),
    FrameKind.PING: _decode_ping,
    FrameKind.PONG: lambda header, body: f.Pong(*_PONG.unpack(body)),
    FrameKind.RECALL: lambda header, body: Recall(*_RECALL.unpack(body)),
    FrameKind.HELLO: lambda header, body: decode_json(f.Hello, body),
    FrameKind.WELCOME: lambda header, body: decode_json(f.Welcome, body),
    FrameKind.REFUSE: lambda header, body: decode_json(f.Refuse, body),
    FrameKind.BYE: lambda header, body: decode_json(f.Bye, body),
    FrameKind.GENERATION: lambda header, body: decode_json(f.Generation, body),
    FrameKind.STANDING: lambda header, body: decode_json(Standing, body),
    FrameKind.HANDOVER: lambda header, body: decode_json(f.Handover, body),
    FrameKind.TAKEOVER: lambda header, body: decode_json(f.Takeover, body),
    FrameKind.ROLE: lambda header, body: decode_json(Role, body),
    FrameKind.TRANSACTION: lambda header, body: decode_json(Transaction, body),
    FrameKind.COMPLETED: lambda header, body: Completed.from_bytes(body),
    FrameKind.MARK: lambda header, body: NamedMark.from_bytes(body),
}
