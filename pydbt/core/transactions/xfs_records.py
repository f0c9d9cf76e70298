"""Records of an XFS log, put together from sectors: headers, cycle numbers in the data, checksum.

A record is one header of a sector, more headers when the log's buffers are above 32 KiB, and its data. The first four bytes of
each sector of data are kept in the headers; in their place is the number of the log's cycle. Records may be submitted out of
order, and one of them may go on at the log's beginning. Integers of headers are big-endian.

Sources: fs/xfs/libxfs/xfs_log_format.h, fs/xfs/xfs_log_recover.c and xfs_log.c (xlog_cksum, xlog_split_iclog).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import crc32c as library
import numpy as np
from numpy.typing import NDArray

from pydbt.core.transactions.crc import crc32c
from pydbt.core.units import KIB, MIB, SECTOR_BYTES, Buffer

RECORD_MAGIC = 0xFEEDBABE
_HEADER = struct.Struct(">IIIIQQ4sII")
_ALL = struct.Struct(">IIIIQQ4sII256xI16sI")
CYCLES_OFFSET = 44
FORMAT_OFFSET, UUID_OFFSET, SIZE_OFFSET = 300, 304, 320
SUM_OFFSET = 32
HEADER_SUMMED_BYTES, _HEADER_SUMMED_BYTES_I386 = 328, 324
MORE_CYCLES_OFFSET, MORE_SUMMED_BYTES = 4, 260
CYCLES_PER_HEADER = 64
HEADER_COVERS_BYTES = 32 * KIB
MAX_XFS_RECORD_BYTES = 256 * KIB
_OLD_RECORD_BYTES = 32 * KIB
LITTLE_ENDIAN = 1  # XLOG_FMT_LINUX_LE
_FORMATS = {LITTLE_ENDIAN: "<", 2: ">"}
_NO_SUM = bytes(4)
_SECTOR_WORDS, _CYCLES_WORD = SECTOR_BYTES // 4, CYCLES_OFFSET // 4
_MAX_KEPT_BYTES = 5 * MIB // 2  # the kernel has 8 buffers of 256 KiB at most; each has its headers
_MAX_KEPT = 16
_ALL_ONES = 0xFFFFFFFF


@dataclass(slots=True)
class XfsRecord:
    """A record of which all sectors have come. ``problem`` tells why it does not count, as the end of a sentence.

    ``lsn`` is its log sequence number: the cycle, and in the lower 32 bits the sector of the log. ``operations`` is how many
    operations its ``data`` has; ``order`` the byte order of what the file system logged, for ``struct``.
    """

    lsn: int
    tail_lsn: int
    sector_count: int
    operations: int
    order: str
    data: bytes | bytearray
    problem: str = ""


@dataclass(slots=True)
class _Partial:
    first_sector: int
    sector_count: int
    header_count: int
    content: bytearray = field(repr=False)
    missing: int
    seen: bytearray = field(repr=False)


class XfsRecords:
    """Feed it writes; it gives each record as soon as all its sectors have come. The latest 2.5 MiB are kept."""

    def __init__(self, log_bytes: int, uuid: bytes) -> None:
        self._sectors = log_bytes // SECTOR_BYTES
        self._uuid = uuid
        self._partial: list[_Partial] = []

    def written(self, offset_bytes: int, data: Buffer) -> Iterator[XfsRecord]:
        """The records that this write completes. Bytes outside of the log, and sectors that are not whole, are left out."""
        view = memoryview(data).cast("B")
        skip = max(0, -offset_bytes)
        skip += -(offset_bytes + skip) % SECTOR_BYTES
        sector = (offset_bytes + skip) // SECTOR_BYTES
        count = min((len(view) - skip) // SECTOR_BYTES, self._sectors - sector)
        if count <= 0:
            return
        content = view[skip : skip + count * SECTOR_BYTES]
        headers = np.flatnonzero(np.frombuffer(content, ">u4")[:: SECTOR_BYTES // 4] == RECORD_MAGIC).tolist()
        position = 0
        for header in [*headers, count]:
            yield from self._fill(sector + position, content[position * SECTOR_BYTES : header * SECTOR_BYTES])
            position = header
            if header < count:
                self._begin(sector + header, content[header * SECTOR_BYTES : (header + 1) * SECTOR_BYTES])

    def at_once(self, offset_bytes: int, data: Buffer) -> XfsRecord | None:
        """The record that this write is, if it is a whole one with one header in which everything is right, and nothing else.
        None for what has to be ``written``."""
        size, (sector, within) = len(data), divmod(offset_bytes, SECTOR_BYTES)
        if within or size % SECTOR_BYTES or size <= SECTOR_BYTES:
            return None
        view = memoryview(data).cast("B")
        magic, cycle, version, length, lsn, tail, wanted, _, operations, kind, uuid, buffer_bytes = _ALL.unpack_from(
            view
        )
        usual = magic == RECORD_MAGIC != cycle and version in (2, 3) and kind == LITTLE_ENDIAN and uuid == self._uuid
        if not usual or lsn != cycle << 32 | sector or not length == size - SECTOR_BYTES <= HEADER_COVERS_BYTES:
            return None
        count = size // SECTOR_BYTES
        if buffer_bytes > HEADER_COVERS_BYTES or sector + count > self._sectors:
            return None
        words = view.cast("I")
        if words[_SECTOR_WORDS::_SECTOR_WORDS].tolist() != [words[1]] * (count - 1):
            return None
        if self._partial and self.is_awaited(sector, count):
            return None
        if wanted != _NO_SUM:
            total = library.crc32c(_NO_SUM, library.crc32c(view[:SUM_OFFSET]))
            total = library.crc32c(view[SUM_OFFSET + len(_NO_SUM) : HEADER_SUMMED_BYTES], total)
            if library.crc32c(view[SECTOR_BYTES:], total).to_bytes(4, "little") != wanted:
                return None
        content = bytearray(view[SECTOR_BYTES:])
        memoryview(content).cast("I")[::_SECTOR_WORDS] = words[_CYCLES_WORD : _CYCLES_WORD + count - 1]
        return XfsRecord(lsn, tail, count, operations, "<", bytes(content))

    def is_awaited(self, sector: int, count: int) -> bool:
        """Whether one of these sectors is of a record of which a part has come."""
        return any(
            (sector - one.first_sector) % self._sectors < one.sector_count
            or (one.first_sector - sector) % self._sectors < count
            for one in self._partial
        )

    @property
    def kept_bytes(self) -> int:
        """Of records of which a part has come."""
        return sum(len(one.content) for one in self._partial)

    def clear(self) -> None:
        """Writes are missing: what has come in part will not be whole."""
        self._partial.clear()

    def _begin(self, sector: int, header: memoryview) -> None:
        """A header was written: what it overwrites will not be complete. The sector itself is filled in with those behind it."""
        self._partial = [
            one for one in self._partial if (sector - one.first_sector) % self._sectors >= one.sector_count
        ]
        _, cycle, version, length, lsn, *_ = _HEADER.unpack_from(header)
        (size,) = struct.unpack_from(">I", header, SIZE_OFFSET)
        wide = version & 2
        size = min(size, MAX_XFS_RECORD_BYTES) if wide and size else _OLD_RECORD_BYTES
        # A header of the file system's own, of this place. Recovery writes headers without data behind the log's head.
        if lsn != cycle << 32 | sector or not 0 < length <= MAX_XFS_RECORD_BYTES or version not in (1, 2, 3):
            return
        if bytes(header[UUID_OFFSET : UUID_OFFSET + 16]) != self._uuid:
            return
        headers = -(-size // HEADER_COVERS_BYTES) if wide else 1
        count = headers + -(-length // SECTOR_BYTES)
        if length > headers * HEADER_COVERS_BYTES or count > self._sectors:
            return
        kept_bytes = self.kept_bytes + count * SECTOR_BYTES
        while self._partial and (len(self._partial) >= _MAX_KEPT or kept_bytes > _MAX_KEPT_BYTES):
            kept_bytes -= len(self._partial.pop(0).content)
        self._partial.append(_Partial(sector, count, headers, bytearray(count * SECTOR_BYTES), count, bytearray(count)))

    def _fill(self, sector: int, content: memoryview) -> Iterator[XfsRecord]:
        while len(content):
            count = len(content) // SECTOR_BYTES
            for one in self._partial:
                place = (sector - one.first_sector) % self._sectors
                if place < one.sector_count:
                    break
            else:
                # No record is known here: go on where one begins, if that is within this write.
                ahead = [(one.first_sector - sector) % self._sectors for one in self._partial]
                skip = min([step for step in ahead if 0 < step < count], default=count)
                sector, content = sector + skip, content[skip * SECTOR_BYTES :]
                continue
            count = min(count, one.sector_count - place)
            one.content[place * SECTOR_BYTES : (place + count) * SECTOR_BYTES] = content[: count * SECTOR_BYTES]
            one.missing -= count - sum(one.seen[place : place + count])
            one.seen[place : place + count] = b"\1" * count
            if not one.missing:
                self._partial.remove(one)
                yield self._whole(one)
            sector, content = sector + count, content[count * SECTOR_BYTES :]

    def _whole(self, one: _Partial) -> XfsRecord:
        _, cycle, _, length, lsn, tail, wanted, _, operations = _HEADER.unpack_from(one.content)
        (kind,) = struct.unpack_from(">I", one.content, FORMAT_OFFSET)
        problem = "" if kind in _FORMATS else "its byte order is unknown"
        if wanted != bytes(4) and not self._sum_is_right(one, wanted):
            problem = "its checksum is wrong"
        data = one.content[one.header_count * SECTOR_BYTES :]
        words = np.frombuffer(data, ">u4").reshape(-1, SECTOR_BYTES // 4)[:, 0]
        sectors = one.first_sector + one.header_count + np.arange(len(words))
        if bool(np.any(words != cycle + (sectors >= self._sectors))):
            problem = problem or "parts of it are of another cycle of the log"
        words[:] = self._kept_words(one)[: len(words)]
        del words
        del data[length:]
        return XfsRecord(lsn, tail, one.sector_count, operations, _FORMATS.get(kind, "<"), data, problem)

    @staticmethod
    def _kept_words(one: _Partial) -> NDArray[np.uint32]:
        """The first words of all sectors of data, out of the headers."""
        parts = [np.frombuffer(one.content, ">u4", CYCLES_PER_HEADER, CYCLES_OFFSET)]
        parts += [
            np.frombuffer(one.content, ">u4", CYCLES_PER_HEADER, index * SECTOR_BYTES + MORE_CYCLES_OFFSET)
            for index in range(1, one.header_count)
        ]
        return np.concatenate(parts)

    @staticmethod
    def _sum_is_right(one: _Partial, wanted: bytes) -> bool:
        """The header without its checksum, the parts in use of the other headers, then the data with the cycle numbers."""
        view = memoryview(one.content)
        for summed in (HEADER_SUMMED_BYTES, _HEADER_SUMMED_BYTES_I386):
            header = bytearray(view[:summed])
            header[SUM_OFFSET : SUM_OFFSET + 4] = bytes(4)
            total = crc32c(_ALL_ONES, header)
            (length,) = struct.unpack_from(">I", view, 12)
            for index in range(1, max(1, -(-length // HEADER_COVERS_BYTES))):
                total = crc32c(total, view[index * SECTOR_BYTES :][:MORE_SUMMED_BYTES])
            total = crc32c(total, view[one.header_count * SECTOR_BYTES :][:length])
            if (total ^ _ALL_ONES).to_bytes(4, "little") == wanted:
                return True
        return False
