"""The dirty block map on disk: the blocks that must be copied again, kept across the end of the controller.

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

The digest covers the whole file but not its name. The identity recognizes a map of another volume, and the epoch one of an
earlier run. After a clean stop the state file holds the digest of the map that belongs to it. One case is not recognized:
an older map of a killed run that was put back by hand before the next run.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import UUID

import numpy as np
import xxhash

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, CHUNK_BYTES, DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.protocol.frame_checks import NewerVersion, check_version
from pydbt.core.units import Geometry
from pydbt.store.atomic import replace_file
from pydbt.store.versions import newer

MAP_FILE_NAME = "dirty.map"
_MAGIC = b"PDBTMAP\0"
_VERSION = 1
_HEADER = struct.Struct("<8sII16sQIIQQI28x")
_DIGEST_BYTES = 16
_CHUNKS_A_PART = 256


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


def save_map(path: str | os.PathLike[str], header: MapHeader, dirty: DirtyMap) -> None:
    """Replace the file by this map, durably. StateError when it cannot be written (disk full, read-only)."""
    if dirty.block_count != header.geometry.block_count:
        raise ValueError(f"a map of {dirty.block_count} blocks for a volume of {header.geometry.block_count}")
    replace_file(path, map_parts(header, dirty))


def load_map(path: str | os.PathLike[str]) -> tuple[MapHeader, DirtyMap] | None:
    """The map in a file; None when there is no file. StateError when it is torn or of another kind."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return decode_map(data)
    except NewerVersion as error:
        raise newer(path, error, "move it away; the whole volume is then compared again") from None
    except ValueError as error:
        raise StateError(
            f"{path} is not a whole dirty map ({error}): move it away; the whole volume is then compared again"
        ) from error


def map_digest(path: str | os.PathLike[str]) -> str | None:
    """The digest at the end of a map file, which identifies it; None when the file cannot be read."""
    try:
        return Path(path).read_bytes()[-_DIGEST_BYTES:].hex()
    except OSError:
        return None


def map_parts(header: MapHeader, dirty: DirtyMap) -> Iterator[bytes]:
    """The bytes of a map file in pieces of about a MiB: the map of a large volume is not copied as a whole."""
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
    """The map in a file's bytes. ValueError when they are damaged, newer, or of another kind."""
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
