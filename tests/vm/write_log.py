"""The log of dm-log-writes: every write that reached a device, in order, with data and marks. Read, and replayed

The layout is that of drivers/md/dm-log-writes.c: a superblock in the first sector, then for each entry one sector of
header (for a mark, with its name behind it) and the data. An entry is written once what it describes is flushed, so
that a mark has before it what was flushed before the mark was made.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

_MAGIC, _VERSION = 0x6A736677736872, 1
_SUPER = struct.Struct("<QQQI")  # magic, version, entries, bytes of a sector
_ENTRY = struct.Struct("<QQQQ")  # sector, sectors, flags, length of the data that is not sectors (a mark's name)
END = "dm-log-writes-end"  # the mark that the target makes when it is removed


class Kind(IntFlag):
    """What an entry is. No bit: a plain write."""

    FLUSH = 1
    FUA = 2
    DISCARD = 4
    MARK = 8
    METADATA = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One write, discard, flush or mark; in sectors of the log's own size. Data lies at ``data_offset`` of the log."""

    sector: int
    sectors: int
    kind: Kind
    data_offset: int
    mark: str = ""

    @property
    def has_data(self) -> bool:
        return self.sectors > 0 and not self.kind & (Kind.DISCARD | Kind.MARK)


class WriteLog:
    """A log that is complete: its target was removed, or a mark was made after all that counts."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        magic, version, self.entries, self.sector_bytes = _SUPER.unpack(self._file.read(_SUPER.size))
        if magic != _MAGIC or version != _VERSION:
            raise ValueError(
                f"{path} is no log of dm-log-writes of version {_VERSION}: magic {magic:#x}, version {version}"
            )
        if self.sector_bytes < 512 or self.sector_bytes & (self.sector_bytes - 1):
            raise ValueError(f"{path} has sectors of {self.sector_bytes} bytes")
        self._end = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Entry]:
        at = self.sector_bytes
        for number in range(self.entries):
            if at + self.sector_bytes > self._end:
                raise ValueError(f"the log ends in entry {number} of {self.entries}")
            self._file.seek(at)
            header = self._file.read(self.sector_bytes)
            sector, sectors, flags, length = _ENTRY.unpack_from(header)
            if flags & ~int(Kind.FLUSH | Kind.FUA | Kind.DISCARD | Kind.MARK | Kind.METADATA):
                raise ValueError(f"entry {number} at {at} has unknown flags {flags:#x}")
            kind = Kind(flags)
            name = header[_ENTRY.size : _ENTRY.size + length].decode() if kind & Kind.MARK else ""
            at += self.sector_bytes
            yield Entry(sector, sectors, kind, at, name)
            if not kind & Kind.DISCARD:
                at += sectors * self.sector_bytes

    def data(self, entry: Entry) -> bytes:
        self._file.seek(entry.data_offset)
        data = self._file.read(entry.sectors * self.sector_bytes)
        assert len(data) == entry.sectors * self.sector_bytes, "the log is cut off"
        return data

    def replay(self, image: bytearray, first: int, to_mark: str) -> int:
        """Apply entries from number ``first`` up to a mark; the number of the entry after it. Discards read as zeros."""
        for number, entry in enumerate(self):
            if number < first:
                continue
            at, length = entry.sector * self.sector_bytes, entry.sectors * self.sector_bytes
            if entry.kind & Kind.MARK:
                if entry.mark == to_mark:
                    return number + 1
            elif entry.kind & Kind.DISCARD:
                image[at : at + length] = bytes(length)
            elif entry.has_data:
                image[at : at + length] = self.data(entry)
        raise ValueError(f"the log has no mark {to_mark} behind entry {first}")
