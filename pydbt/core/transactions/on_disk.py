"""The log of a volume as it lies on the disk now: its transactions, the oldest first, and which of them recovery would replay.

The whole log is read once or twice, in pieces, in the order in which it was written; the parsers for a stream do the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydbt.core.transactions.changed_files import extents_of_inodes, newest_of
from pydbt.core.transactions.ext4_volume import (
    SUPERBLOCK_BYTES,
    SUPERBLOCK_OFFSET,
    LogExtents,
    Read,
    find_ext4_journal,
    is_ext4_superblock,
    read_ext4_sizes,
)
from pydbt.core.transactions.jbd2_blocks import (
    COMMIT,
    JBD2_MAGIC,
    JOURNAL_SUPERBLOCK_BYTES,
    NotUnderstood,
    read_journal_superblock,
)
from pydbt.core.transactions.jbd2_log import Jbd2Log
from pydbt.core.transactions.transaction import JournalTransaction, NamedParts, TransactionState
from pydbt.core.transactions.xfs_log import XfsLog, name_of_lsn
from pydbt.core.transactions.xfs_records import RECORD_MAGIC
from pydbt.core.transactions.xfs_volume import XFS_SUPERBLOCK_BYTES, is_xfs_superblock, read_xfs_superblock
from pydbt.core.units import MIB, SECTOR_BYTES

_PIECE_BYTES = 1 * MIB
_NEAR_HEAD_BYTES = 4 * MIB  # twice what the 8 buffers of 256 KiB hold in which XFS writes its log
_RECENT_BYTES = 32 * MIB  # of a log of XFS, which costs most to read: about a second
_NUMBERS = 1 << 32
_Words = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A transaction in the log, and whether recovery, at the next mount, replays it. Else it is in its place already, or void."""

    transaction: JournalTransaction
    replayed: bool


@dataclass(frozen=True, slots=True)
class LogOnDisk:
    """``block_bytes``: the unit of the transactions' places in the log."""

    file_system: str
    block_bytes: int
    log_bytes: int
    transactions: list[OnDisk]

    @property
    def newest_whole(self) -> OnDisk | None:
        """The last transaction that the volume holds whole, in its place or by recovery; None when the log names none."""
        for one in reversed(self.transactions):
            if one.transaction.state is TransactionState.COMMITTED:
                return one
        return None


@dataclass(frozen=True, slots=True)
class LoggedChanges:
    """Runs of the volume, in bytes: (offset, length). ``head``: the log's beginning, and where it goes on. ``recent``: each
    transaction, the newest first, with its part of the log and what it names. ``files``: where files lie that were changed, the
    last one first, as far as that is told. ``log``: all of it."""

    head: list[tuple[int, int]]
    recent: list[tuple[list[tuple[int, int]], NamedParts]]
    files: list[tuple[int, int]]
    log: list[tuple[int, int]]


def read_log(read: Read, size_bytes: int) -> LogOnDisk:
    """The log of the file system on a volume of this size. NotUnderstood when there is none that this program can follow.

    ``read`` is never asked for anything outside of the volume.
    """

    inside, is_ext4 = _of_file_system(read, size_bytes)
    return _Ext4OnDisk(inside).read() if is_ext4 else _read_xfs(inside)


def read_newest(read: Read, size_bytes: int) -> JournalTransaction | None:
    """The last transaction that is whole in the log of a volume that is written meanwhile; None when the log names none for
    certain.

    What it finds was in the log by the end of the read, and so was everything before it. Only what is needed is read: the live
    part of a journal, the end of a log of XFS. NotUnderstood as ``read_log``.
    """
    inside, is_ext4 = _of_file_system(read, size_bytes)
    return _Ext4OnDisk(inside).newest() if is_ext4 else _newest_of_xfs(inside)


def read_changes(read: Read, size_bytes: int) -> LoggedChanges:
    """What the log of a volume tells of what was changed last. It may be written meanwhile. NotUnderstood as ``read_log``."""
    inside, is_ext4 = _of_file_system(read, size_bytes)
    return _Ext4OnDisk(inside).changes(size_bytes) if is_ext4 else _changes_of_xfs(inside)


