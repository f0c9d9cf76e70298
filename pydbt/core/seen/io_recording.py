"""The file of ``controller trace --record``: blocks of compressed records, which can be read up to where it was cut off.

docs/reference/format.md has the table. Everything in such a file may be damaged or hostile: reading ends with a sentence
(``BadRecording``) and never takes more memory than a block may have.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zstandard

from pydbt.core.seen.io_meaning import FileId
from pydbt.core.seen.io_names import OPERATIONS
from pydbt.core.seen.io_record import IO_RECORD

MAGIC = b"PYDBTIO\n"
RECORDING_VERSION = 1
_BLOCK = struct.Struct("<4sIII")  # kind, bytes of the content, bytes of the compressed content, its CRC-32
BLOCK_HEAD_BYTES = _BLOCK.size
BLOCK_RECORDS_MAX = 1 << 15
_CONTENT_BYTES_MAX = 1 << 22
_LEVEL = 3

BEGIN, RECORDS, FILES, END = b"BEGN", b"RECS", b"FILE", b"END "


class BadRecording(Exception):
    """The file is no recording, or is damaged from here on."""


@dataclass(frozen=True, slots=True)
class TraceBegin:
    """``clock_offset_ns``: what the records' times lack to Unix time."""

    device: str
    size_bytes: int
    clock_offset_ns: int
    filters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TraceEnd:
    """``lost``: I/Os that the tracer could not take. ``full``: the recording ended before the trace, at its bound."""

    lost: int
    full: bool


FileNames = dict[FileId, str]
Part = TraceBegin | TraceEnd | np.ndarray | FileNames
"""Of a recording, in its order: records are an array of dtype IO_RECORD."""


def encode_part(part: Part) -> bytes:
    """One block. The file begins with MAGIC, and a block of TraceBegin."""
    match part:
        case TraceBegin():
            values = {"version": RECORDING_VERSION, "device": part.device, "size_bytes": part.size_bytes}
            more = {"clock_offset_ns": part.clock_offset_ns, "filters": dict(part.filters)}
            return _block(BEGIN, json.dumps(values | more).encode())
        case TraceEnd():
            return _block(END, json.dumps({"lost": part.lost, "full": part.full}).encode())
        case np.ndarray():
            assert len(part) <= BLOCK_RECORDS_MAX
            # field by field: what is alike comes together, and is a third of the size then
            columns = (np.ascontiguousarray(part[name]).tobytes() for name in IO_RECORD.names or ())
            return _block(RECORDS, b"".join(columns))
        case _:
            rows = [[*file, name] for file, name in part.items()]
            return _block(FILES, json.dumps(rows).encode())


def parts_of(read: Callable[[int], bytes]) -> Iterator[Part]:
    """The parts of a recording; ``read`` gives the next bytes, fewer at the end. BadRecording: from there on nothing is known."""
    if read(len(MAGIC)) != MAGIC:
        raise BadRecording("it is no recording of 'controller trace --record'")
    first = True
    while head := read(BLOCK_HEAD_BYTES):
        part = _part(*_content(head, read))
        if first != isinstance(part, TraceBegin):
            raise BadRecording("it does not begin as a recording does")
        first = False
        yield part
        if isinstance(part, TraceEnd):
            return
    raise BadRecording("it was cut off: the end is missing")


def _block(kind: bytes, content: bytes) -> bytes:
    assert len(content) <= _CONTENT_BYTES_MAX
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(content)
    return _BLOCK.pack(kind, len(content), len(packed), zlib.crc32(packed)) + packed


def _content(head: bytes, read: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    if len(head) < BLOCK_HEAD_BYTES:
        raise BadRecording("it was cut off in the middle of a block")
    kind, content_bytes, packed_bytes, checksum = _BLOCK.unpack(head)
    if max(content_bytes, packed_bytes) > _CONTENT_BYTES_MAX:
        raise BadRecording("a block is larger than a block may be")
    packed = read(packed_bytes)
    if len(packed) < packed_bytes:
        raise BadRecording("it was cut off in the middle of a block")
    if zlib.crc32(packed) != checksum:
        raise BadRecording("a block is damaged: its checksum is wrong")
    try:
        if zstandard.get_frame_parameters(packed).content_size != content_bytes:
            raise BadRecording("a block is damaged: its size is wrong")
        return kind, zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError:
        raise BadRecording("a block is damaged: it cannot be unpacked") from None


def _part(kind: bytes, content: bytes) -> Part:
    try:
        if kind == RECORDS:
            return _records(content)
        values = json.loads(content)
        if kind == BEGIN:
            if values["version"] != RECORDING_VERSION:
                raise BadRecording(f"it has version {values['version']!r}, and this program knows {RECORDING_VERSION}")
            return TraceBegin(
                str(values["device"]),
                int(values["size_bytes"]),
                int(values["clock_offset_ns"]),
                dict(values["filters"]),
            )
        if kind == END:
            return TraceEnd(int(values["lost"]), bool(values["full"]))
        if kind == FILES:
            return {FileId(*map(int, row[:4])): str(row[4]) for row in values}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError):
        raise BadRecording("a block is damaged: its content is none of a recording") from None
    raise BadRecording("it has a block that this program does not know")


def _records(content: bytes) -> np.ndarray:
    count, rest = divmod(len(content), IO_RECORD.itemsize)
    if rest:
        raise ValueError("records have another size")
    records, at = np.zeros(count, IO_RECORD), 0
    for name in IO_RECORD.names or ():
        kind = IO_RECORD[name]
        records[name] = np.frombuffer(content, kind, count, at)
        at += kind.itemsize * count
    if count and int(records["operation"].max()) >= len(OPERATIONS):
        raise ValueError("an operation is unknown")
    return records
