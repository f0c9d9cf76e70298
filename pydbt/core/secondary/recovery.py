"""The position that a replica's journal adds to its record, found at a start."""

from __future__ import annotations

from pydbt.core.protocol.mark import NamedMark
from pydbt.core.secondary.held_marks import HeldMarks
from pydbt.core.secondary.journal import JournalRecordKind, RecordHeader
from pydbt.core.secondary.replica import ReplicaRecord


class Recovery:
    """Folds the journal's records, in order from the checkpoint, into where the replica stands.

    ``tail``: end of the last whole record. ``limit``: records before it may be applied. ``stage_from``: where an
    unfinished resync's records begin, None when there is none. ``epoch`` and ``sequence``: of the image at ``limit``.
    ``committed_at``: end of the last COMMIT, 0 for none. ``marks``: all that are held.
    """

    def __init__(self, record: ReplicaRecord, marks: HeldMarks | None = None) -> None:
        """``marks``: those that were kept beside the state."""
        self._record = record
        self.marks = marks or HeldMarks()
        self.tail = self.limit = record.checkpoint
        self.epoch, self.sequence = record.epoch, record.sequence
        self.stage_from: int | None = None
        self.committed_at = 0

    def add(self, header: RecordHeader, epoch: int, mark: NamedMark | None = None) -> None:
        """Take the next record; ``epoch`` is what BEGIN records carry, else 0, and ``mark`` what MARK records do."""
        start, self.tail = self.tail, header.end
        if mark is not None:
            self.marks = self.marks.with_mark(mark, self.epoch)
        if not self._record.consistent:
            self.limit = self.tail  # resync data that was staged, and applied without its COMMIT: all of it counts
            return
        match header.kind:
            case JournalRecordKind.BEGIN:
                self.stage_from = start if self.stage_from is None else self.stage_from
            case JournalRecordKind.COMMIT:
                self.stage_from = None
                self.epoch, self.sequence = epoch, header.last
                self.limit = self.committed_at = self.tail
            case JournalRecordKind.STREAM | JournalRecordKind.MARK if (
                self.stage_from is None and start >= self._record.must_reach
            ):
                self.sequence, self.limit = header.last, self.tail
            case _ if self.stage_from is None:
                self.limit = self.tail

    @property
    def whole(self) -> bool:
        """Does the journal reach as far as the image requires?"""
        return self.tail >= self._record.must_reach
