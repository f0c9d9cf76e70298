"""The dirty block map on disk: the blocks that must be copied again, kept across the end of the controller.

The map is many small maps (US 7,039,661 ¶57). A small map of only zeroes takes no room (¶98, technique 5), and one that has not
changed is not written again (¶98, technique 1, and ¶89). The file is a journal: a header, a mark, and changes, the first of which
is the whole map. Each change begins at a multiple of 4096 bytes, so that its write touches no block of the disk that an earlier
one needs. All numbers are little-endian, all digests are xxh3_128, big-endian.

======  =======  ==============================================================================
offset  bytes    the header, padded with zeroes to 4096 bytes
======  =======  ==============================================================================
0       8        magic ``PDBTMAP`` and a zero byte
8       4        version, 2
12      4        bytes of this header, 72
16      16       volume identity
32      8        size of the volume in bytes
40      4        bytes per block
44      4        blocks per small map, 32768
48      8        epoch of the stream the map was kept for
56      16       digest of everything before it
======  =======  ==============================================================================

Then the mark, padded with zeroes to 4096 bytes: magic ``PDBTMRK`` and a zero byte, u64 number of a change, its digest, and the
digest of these 32 bytes. This change was durable before the mark was written. The mark itself is not synced: it is never too
high, and after a power loss perhaps too low.

Then one change behind the other:

======  =======  ==============================================================================
offset  bytes    a change
======  =======  ==============================================================================
0       8        magic ``PDBTCHG`` and a zero byte
8       8        its number, from 0
16      8        sequence number that the map reaches
24      4        n, the number of small maps that it names
28      4        reserved, zero
32      16       digest of the change before it; of the first one, that of the header
48      16       digest of the 48 bytes before it, and of the n rows behind it
64      24 n     rows: u32 index of a small map, u32 kind (1: its bits follow; 0: it is all zeroes now), digest of its bits (or 0)
...              zeroes, up to a multiple of 4096
...     4096 k   the k small maps of kind 1, one bit per block, lowest bit first
======  =======  ==============================================================================

The write of a change that is not whole was cut off: it does not count, and nothing behind it does. But the change that the mark
names must be whole, else the file is damaged. So after a crash at any byte the file is the map before a write, or that after it.

The digest of the last change identifies the map: it covers all changes before it. After a clean stop the state file holds it.
The identity of the volume recognizes a map of another volume, and the epoch one of an earlier run. One case is not recognized: an
older map of a killed run that was put back by hand before the next run. Version 1, a map in one piece (``map_image``), is read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
import xxhash

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, CHUNK_BYTES, DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.protocol.frame_checks import NewerVersion, check_version
from pydbt.core.units import Buffer, Geometry
from pydbt.posix.atomic import replace_file
from pydbt.posix.ownership import read_own
from pydbt.store.map_image import MAP_BYTES_MAX, MapHeader, decode_map
from pydbt.store.versions import newer

DISK_BLOCK_BYTES = 4096
"""The largest block that a disk writes as a whole, or not at all."""
MARK_OFFSET = DISK_BLOCK_BYTES
CHANGES_OFFSET = 2 * DISK_BLOCK_BYTES
_MAGIC, _MARK_MAGIC, _CHANGE_MAGIC = b"PDBTMAP\0", b"PDBTMRK\0", b"PDBTCHG\0"
_VERSION = 2
_HEADER = struct.Struct("<8sII16sQIIQ16s")
_MARK = struct.Struct("<8sQ16s16s")
_CHANGE = struct.Struct("<8sQQII16s16s")
_ROW = np.dtype([("index", "<u4"), ("kind", "<u4"), ("digest", "u1", (16,))])
_DIGEST_BYTES = 16
_CHUNKS_A_PART = 256


@dataclass(frozen=True, slots=True)
class Change:
    """Small maps that replace the earlier ones. ``head`` ends where the first of ``bits`` begins."""

    number: int
    digest: bytes
    head: bytes
    bits: list[memoryview]

    @property
    def length_bytes(self) -> int:
        return len(self.head) + len(self.bits) * CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class StoredMap:
    """The content of a map file. ``digest`` identifies it."""

    header: MapHeader
    dirty: DirtyMap
    digest: bytes


def save_map(path: str | os.PathLike[str], header: MapHeader, dirty: DirtyMap) -> Change:
    """Replace the file by this map, durably; its first change. StateError when it cannot be written (disk full, read-only)."""
    if dirty.block_count != header.geometry.block_count:
        raise ValueError(f"a map of {dirty.block_count} blocks for a volume of {header.geometry.block_count}")
    head = _header_bytes(header)
    first = change_of(0, head[-_DIGEST_BYTES:], header.sequence, dirty, dirty.chunk_indices())
    replace_file(path, _whole(head, first))
    return first


def load_map(path: str | os.PathLike[str]) -> tuple[MapHeader, DirtyMap] | None:
    """The map in a file; None when there is no file. StateError when it is damaged or of another kind."""
    try:
        data = read_own(path, MAP_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from error
    try:
        found = decode(data)
    except NewerVersion as error:
        raise newer(path, error, "move it away; the whole volume is then compared again") from None
    except ValueError as error:
        raise StateError(
            f"{path} is not a whole dirty map ({error}): move it away; the whole volume is then compared again"
        ) from error
    return found.header, found.dirty


def map_digest(path: str | os.PathLike[str]) -> str | None:
    """The digest that identifies the map in a file; None when there is none that can be read."""
    try:
        return decode(read_own(path, MAP_BYTES_MAX)).digest.hex()
    except (OSError, ValueError):
        return None


def change_of(number: int, before: bytes, sequence: int, dirty: DirtyMap, indexes: list[int]) -> Change:
    """A change that makes these small maps those of ``dirty``, which nobody may change before it is written."""
    rows = np.zeros(len(indexes), _ROW)
    rows["index"] = indexes
    bits = []
    for place, index in enumerate(indexes):
        chunk = dirty.chunk_bits(index)
        if chunk is not None:
            bits.append(chunk)
            rows["kind"][place] = 1
            rows["digest"][place] = np.frombuffer(xxhash.xxh3_128_digest(chunk), np.uint8)
    start = _CHANGE.pack(_CHANGE_MAGIC, number, sequence, len(rows), 0, before, bytes(_DIGEST_BYTES))[:-_DIGEST_BYTES]
    table = rows.tobytes()
    digest = xxhash.xxh3_128_digest(start + table)
    return Change(number, digest, _padded(start + digest + table), bits)


def mark_of(change: Change) -> bytes:
    """To be written at MARK_OFFSET once the change is durable."""
    content = _MARK.pack(_MARK_MAGIC, change.number, change.digest, bytes(_DIGEST_BYTES))[:-_DIGEST_BYTES]
    return content + xxhash.xxh3_128_digest(content)


def decode(data: bytes) -> StoredMap:
    """The map in the bytes of a file of any version. ValueError when they are damaged, newer, or of another kind."""
    version = int.from_bytes(data[8:12], "little")
    if data[: len(_MAGIC)] == _MAGIC and version == 1:
        return StoredMap(*decode_map(data), data[-_DIGEST_BYTES:])
    header, before = _decode_header(data)
    small_maps: dict[int, bytes] = {}
    count, offset = 0, CHANGES_OFFSET
    while (change := _decode_change(data, offset, count, before)) is not None:
        sequence, before, rows, bits_offset = change
        header = replace(header, sequence=sequence)
        offset = _take(small_maps, data, rows, bits_offset)
        count += 1
    if not count:
        raise ValueError("its first change is not whole")
    if (marked := _decode_mark(data)) is not None and marked >= count:
        raise ValueError(f"change {count} of it is damaged")
    return StoredMap(header, DirtyMap.from_chunks(header.geometry.block_count, small_maps.items()), before)


def _header_bytes(header: MapHeader) -> bytes:
    geometry = header.geometry
    content = _HEADER.pack(
        _MAGIC, _VERSION, _HEADER.size, header.volume.bytes, geometry.size_bytes, geometry.block_bytes, CHUNK_BLOCKS,
        header.epoch, bytes(_DIGEST_BYTES),
    )[:-_DIGEST_BYTES]  # fmt: skip
    return content + xxhash.xxh3_128_digest(content)


def _whole(head: bytes, first: Change) -> Iterator[Buffer]:
    """The bytes of a new file in pieces of about a MiB."""
    yield _padded(head) + _padded(mark_of(first)) + first.head
    for place in range(0, len(first.bits), _CHUNKS_A_PART):
        yield b"".join(first.bits[place : place + _CHUNKS_A_PART])


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % DISK_BLOCK_BYTES)


def _decode_header(data: bytes) -> tuple[MapHeader, bytes]:
    if len(data) < _HEADER.size:
        raise ValueError(f"it has only {len(data)} bytes")
    magic, version, header_bytes, volume, size, block, chunk_blocks, epoch, digest = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("its first bytes are not those of a map")
    check_version(version, _VERSION)
    if xxhash.xxh3_128_digest(data[: _HEADER.size - _DIGEST_BYTES]) != digest or any(
        data[_HEADER.size : DISK_BLOCK_BYTES]
    ):
        raise ValueError("the checksum of its header is wrong")
    if header_bytes != _HEADER.size or chunk_blocks != CHUNK_BLOCKS:
        raise ValueError("its layout is not that of version 2")
    return MapHeader(UUID(bytes=volume), Geometry(size, block), epoch), digest


def _decode_mark(data: bytes) -> int | None:
    """The number of the change that was durable; None when that is not known."""
    magic, number, _, digest = _MARK.unpack_from(data, MARK_OFFSET)
    content = data[MARK_OFFSET : MARK_OFFSET + _MARK.size - _DIGEST_BYTES]
    return int(number) if magic == _MARK_MAGIC and xxhash.xxh3_128_digest(content) == digest else None


def _decode_change(data: bytes, offset: int, number: int, before: bytes) -> tuple[int, bytes, np.ndarray, int] | None:
    """Sequence, digest, rows and place of the bits of a change; None when there is none that is whole."""
    if len(data) < offset + _CHANGE.size:
        return None
    magic, found, sequence, count, reserved, chain, digest = _CHANGE.unpack_from(data, offset)
    end = offset + _CHANGE.size + count * _ROW.itemsize
    if (magic, found, reserved, chain) != (_CHANGE_MAGIC, number, 0, before) or len(data) < end:
        return None
    table = data[offset + _CHANGE.size : end]
    if xxhash.xxh3_128_digest(data[offset : offset + _CHANGE.size - _DIGEST_BYTES] + table) != digest:
        return None
    rows = np.frombuffer(table, _ROW)
    bits_offset = end + -end % DISK_BLOCK_BYTES
    if len(data) < bits_offset + int(rows["kind"].sum()) * CHUNK_BYTES or any(data[end:bits_offset]):
        return None
    place = bits_offset
    for row in rows[rows["kind"] == 1]:
        if xxhash.xxh3_128_digest(data[place : place + CHUNK_BYTES]) != row["digest"].tobytes():
            return None
        place += CHUNK_BYTES
    return sequence, digest, rows, bits_offset


def _take(small_maps: dict[int, bytes], data: bytes, rows: np.ndarray, offset: int) -> int:
    """Have the rows of a change in the map; where the next change begins."""
    for index, kind in zip(rows["index"].tolist(), rows["kind"].tolist(), strict=True):
        if kind:
            small_maps[index] = data[offset : offset + CHUNK_BYTES]
            offset += CHUNK_BYTES
        else:
            small_maps.pop(index, None)
    return offset
