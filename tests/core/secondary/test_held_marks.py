"""The marks that a replica holds: in the journal or beside the state, never lost, and never more of them than are kept."""

from __future__ import annotations

import pytest

from pydbt.core.protocol.mark import NamedMark
from pydbt.core.secondary.held_marks import KEPT_MARKS, HeldMarks, MarkReport
from pydbt.core.secondary.journal import JournalRecordKind, RecordHeader, encode_record, record_bytes
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import ReplicaRecord


def mark(number: int, sequence: int | None = None) -> NamedMark:
    return NamedMark(sequence or number, number, f"mark {number}", 1_000_000_000, 500_000_000, synced=number % 2 == 0)


def test_the_newest_are_kept_and_one_that_is_found_again_counts_once() -> None:
    held = HeldMarks()
    assert held.newest is None and held.report(7) == ()
    for number in range(1, KEPT_MARKS + 4):
        held = held.with_mark(mark(number), 7)
    assert held.numbers == tuple(range(4, KEPT_MARKS + 4))
    again = held.with_mark(mark(KEPT_MARKS + 3), 7)
    assert again == held and again.newest is not None and again.newest.mark.number == KEPT_MARKS + 3


def test_held_marks_come_back_from_a_file_as_they_were() -> None:
    held = HeldMarks().with_mark(mark(1), 7).with_mark(mark(2), (1 << 64) - 1)
    assert HeldMarks.from_values(held.to_values()) == held
    with pytest.raises(ValueError, match="a list"):
        HeldMarks.from_values({})


def test_the_report_has_the_moment_by_the_clock_of_the_primary() -> None:
    newest = HeldMarks().with_mark(mark(1), 1).with_mark(mark(2), 0xAB).report(0xAB)[0]
    assert newest == MarkReport(
        "mark 2",
        f"{2:016x}",
        "1970-01-01T00:00:01.500Z",
        f"{0xAB:016x}",
        2,
        synced=True,
        partly=False,
        uncertain_bytes=0,
        resynchronized=False,
    )


def test_an_image_of_another_run_has_perhaps_not_everything_before_a_mark() -> None:
    held = HeldMarks().with_mark(mark(1), 7).with_mark(mark(2), 8)
    assert [(one.name, one.resynchronized) for one in held.report(8)] == [("mark 2", False), ("mark 1", True)]


def header(kind: JournalRecordKind, position: int, first: int, length: int = 8) -> RecordHeader:
    return RecordHeader(kind, length, 0, position, 1, first, first, b"", b"")


def record(**others: object) -> ReplicaRecord:
    given = {"replica": "ab" * 16, "target": "t", "segment_bytes": 4096, "volume": "cd" * 16, "consistent": True}
    return ReplicaRecord(**given | others)  # type: ignore[arg-type]


def test_marks_in_the_journal_are_held_at_their_place_and_move_the_image() -> None:
    recovery = Recovery(record(epoch=9, sequence=3), HeldMarks().with_mark(mark(1), 9))
    recovery.add(header(JournalRecordKind.STREAM, 0, 4), 0)
    recovery.add(header(JournalRecordKind.MARK, 128, 5), 0, mark(2, 5))
    recovery.add(header(JournalRecordKind.COMPLETED, 256, 5), 0)
    assert recovery.marks.numbers == (1, 2) and recovery.sequence == 5 and recovery.limit == recovery.tail
    newest = recovery.marks.newest
    assert newest is not None and (newest.epoch, newest.mark.sequence) == (9, 5)


def test_only_entries_that_earlier_programs_cannot_read_make_them_refuse_the_state() -> None:
    plain, timed = record(), record(journal_layout=2)
    assert plain.to_values()["version"] == 2 and "journal_layout" not in plain.to_values()
    assert record(kept_aside=True).to_values()["version"] == 3
    assert timed.to_values()["version"] == 4 and timed.to_values()["journal_layout"] == 2
    for one in (plain, timed):
        assert ReplicaRecord.from_values(one.to_values()) == one


def test_the_record_of_a_mark_has_the_room_that_it_says() -> None:
    pieces = encode_record(mark(3), 4096, 1)
    assert sum(map(len, pieces)) == record_bytes(len(mark(3).to_bytes()))
