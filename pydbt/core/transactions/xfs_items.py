"""What the items of an XFS checkpoint name. They are kept as they stand in the log, and taken apart when somebody asks.

The first region of an item is its format: it has the kind of the item, the number of its regions, and the blocks that it changes.

Source: fs/xfs/libxfs/xfs_log_format.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np

from pydbt.core.blocks.runs import Integers, Mask
from pydbt.core.transactions.transaction import NOTHING_NAMED, NamedRuns, RunsOfTransaction, Words
from pydbt.core.transactions.xfs_volume import XfsVolume
from pydbt.core.units import SECTOR_BYTES

FORMAT_BYTES, _FORMAT_WORDS = (
    56,
    14,
)  # struct xfs_inode_log_format, the longest of those that name blocks by what is read here
FIRST_KIND, LAST_KIND = 0x1236, 0x124F
BUFFER_KIND = 0x123C
CANCELLED = 0x2  # XFS_BLF_CANCEL
BUFFER_BYTES = 16
_INODE, _DQUOT, _NEW_INODES = 0x123B, 0x123D, 0x123F
_INODE_32_BYTES = 52
_MAX_SECTOR = 1 << 53
_MAX_COUNT = 1 << 31  # of the formats that have it in 32 bits, signed
_MAX_KEPT = 2_048  # formats of one checkpoint, 250 KiB; of most checkpoints that is all


def _by_kind(others: int, of: dict[int, int]) -> Integers:
    return np.array([of.get(kind, others) for kind in range(FIRST_KIND, LAST_KIND + 1)])


# Of formats that name a run by its first sector: in which word that is, and how long they have to be. The number of sectors
# is two words behind it, but for a buffer.
_SECTOR_WORD = _by_kind(0, {BUFFER_KIND: 2, _INODE: 10, _DQUOT: 2})
_LEAST_BYTES = _by_kind(1 << 32, {BUFFER_KIND: BUFFER_BYTES, _INODE: _INODE_32_BYTES, _DQUOT: 20, _NEW_INODES: 24})


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

    def kept(self) -> RunsOfTransaction:
        """The same, taken apart."""
        return self._runs()


class ItemsOfBatch:
    """The formats of many checkpoints, as they stand in the log: copied together, and taken apart together.

    They begin at these words, and have these lengths in bytes. ``cancels``: whether one of them cancels a buffer."""

    __slots__ = ("_lengths", "_runs", "_volume", "_words", "cancels")

    def __init__(self, words: Words, begins: Integers, lengths: Words, volume: XfsVolume) -> None:
        if len(begins) and begins[-1] + _FORMAT_WORDS > len(words):
            words = np.append(words, np.zeros(_FORMAT_WORDS, np.uint32))
        every = np.ndarray((max(0, len(words) - _FORMAT_WORDS + 1), _FORMAT_WORDS), words.dtype, words, strides=(4, 4))
        self._words: Words = every[begins]
        self._lengths, self._volume = lengths, volume
        self._runs: tuple[NamedRuns, Mask, Mask] | None = None
        head = self._words[:, 0] & 0xFFFF
        self.cancels = bool(((head == BUFFER_KIND) & (self._words[:, 1] & CANCELLED != 0)).any())

    def runs(self, first: int, end: int, revoked: bool) -> NamedRuns:
        """What those from ``first`` to ``end`` change, or cancel."""
        if self._runs is None:
            begins = np.arange(len(self._words)) * _FORMAT_WORDS
            self._runs = runs_of_formats(self._words.reshape(-1), begins, self._lengths, self._volume)
        runs, names, cancels = self._runs
        chosen: NamedRuns = runs[first:end][names[first:end] & (cancels[first:end] == revoked)]
        return chosen


class SharedRuns:
    """As ``RunsOfLoggedItems``: of those from ``first`` to ``end`` of what many checkpoints share."""

    __slots__ = ("_end", "_first", "_items", "_of_revoked")
    whole = True

    def __init__(self, items: ItemsOfBatch, first: int, end: int, revoked: bool = False) -> None:
        self._items, self._first, self._end, self._of_revoked = items, first, end, revoked

    @property
    def count(self) -> int:
        return len(self.together())

    def together(self) -> NamedRuns:
        """All of them in one."""
        return self._items.runs(self._first, self._end, self._of_revoked)

    def kept(self) -> RunsOfTransaction:
        """The same without the others."""
        alone = RunsOfTransaction()
        alone.add_runs(self.together())
        return alone


def runs_of_formats(words: Words, begins: Integers, lengths: Words, volume: XfsVolume) -> tuple[NamedRuns, Mask, Mask]:
    """As ``_runs_of``, of all formats that begin at these words and have these lengths, little-endian: the run of each; whether
    it names one; and whether that is cancelled."""
    head = words.take(begins)
    kinds = np.minimum((head & 0xFFFF) - np.uint32(FIRST_KIND), LAST_KIND - FIRST_KIND)
    second = words.take(begins + 1, mode="clip")
    is_buffer = kinds == BUFFER_KIND - FIRST_KIND
    at = begins + _SECTOR_WORD.take(kinds)
    at -= (kinds == _INODE - FIRST_KIND) & (lengths < FORMAT_BYTES)
    sectors = words.take(at + 1, mode="clip").astype(np.int64) << 32
    sectors |= words.take(at, mode="clip")
    counts = np.where(is_buffer, second >> 16, words.take(at + 2, mode="clip")).astype(np.int64)
    is_new = kinds == _NEW_INODES - FIRST_KIND
    names = (lengths >= _LEAST_BYTES.take(kinds)) & (is_new | (counts < _MAX_COUNT))
    for place in np.flatnonzero(names & is_new).tolist():
        begin = int(begins[place])
        run = _run_of_new_inodes(words[begin : begin + 6].tobytes(), volume)
        sectors[place], counts[place] = run if run[0] < _MAX_SECTOR else (-1, 0)
    names &= (sectors >= 0) & (sectors < _MAX_SECTOR) & (counts > 0)
    runs = np.empty((len(begins), 2), np.int64)
    np.multiply(sectors, SECTOR_BYTES, out=runs[:, 0])
    np.multiply(counts, SECTOR_BYTES, out=runs[:, 1])
    return runs, names, is_buffer & (second & CANCELLED != 0)


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
            sector, length = _run_of_new_inodes(content, volume)
        if 0 <= sector < _MAX_SECTOR and 0 < length < _MAX_SECTOR:
            yield cancelled, sector * SECTOR_BYTES, length * SECTOR_BYTES


def _run_of_new_inodes(content: bytes, volume: XfsVolume) -> tuple[int, int]:
    """In sectors."""
    group, block, _, _, blocks = struct.unpack_from(">5I", content, 4)  # big-endian on every machine
    per_block = volume.block_bytes // SECTOR_BYTES
    return (group * volume.group_blocks + block) * per_block, blocks * per_block
