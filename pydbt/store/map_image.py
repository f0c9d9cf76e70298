"""A dirty block map in one piece: a part of the file of an era, and the map files of earlier versions.

The map is many small maps (US 7,039,661 ¶57). A small map of only zeroes takes no room (¶98). All numbers are
little-endian.

======  =======  ==============================================================================
offset  bytes    content
======  =======  ==============================================================================
0       8        magic ``PDBTMAP`` and a zero byte
8       4        version, 1
12      4        bytes of this header, 96
16      16       volume identity
32      8        size of the volume in bytes
40      4        bytes per block
44      4        blocks per small map, 32768
48      8        epoch of the stream the map was kept for
56      8        sequence number that the map reaches
64      4        n, the number of small maps that follow
68      28       reserved, zero
96      4 n      index of each small map, ascending
...     0 or 4   zero, up to a multiple of 8
...     4096 n   the small maps, one bit per block, lowest bit first
end-16  16       xxh3_128 digest, big-endian, of everything before it
======  =======  ==============================================================================

The digest covers all of it. The identity recognizes a map of another volume, and the epoch one of an earlier run.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

import numpy as np
import xxhash

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, CHUNK_BYTES, DirtyMap
from pydbt.core.protocol.frame_checks import check_version
from pydbt.core.units import Geometry

_MAGIC = b"PDBTMAP\0"
_VERSION = 1
_HEADER = struct.Struct("<8sII16sQIIQQI28x")
_DIGEST_BYTES = 16
_CHUNKS_A_PART = 256


MAP_BYTES_MAX = 8 << 30
"""As much of a file with a map as is read: twice the whole map of 128 TiB in blocks of 4 KiB, to which a map file grows."""


@dataclass(frozen=True, slots=True)
class MapHeader:
    """The volume and the position that a map belongs to. The replica reported ``epoch`` and ``sequence`` (unsigned 64 bits)."""

    volume: UUID
    geometry: Geometry
    epoch: int = 0
    sequence: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.epoch < 1 << 64 and 0 <= self.sequence < 1 << 64):
            raise ValueError(f"epoch {self.epoch} and sequence {self.sequence} do not fit unsigned 64 bits")


def map_parts(header: MapHeader, dirty: DirtyMap) -> Iterator[bytes]:
    """The bytes of a map in pieces of about a MiB: the map of a large volume is not copied as a whole."""
    indexes = dirty.chunk_indices()
    geometry = header.geometry
    head = _HEADER.pack(
        _MAGIC,
        _VERSION,
        _HEADER.size,
        header.volume.bytes,
        geometry.size_bytes,
        geometry.block_bytes,
        CHUNK_BLOCKS,
        header.epoch,
        header.sequence,
        len(indexes),
    )
    table = np.array(indexes, dtype="<u4").tobytes()
    first = head + table + bytes(-len(table) % 8)
    digest = xxhash.xxh3_128(first)
    yield first
    chunks = dirty.chunks()
    while bits := b"".join(bits for _, bits in islice(chunks, _CHUNKS_A_PART)):
        digest.update(bits)
        yield bits
    yield digest.digest()


def decode_map(data: bytes) -> tuple[MapHeader, DirtyMap]:
    """The map in these bytes. ValueError when they are damaged, newer, or of another kind."""
    if len(data) < _HEADER.size + _DIGEST_BYTES:
        raise ValueError(f"it has only {len(data)} bytes")
    magic, version, header_bytes, volume, size, block, chunk_blocks, epoch, sequence, count = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("its first bytes are not those of a map")
    check_version(version, _VERSION)
    chunks_offset = _HEADER.size + count * 4 + (-count * 4) % 8
    whole = chunks_offset + count * CHUNK_BYTES + _DIGEST_BYTES
    if len(data) != whole:
        raise ValueError(f"it has {len(data)} bytes instead of {whole}")
    body = memoryview(data)[:-_DIGEST_BYTES]
    if xxhash.xxh3_128_digest(body) != data[-_DIGEST_BYTES:]:
        raise ValueError("its checksum is wrong")
    if header_bytes != _HEADER.size or chunk_blocks != CHUNK_BLOCKS:
        raise ValueError("its layout is not that of version 1")
    header = MapHeader(UUID(bytes=volume), Geometry(size, block), epoch, sequence)
    indexes = np.frombuffer(data, dtype="<u4", count=count, offset=_HEADER.size)
    if not (np.diff(indexes.astype(np.int64)) > 0).all():
        raise ValueError("its small maps are out of order")
    return header, DirtyMap.from_chunks(header.geometry.block_count, _chunks(body, indexes, chunks_offset))


def _chunks(body: memoryview, indexes: np.ndarray, offset: int) -> Iterator[tuple[int, bytes]]:
    for index in indexes.tolist():
        yield index, bytes(body[offset : offset + CHUNK_BYTES])
        offset += CHUNK_BYTES
