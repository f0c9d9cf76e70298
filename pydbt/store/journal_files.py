"""The secondary's journal as files: segments of equal size, preallocated, and used again instead of deleted.

A segment's name is the position of its first byte (16 hexadecimal digits). Positions only grow, and a position divided
by the segment size gives its file. One thread appends; another may read and a third may free at the same time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydbt.core.errors import StateError
from pydbt.core.secondary.journal import (
    MAX_RECORD_BYTES,
    RECORD_HEADER_BYTES,
    SEGMENT_BYTES,
    JournalEntry,
    JournalRecordKind,
    RecordHeader,
    decode_record_header,
    encode_pad,
    encode_record,
    entry_bytes,
    record_is_whole,
)
from pydbt.core.secondary.journal_room import RESERVE_BYTES, reserve_bytes
from pydbt.core.units import Buffer
from pydbt.posix.files import sync_folder, write_all
from pydbt.posix.ownership import OPEN_OWN

SUFFIX = ".journal"
SPARE_SEGMENTS = 4
"""Freed segments that are kept for reuse: to overwrite an existing file costs half as much as to write a new one."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def whole_disk_bytes(status: os.statvfs_result) -> int:
    """The size of a file system, without what it keeps for root alone, which nobody should use up."""
    return (status.f_blocks - (status.f_bfree - status.f_bavail)) * status.f_frsize


class JournalFull(StateError):
    """The journal has reached its limit, or the disk has no room."""


