"""Keeps a map file up to date: what has changed is appended, and nothing is written when nothing has changed.

A change is appended and synced once (``map_file`` tells the layout). The file is made anew, as a whole, by the first write of a
run, after a write that failed, when the changes have grown larger than the map, and when someone has touched the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.units import MIB
from pydbt.posix.atomic import remove_file
from pydbt.posix.files import write_all
from pydbt.posix.ownership import OPEN_OWN
from pydbt.store.map_file import CHANGES_OFFSET, MARK_OFFSET, Change, change_of, mark_of, save_map
from pydbt.store.map_image import MapHeader

# A small map's file may grow to this size by changes before it is made anew.
SMALLEST_LIMIT_BYTES = 1 * MIB


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is on disk, durably. ``file``: which file, and its size; ``appended_bytes``: by all changes but the first."""

    header: MapHeader
    dirty: DirtyMap
    last: tuple[int, bytes]
    file: tuple[int, int, int]
    whole_bytes: int
    appended_bytes: int = 0


class MapKeeper:
    """The only writer of a map file while it lives. Called by one thread at a time; it may be any."""

    def __init__(self, path: os.PathLike[str]) -> None:
        self._path = path
        self._kept: _Kept | None = None

    def keep(self, header: MapHeader, dirty: DirtyMap) -> int:
        """Make the file this map, durably; the bytes written, 0 when it is on disk already.

        Nobody changes ``dirty`` afterwards. Raises StateError; the file is then this map, or still the one before it.
        """
        kept, self._kept = self._kept, None  # a write that fails leaves nothing to rely on
        if kept is not None and _is_same(kept.header, header):
            try:
                descriptor = os.open(self._path, os.O_WRONLY | OPEN_OWN)
            except OSError:
                return self._write_whole(header, dirty)  # moved away, perhaps
            try:
                if (
                    _identity(descriptor) == kept.file
                    and (written := self._update(descriptor, kept, header, dirty)) >= 0
                ):
                    return written
            except OSError as error:
                raise StateError(f"{self._path} cannot be written: {error.strerror}") from error
            finally:
                os.close(descriptor)
        return self._write_whole(header, dirty)

    def remove(self) -> None:
        """Remove the file, durably. StateError when that cannot be."""
        self._kept = None
        remove_file(self._path)

    def _update(self, descriptor: int, kept: _Kept, header: MapHeader, dirty: DirtyMap) -> int:
        """Append what has changed; the bytes written. Negative, and nothing is: a whole map is cheaper. Raises OSError."""
        indexes = dirty.chunks_unlike(kept.dirty)
        if not indexes:
            self._kept = replace(kept, dirty=dirty)
            return 0
        number, digest = kept.last
        change = change_of(number + 1, digest, header.sequence, dirty, indexes)
        if kept.appended_bytes + change.length_bytes > max(kept.whole_bytes, SMALLEST_LIMIT_BYTES):
            return -1
        device, inode, size = kept.file
        write_all(descriptor, [change.head, *change.bits], size)
        os.fdatasync(descriptor)
        mark = mark_of(change)
        write_all(descriptor, [mark], MARK_OFFSET)  # not synced: without it the change counts all the same
        self._kept = replace(
            kept, header=header, dirty=dirty, last=(change.number, change.digest),
            file=(device, inode, size + change.length_bytes), appended_bytes=kept.appended_bytes + change.length_bytes,
        )  # fmt: skip
        return change.length_bytes + len(mark)

    def _write_whole(self, header: MapHeader, dirty: DirtyMap) -> int:
        first = save_map(self._path, header, dirty)
        size = CHANGES_OFFSET + first.length_bytes
        self._kept = self._found(header, dirty, first, size)
        return size

    def _found(self, header: MapHeader, dirty: DirtyMap, first: Change, size: int) -> _Kept | None:
        """None when the file cannot be looked at: the next write makes it anew."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | OPEN_OWN)
        except OSError:
            return None
        try:
            return _Kept(header, dirty, (first.number, first.digest), _identity(descriptor), size)
        finally:
            os.close(descriptor)


def _is_same(kept: MapHeader, header: MapHeader) -> bool:
    """Whether both are of one volume and one run. The sequence number is told by each change."""
    return (kept.volume, kept.geometry, kept.epoch) == (header.volume, header.geometry, header.epoch)


def _identity(descriptor: int) -> tuple[int, int, int]:
    """Which file it is, and its size."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size
