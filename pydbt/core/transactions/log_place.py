"""Where a volume has the log of its file system, for those who follow it in a stream of writes."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydbt.core.transactions.ext4_volume import (
    SUPERBLOCK_BYTES,
    SUPERBLOCK_OFFSET,
    Read,
    WatchedPiece,
    find_ext4_journal,
    is_ext4_superblock,
)
from pydbt.core.transactions.jbd2_blocks import JOURNAL_SUPERBLOCK_BYTES, NotUnderstood, read_journal_superblock
from pydbt.core.transactions.jbd2_log import Jbd2Log
from pydbt.core.transactions.xfs_log import XfsLog
from pydbt.core.transactions.xfs_volume import XFS_SUPERBLOCK_BYTES, is_xfs_superblock, read_xfs_superblock

# Of XFS's superblock: everything before its counters, then features and the identity of before a change.
_XFS_PIECES = ((0, 128), (0xD8, 8), (248, 16))
_TOO_FAR = "its file system, or the log, reaches beyond the end of the volume"


@dataclass(frozen=True, slots=True)
class LogPlace:
    """``extents``: runs (offset, length) in bytes of the volume, in the order of the log, none of which overlap.

    ``watched``: when what stands there changes, the place has to be found again. ``head``: the journal's superblock on ext4,
    that of the volume on XFS, as it was read; two places are the same also when it differs. ``made_at``: when the file system was
    made, in seconds; 0 where it does not tell.
    """

    file_system: str
    extents: tuple[tuple[int, int], ...]
    watched: tuple[WatchedPiece, ...]
    head: bytes = field(compare=False, repr=False)
    made_at: int = 0

    def parser(self) -> Jbd2Log | XfsLog:
        """One that joins the log where it is now. NotUnderstood."""
        if self.file_system == "ext4":
            return Jbd2Log(self.head, from_start=False, check_content=False)
        return XfsLog(read_xfs_superblock(self.head), follows_stream=True)

    def is_same_log(self, other: LogPlace) -> bool:
        """Whether a parser of this one may go on there: a file system that grows keeps its log.

        The parser of ext4 hears of a new journal by its superblock, which is a part of the log.
        """
        if (self.file_system, self.extents) != (other.file_system, other.extents):
            return False
        return self.file_system == "ext4" or read_xfs_superblock(self.head) == read_xfs_superblock(other.head)

    def on_volume(self, offset_bytes: int, length_bytes: int) -> list[tuple[int, int]]:
        """The runs of the volume that a run of the log is."""
        found, start, end = [], 0, offset_bytes + length_bytes
        for place, length in self.extents:
            low, high = max(start, offset_bytes), min(start + length, end)
            if low < high:
                found.append((place + low - start, high - low))
            start += length
            if start >= end:
                break
        return found


def find_log(read: Read, size_bytes: int) -> LogPlace:
    """The log of the file system on a volume of this size. NotUnderstood when there is none that this program can follow.

    ``read`` is never asked for anything outside of the volume.
    """

    def inside(offset_bytes: int, length_bytes: int) -> bytes:
        if offset_bytes + length_bytes > size_bytes:
            raise NotUnderstood(_TOO_FAR)
        return read(offset_bytes, length_bytes)

    head = inside(0, SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES)
    if is_ext4_superblock(head[SUPERBLOCK_OFFSET:]):
        journal = find_ext4_journal(inside)
        first = b"".join(inside(*run) for run in _first_bytes(journal.extents, JOURNAL_SUPERBLOCK_BYTES))
        layout = read_journal_superblock(first)
        if layout.block_count * layout.block_bytes > sum(length for _, length in journal.extents):
            raise NotUnderstood("its journal is longer than the file that it is in")
        return _checked(LogPlace("ext4", tuple(journal.extents), journal.watched, first, journal.made_at), size_bytes)
    if is_xfs_superblock(head):
        volume = read_xfs_superblock(head)
        watched = tuple((first, head[first : first + length]) for first, length in _XFS_PIECES)
        extents = ((volume.log_offset_bytes, volume.log_bytes),)
        return _checked(LogPlace("xfs", extents, watched, head[:XFS_SUPERBLOCK_BYTES]), size_bytes)
    raise NotUnderstood("it has no file system that this program knows (ext4 and XFS)")


def _first_bytes(extents: list[tuple[int, int]], wanted: int) -> list[tuple[int, int]]:
    found = []
    for offset, length in extents:
        if wanted <= 0:
            break
        found.append((offset, min(length, wanted)))
        wanted -= length
    return found


def _checked(place: LogPlace, size_bytes: int) -> LogPlace:
    """A log of a file system never lies over itself, or over what tells where it is."""
    ends = 0
    for offset, length in sorted([*place.extents, *((offset, len(content)) for offset, content in place.watched)]):
        if offset < ends:
            raise NotUnderstood("the block map of its journal is damaged")
        ends = offset + length
    if ends > size_bytes:
        raise NotUnderstood(_TOO_FAR)
    return place