def _of_file_system(read: Read, size_bytes: int) -> tuple[Read, bool]:
    """Reads inside of the volume alone, and whether it has an ext4; else it has an XFS."""

    def inside(offset_bytes: int, length_bytes: int) -> bytes:
        if offset_bytes + length_bytes > size_bytes:
            raise NotUnderstood("its file system, or the log, reaches beyond the end of the volume")
        return read(offset_bytes, length_bytes)

    head = inside(0, SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES)
    if is_ext4_superblock(head[SUPERBLOCK_OFFSET:]):
        return inside, True
    if is_xfs_superblock(head):
        return inside, False
    raise NotUnderstood("it has no file system that this program knows (ext4 and XFS)")


class _Extents:
    """The bytes of a log, by their offset in it."""

    def __init__(self, read: Read, extents: LogExtents) -> None:
        self._read, self._extents = read, extents
        self.size_bytes = sum(length for _, length in extents)

    def on_volume(self, offset_bytes: int, length_bytes: int) -> list[tuple[int, int]]:
        """The runs of the volume that a run of the log is."""
        found, start, end = [], 0, offset_bytes + length_bytes
        for place, length in self._extents:
            low, high = max(start, offset_bytes), min(start + length, end)
            if low < high:
                found.append((place + low - start, high - low))
            start += length
        return found

    def ahead(self, offset_bytes: int) -> list[tuple[int, int]]:
        """The log's beginning, and the runs of the volume that follow a place: what the log goes on with."""
        most = min(_NEAR_HEAD_BYTES, self.size_bytes // 32)
        inside = min(most, self.size_bytes - offset_bytes)
        found = self.on_volume(0, SECTOR_BYTES) + self.on_volume(offset_bytes, inside)
        return found + self.on_volume(0, most - inside)

    def pieces(self, first_bytes: int, end_bytes: int) -> Iterator[tuple[int, bytes]]:
        """Offset and content of each piece from one place to another."""
        start = 0
        for offset, length in self._extents:
            begin, end = max(first_bytes, start), min(end_bytes, start + length)
            for place in range(begin, end, _PIECE_BYTES):
                yield place, self._read(offset + place - start, min(_PIECE_BYTES, end - place))
            start += length


class _Ext4OnDisk:
    def __init__(self, read: Read) -> None:
        self._read = read
        self._log = _Extents(read, find_ext4_journal(read).extents)
        self._head = b"".join(data for _, data in self._log.pieces(0, JOURNAL_SUPERBLOCK_BYTES))
        self._layout = read_journal_superblock(self._head)
        if self._layout.block_count * self._layout.block_bytes > self._log.size_bytes:
            raise NotUnderstood("its journal is longer than the file that it is in")

    def read(self) -> LogOnDisk:
        layout = self._layout
        live = self._live() if layout.start_block else []
        if layout.start_block:
            last = live[-1] if live else None
            first = layout.behind(last.first_block, last.block_count) if last else layout.start_block
            older = self._older(first, layout.start_block)
            live += self._fast(last)
        else:
            first = self._behind_newest()
            older = self._older(first, first)
        found = [OnDisk(one, False) for one in older]
        found += [OnDisk(one, one.state is TransactionState.COMMITTED) for one in live]
        return LogOnDisk("ext4", layout.block_bytes, layout.block_count * layout.block_bytes, found)

    def newest(self) -> JournalTransaction | None:
        """The last whole one. The kernel submits a commit after all that belongs to it, and after every earlier commit; so what
        was read before it may be older than it, and is not compared with checksums."""
        layout, check_content = self._layout, False
        live = self._live(check_content=check_content) if layout.start_block else []
        last = live[-1] if live else None
        found = [*live, *(self._fast(last) if layout.start_block else [])]
        if not any(one.state is TransactionState.COMMITTED for one in found):
            first = layout.start_block or self._behind_newest()
            found = self._older(first, first)
        return next((one for one in reversed(found) if one.state is TransactionState.COMMITTED), None)

    def changes(self, size_bytes: int) -> LoggedChanges:
        """All that are left in the log, whether they are in their places or not."""
        layout, log = self._layout, self._log
        live = self._live(check_content=False) if layout.start_block else []
        last = live[-1] if live else None
        head = (
            layout.behind(last.first_block, last.block_count) if last else layout.start_block or self._behind_newest()
        )
        older = self._older(head, layout.start_block or head)
        parser = Jbd2Log(self._head, check_content=False)
        recent = [
            ([part for run in parser.runs_of(one) for part in log.on_volume(*run)], one.named_parts)
            for one in reversed([*older, *live])
        ]
        ahead = log.ahead(head * layout.block_bytes)
        return LoggedChanges(ahead, recent, self._files(size_bytes), log.on_volume(0, log.size_bytes))

    def _files(self, size_bytes: int) -> list[tuple[int, int]]:
        volume = read_ext4_sizes(self._read)
        pieces = self._log.pieces(0, self._log.size_bytes)
        found = newest_of([
            extents_of_inodes(data, volume.block_bytes, volume.inode_bytes, size_bytes) for _, data in pieces
        ])  # fmt: skip
        return [(offset, length) for _, offset, length in found.tolist()]

    def _round(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """The log from a block on, around its end, up to another one; the whole of it when they are the same."""
        layout = self._layout
        around = [(first, layout.last_block), (layout.first_block, last)]
        parts = [(first, last)] if first < last else around
        for begin, end in parts:
            yield from self._log.pieces(begin * layout.block_bytes, end * layout.block_bytes)

    def _live(self, *, check_content: bool = True) -> list[JournalTransaction]:
        """From where the superblock tells: each has the next number. The first that is not complete ends the log."""
        start, found = self._layout.start_block, []
        log = Jbd2Log(self._head, check_content=check_content)
        ended = (one for place, data in self._round(start, start) for one in log.written(place, data))
        expected = self._layout.sequence
        for one in ended:
            if one.number != expected:
                break
            found.append(one)
            if one.state is not TransactionState.COMMITTED:
                return found
            expected = (expected + 1) % _NUMBERS
        if log.open is not None and log.open.number == expected:
            found.append(log.open)
        return found

    def _fast(self, last: JournalTransaction | None) -> list[JournalTransaction]:
        """The fast commits behind the last full one, which have the number of the transaction that was running."""
        layout = self._layout
        if last is not None and last.state is not TransactionState.COMMITTED:
            running = last.number
        else:
            running = layout.sequence if last is None else (last.number + 1) % _NUMBERS
        log = Jbd2Log(self._head)
        area = self._log.pieces(layout.fast_first_block * layout.block_bytes, layout.block_count * layout.block_bytes)
        return [one for place, data in area for one in log.written(place, data) if one.number == running]

    def _older(self, first: int, last: int) -> list[JournalTransaction]:
        """What is left of transactions that are in their place already, since the log has not come round to them again."""
        log, start = Jbd2Log(self._head, from_start=False), self._layout.first_block
        # A transaction has at most a quarter of the log (j_max_transaction_buffers): in half of one that came round one ends.
        is_new = first - start <= (self._layout.last_block - start) // 2
        ended: list[JournalTransaction] = []
        for place, data in self._round(first, last):
            controls = (headers := self._headers(data))[headers[:, 0] == JBD2_MAGIC]
            if place == start * self._layout.block_bytes and is_new and len(controls):
                log.begins_at(int(controls[0, 2]), start)
            is_new = is_new and not len(controls)
            ended += log.written(place, data)
        return [one for one in ended if 0 < self._age(one.number) < _NUMBERS // 2]

    def _headers(self, data: bytes) -> _Words:
        """The first three words of each block: magic, kind and number where it is a control block."""
        words = self._layout.block_bytes // 4
        whole = len(data) // self._layout.block_bytes * words
        return np.frombuffer(data, ">u4", whole).reshape(-1, words)[:, :3]

    def _age(self, number: int) -> int:
        return (self._layout.sequence - number) % _NUMBERS

    def _behind_newest(self) -> int:
        """Where the log would go on, after an unmount: behind the commit block with the highest number below the next one."""
        layout = self._layout
        newest, block = _NUMBERS // 2, layout.first_block
        for place, data in self._round(layout.first_block, layout.first_block):
            headers = self._headers(data)
            commits = np.flatnonzero((headers[:, 0] == JBD2_MAGIC) & (headers[:, 1] == COMMIT))
            for index in commits.tolist():
                age = self._age(int(headers[index, 2]))
                if 0 < age < newest:
                    newest, block = age, layout.behind(place // layout.block_bytes + index, 1)
        return block


def _read_xfs(read: Read) -> LogOnDisk:
    volume = read_xfs_superblock(read(0, XFS_SUPERBLOCK_BYTES))
    where = _Extents(read, [(volume.log_offset_bytes, volume.log_bytes)])
    cycles = _cycles(where)
    # The newest cycle begins at the log's start. What stands behind its last sector is of the cycle before.
    oldest = (int(np.flatnonzero(cycles == cycles[0])[-1]) + 1) * SECTOR_BYTES
    log = XfsLog(volume)
    ended = []
    for first, end in ((oldest, volume.log_bytes), (0, oldest)):
        for place, data in where.pieces(first, end):
            ended += log.written(place, data)
    ended += log.open
    # Recovery begins at the tail, and goes no further than a damaged or missing record behind it.
    stop = next((gap for gap in log.gaps if gap >= log.tail_lsn), None)
    found = []
    for one in ended:
        if stop is not None and one.number >= stop and one.state is TransactionState.COMMITTED:
            reason = f"recovery stops before it, at the damaged or missing record {name_of_lsn(stop)}"
            one = one._replace(state=TransactionState.ABANDONED, reason=reason)
        whole = one.state is TransactionState.COMMITTED
        found.append(OnDisk(one, whole and not log.unmounted and one.starts_at >= log.tail_lsn))
    return LogOnDisk("xfs", SECTOR_BYTES, volume.log_bytes, found)


@dataclass(frozen=True, slots=True)
class _NearHead:
    """What was read of an XFS log before its head, which lies at ``head_bytes``. ``stable``: it was not written meanwhile."""

    log: XfsLog
    where: _Extents
    ended: list[JournalTransaction]
    head_bytes: int
    stable: bool


def _near_head(read: Read, behind_bytes: int) -> _NearHead:
    volume = read_xfs_superblock(read(0, XFS_SUPERBLOCK_BYTES))
    where = _Extents(read, [(volume.log_offset_bytes, volume.log_bytes)])
    size, unit = volume.log_bytes, max(volume.block_bytes, SECTOR_BYTES)

    def cycle_at(block: int) -> int:
        return int(_cycles(where, block * unit, (block + 1) * unit)[0])

    # The newest cycle begins at the log's start, and gives way to the one before it somewhere: near there, but for holes.
    newest, low, high = cycle_at(0), 0, size // unit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cycle_at(middle) == newest else (low, middle)
    first, end = max(0, low * unit - _NEAR_HEAD_BYTES), min(size, high * unit + _NEAR_HEAD_BYTES)
    cycles = _cycles(where, first, end)
    head = first + (int(np.flatnonzero(cycles == newest)[-1]) + 1) * SECTOR_BYTES if newest in cycles else first
    log, ended = XfsLog(volume), []
    before = max(0, head - behind_bytes)
    around = max(head, size - (behind_bytes - (head - before)))
    for begin, until in ((around, size), (before, head)):
        for place, data in where.pieces(begin, until):
            ended += log.written(place, data)
    return _NearHead(log, where, ended, head, np.array_equal(cycles, _cycles(where, first, end)))


def _newest_of_xfs(read: Read) -> JournalTransaction | None:
    """The kernel has 8 buffers on their way at most: before that every record is there, and a hole is found behind it.

    None also when the log was written meanwhile: then records were perhaps read before others that come first.
    """
    found = _near_head(read, _NEAR_HEAD_BYTES)
    stop = min(found.log.gaps, default=None)
    whole = [
        one for one in found.ended
        if one.state is TransactionState.COMMITTED and (stop is None or one.number < stop)
    ]  # fmt: skip
    return whole[-1] if whole and found.stable else None


def _changes_of_xfs(read: Read) -> LoggedChanges:
    found = _near_head(read, _RECENT_BYTES)
    where = found.where
    recent = [
        ([part for run in found.log.runs_of(one) for part in where.on_volume(*run)], one.named_parts)
        for one in reversed([*found.ended, *found.log.open])
    ]
    return LoggedChanges(where.ahead(found.head_bytes), recent, [], where.on_volume(0, where.size_bytes))


def _cycles(where: _Extents, first_bytes: int = 0, end_bytes: int | None = None) -> _Words:
    """The cycle of each sector of an XFS log: its first word; the second in the header of a record."""
    parts = []
    for _, data in where.pieces(first_bytes, where.size_bytes if end_bytes is None else end_bytes):
        words = np.frombuffer(data, ">u4").reshape(-1, SECTOR_BYTES // 4)
        parts.append(np.where(words[:, 0] == RECORD_MAGIC, words[:, 1], words[:, 0]).astype(np.uint32))
    return np.concatenate(parts)