class JournalFiles:
    """An open journal. ``recover`` first, then ``start``, then ``append`` and ``read``."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        limit_bytes: int | None = None,
        most_reserved_bytes: int = RESERVE_BYTES,
    ) -> None:
        assert segment_bytes % 4096 == 0
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._limit_bytes = limit_bytes
        self._most_reserved_bytes = most_reserved_bytes
        self._lock = threading.Lock()
        self._used: set[int] = set()
        self._spare: set[int] = set()
        self._readers: dict[int, int] = {}
        self._writers: dict[int, int] = {}
        self._tail = 0
        self._incarnation = 0
        self._unsynced: set[int] = set()
        self._list()

    # --- opening ------------------------------------------------------------------------------------------
    def recover(
        self, checkpoint: int, incarnation: int, trusted: int | None = None
    ) -> Iterator[tuple[RecordHeader, memoryview]]:
        """Every whole record from ``checkpoint`` on, in order, PADs included. The first damaged record ends it.

        A record of an incarnation above ``incarnation`` counts as damaged. Nothing from ``trusted`` on is read. Every record
        that is returned is on the disk itself, because its position is reported to the primary. Raises StateError.
        """
        self._read_from_disk(checkpoint)
        position, lowest = checkpoint, 0
        while trusted is None or position < trusted:
            found = self._record_at(position, (lowest, incarnation))
            if found is None:
                return
            header, body = found
            yield header, body
            position, lowest = header.end, header.incarnation

    def _read_from_disk(self, checkpoint: int) -> None:
        """Sync the pages that a killed process left in the page cache, then drop the cache.

        After a failed sync the kernel marks the pages clean and keeps showing them, and a later sync reports no error. The
        next read must see the content of the disk.
        """
        for index in sorted(self._used):
            if (index + 1) * self._segment_bytes <= checkpoint:
                continue
            try:
                descriptor = os.open(self._path(index), os.O_RDWR | OPEN_OWN, 0o600)
            except OSError as error:
                raise StateError(f"the journal in {self._folder} cannot be opened: {error.strerror}") from None
            try:
                with contextlib.suppress(OSError):  # pages that it could not write are dropped below
                    os.fdatasync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

    def start(self, checkpoint: int, tail: int, incarnation: int) -> None:
        """Append at ``tail`` from now on. Segments outside of checkpoint and tail become spare segments."""
        with self._lock:
            first, last = checkpoint // self._segment_bytes, -(-tail // self._segment_bytes)
            self._spare |= {index for index in self._used if not first <= index < last}
            self._used -= self._spare
        self.resume(tail, incarnation)
        self._trim_spares()

    def resume(self, tail: int, incarnation: int) -> None:
        """Continue at ``tail``, behind the last durable record, as a new incarnation."""
        self._tail, self._incarnation = tail, incarnation
        self._close_writers()
        self._unsynced.clear()
        self.cut(tail)

    def cut(self, position: int) -> None:
        """Make sure that no record is ever found at ``position``: a record there was never acknowledged, or was refused.

        The primary sends its blocks again, and these may go to the target directly. A later replay of the old record must
        not overwrite them. Durable when it returns. Raises StateError.
        """
        try:
            descriptor = os.open(self._path(position // self._segment_bytes), os.O_WRONLY | OPEN_OWN, 0o600)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateError(f"the journal in {self._folder} cannot be opened: {error.strerror}") from None
        try:
            write_all(descriptor, [bytes(RECORD_HEADER_BYTES)], position % self._segment_bytes)
            os.fdatasync(descriptor)
        except OSError as error:
            raise StateError(f"the journal in {self._folder} cannot be written: {error.strerror}") from None
        finally:
            os.close(descriptor)

    # --- appending ----------------------------------------------------------------------------------------
    @property
    def tail(self) -> int:
        return self._tail

    def append(self, entries: Sequence[JournalEntry], *, unlimited: bool = False) -> list[int]:
        """Write entries, not yet durably. Returns the end position of each entry's record.

        ``unlimited`` ignores the size limit; only the room on the disk counts. Fewer ends than entries: the journal is full,
        and the next call with the rest raises JournalFull. Raises StateError when the disk fails; then call ``resume``.
        """
        ends: list[int] = []
        buffers: list[Buffer] = []
        start = self._tail
        try:
            for entry in entries:
                size = entry_bytes(entry)
                assert size <= self._segment_bytes, "a record fits a segment"
                room = self._segment_bytes - self._tail % self._segment_bytes
                if size > room:
                    self._flush(start, [*buffers, encode_pad(self._tail, room, self._incarnation)])
                    self._tail += room
                    start, buffers, room = self._tail, [], self._segment_bytes
                if room == self._segment_bytes:
                    self._flush(start, buffers)
                    start, buffers = self._tail, []
                    self._open_segment(self._tail // self._segment_bytes, unlimited)
                buffers += encode_record(entry, self._tail, self._incarnation)
                self._tail += size
                ends.append(self._tail)
            self._flush(start, buffers)
        except JournalFull:
            if not ends:
                raise
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise JournalFull(f"{self._folder}: {error.strerror}") from None
            raise StateError(f"the journal in {self._folder} cannot be written: {error.strerror}") from None
        return ends

    def sync(self) -> None:
        """Everything appended is durable when this returns. Raises StateError."""
        try:
            for index in sorted(self._unsynced):
                os.fdatasync(self._writers[index])
        except OSError as error:
            raise StateError(f"the journal in {self._folder} cannot be synced: {error.strerror}") from None
        self._unsynced.clear()
        self._close_writers(keep=max(self._writers, default=None))

    def _flush(self, position: int, buffers: list[Buffer]) -> None:
        if not buffers:
            return
        descriptor = self._writer_of(position // self._segment_bytes)
        write_all(descriptor, buffers, position % self._segment_bytes)
        self._unsynced.add(position // self._segment_bytes)

    def _writer_of(self, index: int) -> int:
        if index not in self._writers:
            self._writers[index] = os.open(self._path(index), os.O_WRONLY | OPEN_OWN, 0o600)
        return self._writers[index]

    def _close_writers(self, keep: int | None = None) -> None:
        for index in [index for index in self._writers if index != keep]:
            os.close(self._writers.pop(index))

    # --- segments -----------------------------------------------------------------------------------------
    def _open_segment(self, index: int, unlimited: bool) -> None:
        """Make sure that a segment has a file of full size: its own, a spare segment's, or a new one."""
        with self._lock:
            path = self._path(index)
            if index not in self._used:
                self._check_room(unlimited)
                if index not in self._spare and self._spare:
                    oldest = min(self._spare)
                    os.rename(self._path(oldest), path)
                    self._spare.discard(oldest)
                    self._drop_reader(oldest)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | OPEN_OWN, 0o600)
            try:
                if os.fstat(descriptor).st_size < self._segment_bytes:
                    os.posix_fallocate(descriptor, 0, self._segment_bytes)
                    os.fsync(descriptor)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                path.unlink()
                raise JournalFull(f"the disk of {self._folder} is full") from None
            finally:
                os.close(descriptor)
            sync_folder(self._folder)
            self._spare.discard(index)
            self._used.add(index)

    def _check_room(self, unlimited: bool) -> None:
        limit = None if unlimited else self._limit_bytes
        if limit is not None and (len(self._used) + 1) * self._segment_bytes > limit:
            raise JournalFull(f"the journal in {self._folder} has reached its limit of {limit} bytes")
        if not self._spare and self._room_on_disk() < self._segment_bytes:
            raise JournalFull(f"the disk of {self._folder} is full")

    def _room_on_disk(self) -> int:
        """What the journal may take of the disk beyond what it has."""
        status = os.statvfs(self._folder)
        disk_bytes, free_bytes = whole_disk_bytes(status), status.f_bavail * status.f_frsize
        most = self._most_reserved_bytes
        reserved = most if self._limit_bytes is None else reserve_bytes(self._limit_bytes, disk_bytes, most)
        return max(free_bytes - reserved, 0)

    def room_bytes(self) -> int:
        """Bytes that a stage can still take before the disk is full; 0 when that is unknown."""
        with self._lock, contextlib.suppress(OSError):
            left = self._segment_bytes - self._tail % self._segment_bytes if self._tail % self._segment_bytes else 0
            free = self._room_on_disk() // self._segment_bytes * self._segment_bytes
            room = free + len(self._spare) * self._segment_bytes
            # A record that does not fit leaves the end of its segment unused.
            usable = max(self._segment_bytes - MAX_RECORD_BYTES, self._segment_bytes // 2)
            return max((room + left) * usable // self._segment_bytes, 0)
        return 0

    @property
    def used_bytes(self) -> int:
        return (len(self._used) + len(self._spare)) * self._segment_bytes

    def free(self, position: int) -> None:
        """Free the segments that lie wholly before ``position``."""
        with self._lock:
            freed = {index for index in self._used if (index + 1) * self._segment_bytes <= position}
            self._used -= freed
            self._spare |= freed
        self._trim_spares()

    def _trim_spares(self) -> None:
        with self._lock:
            for index in sorted(self._spare)[: max(len(self._spare) - SPARE_SEGMENTS, 0)]:
                self._spare.discard(index)
                self._remove(index)

    def give_back_spares(self) -> None:
        """Delete the spare segments, because the room is needed."""
        with self._lock:
            for index in self._spare:
                self._remove(index)
            self._spare.clear()

    def _remove(self, index: int) -> None:
        self._drop_reader(index)
        with contextlib.suppress(OSError):  # harmless: the next start treats it as a spare segment
            self._path(index).unlink(missing_ok=True)

    def _list(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StateError(f"the journal {self._folder} cannot be made: {error.strerror}") from error
        for path in self._folder.glob(f"*{SUFFIX}"):
            try:
                index, rest = divmod(int(path.name.removesuffix(SUFFIX), 16), self._segment_bytes)
            except ValueError:
                rest = 1
            if rest:
                raise StateError(f"{path} is not a segment of this journal: remove it, or use a new state directory")
            self._used.add(index)

    def _path(self, index: int) -> Path:
        return self._folder / f"{index * self._segment_bytes:016x}{SUFFIX}"

    # --- reading ------------------------------------------------------------------------------------------
    def read_into(self, position: int, view: memoryview) -> int:
        """Read from ``position`` to the end of ``view`` or of the segment. Returns the number of bytes."""
        index, offset = divmod(position, self._segment_bytes)
        want = min(len(view), self._segment_bytes - offset)
        have = 0
        try:
            with self._lock:
                descriptor = self._reader_of(index)
            while have < want:
                count = os.preadv(descriptor, [view[have:want]], offset + have)
                if not count:
                    break
                have += count
        except OSError as error:
            raise StateError(f"the journal in {self._folder} cannot be read: {error.strerror}") from None
        return have

    def _record_at(self, position: int, incarnations: tuple[int, int]) -> tuple[RecordHeader, memoryview] | None:
        if position // self._segment_bytes not in self._used:
            return None
        room = self._segment_bytes - position % self._segment_bytes
        head = memoryview(bytearray(RECORD_HEADER_BYTES))
        if self.read_into(position, head) < RECORD_HEADER_BYTES:
            return None
        header = decode_record_header(head, position, room, incarnations)
        if header is None:
            return None
        length = 0 if header.kind is JournalRecordKind.PAD else header.length
        body = memoryview(bytearray(length))
        if self.read_into(position + RECORD_HEADER_BYTES, body) < length or not record_is_whole(header, body):
            return None
        return header, body

    def _reader_of(self, index: int) -> int:
        if index not in self._readers:
            while len(self._readers) >= 4:
                self._drop_reader(next(iter(self._readers)))
            self._readers[index] = os.open(self._path(index), os.O_RDONLY | OPEN_OWN, 0o600)
        return self._readers[index]

    def _drop_reader(self, index: int) -> None:
        descriptor = self._readers.pop(index, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        self._close_writers()
        for index in list(self._readers):
            self._drop_reader(index)
