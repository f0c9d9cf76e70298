"""What the items of an XFS checkpoint name. They are kept as they stand in the log, and taken apart when somebody asks.

The first region of an item is its format: it has the kind of the item, the number of its regions, and the blocks that it changes.

Source: fs/xfs/libxfs/xfs_log_format.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pydbt.core.transactions.transaction import NOTHING_NAMED, NO_RUNS, NamedRuns, RunsOfTransaction
from pydbt.core.transactions.xfs_volume import XfsVolume
from pydbt.core.units import SECTOR_BYTES

FORMAT_BYTES = 56  # struct xfs_inode_log_format, the longest of those that name blocks by what is read here
FIRST_KIND, LAST_KIND = 0x1236, 0x124F
BUFFER_KIND = 0x123C
CANCELLED = 0x2  # XFS_BLF_CANCEL
BUFFER_BYTES = 16
_INODE, _DQUOT, _NEW_INODES = 0x123B, 0x123D, 0x123F
_INODE_32_BYTES = 52
_MAX_SECTOR = 1 << 53
_MAX_KEPT = 2_048  # formats of one checkpoint, 250 KiB; of most checkpoints that is all

Rows = NDArray[np.uint32]
"""One row per format: its length, at most ``FORMAT_BYTES``, and its words as they stand in the log."""


class LoggedItems:
    """The formats of one checkpoint, in bounded memory."""

    __slots__ = ("_formats", "_named", "_revoked", "_volume")

    def __init__(self, volume: XfsVolume) -> None:
        self._volume = volume
        self._formats: list[tuple[str, bytes]] = []
        self._named: RunsOfTransaction | None = None
        self._revoked = NOTHING_NAMED

    def add(self, order: str, content: bytes) -> None:
        """One more, and the byte order that it has."""
        self._formats.append((order, content))
        if len(self._formats) >= _MAX_KEPT:
            self._take_apart()

    def _take_apart(self) -> RunsOfTransaction:
        formats, self._formats = self._formats, []
        named = self._named = self._named or RunsOfTransaction()
        for cancelled, offset_bytes, length_bytes in _runs_of(formats, self._volume):
            if not cancelled:
                named.add_run(offset_bytes, length_bytes)
                continue
            if self._revoked is NOTHING_NAMED:
                self._revoked = RunsOfTransaction()
            self._revoked.add_run(offset_bytes, length_bytes)
        return named

    def named(self) -> RunsOfTransaction:
        """The runs that are changed."""
        return self._take_apart()

    def revoked(self) -> RunsOfTransaction:
        """The runs that are cancelled."""
        self._take_apart()
        return self._revoked


class RunsOfLoggedItems:
    """What the items of a checkpoint change; with ``revoked`` what they cancel."""

    __slots__ = ("_items", "_of_revoked")

    def __init__(self, items: LoggedItems, revoked: bool) -> None:
        self._items, self._of_revoked = items, revoked

    def _runs(self) -> RunsOfTransaction:
        return self._items.revoked() if self._of_revoked else self._items.named()

    @property
    def count(self) -> int:
        return self._runs().count

    @property
    def whole(self) -> bool:
        return self._runs().whole

    def together(self) -> NamedRuns:
        """All of them in one."""
        return self._runs().together()


class RunsOfRows:
    """As ``RunsOfLoggedItems``, of the rows from ``first`` to ``end`` of what many checkpoints share."""

    __slots__ = ("_end", "_first", "_of_revoked", "_rows", "_volume")
    whole = True

    def __init__(self, rows: Rows, volume: XfsVolume, first: int, end: int, revoked: bool = False) -> None:
        self._rows, self._volume, self._first, self._end, self._of_revoked = rows, volume, first, end, revoked

    @property
    def count(self) -> int:
        return len(self.together())

    def together(self) -> NamedRuns:
        """All of them, made anew at each call."""
        rows = self._rows[self._first : self._end]
        formats = [("<", row[1:].tobytes()[: int(row[0])]) for row in rows]
        found = [run for cancelled, *run in _runs_of(formats, self._volume) if cancelled is self._of_revoked]
        return np.array(found, np.int64) if found else NO_RUNS


def _runs_of(formats: Iterable[tuple[str, bytes]], volume: XfsVolume) -> Iterator[tuple[bool, int, int]]:
    """Of each format that names a run: whether the run is cancelled, its offset and its length in bytes."""
    for order, content in formats:
        sector = length = -1
        cancelled = False
        (kind,) = struct.unpack_from(f"{order}H", content)
        if kind == BUFFER_KIND and len(content) >= BUFFER_BYTES:
            flags, length, sector = struct.unpack_from(f"{order}HHq", content, 4)
            cancelled = bool(flags & CANCELLED)
        elif kind == _INODE and len(content) >= _INODE_32_BYTES:
            place = 40 if len(content) == FORMAT_BYTES else 36
            sector, length = struct.unpack_from(f"{order}qi", content, place)
        elif kind == _DQUOT and len(content) >= 20:
            sector, length = struct.unpack_from(f"{order}qi", content, 8)
        elif kind == _NEW_INODES and len(content) >= 24:
            group, block, _, _, blocks = struct.unpack_from(">5I", content, 4)  # big-endian on every machine
            per_block = volume.block_bytes // SECTOR_BYTES
            sector, length = (group * volume.group_blocks + block) * per_block, blocks * per_block
        if 0 <= sector < _MAX_SECTOR and 0 < length < _MAX_SECTOR:
            yield cancelled, sector * SECTOR_BYTES, length * SECTOR_BYTES
