"""The rows of every view add up to the captured bytes; those of unknown writers are unknown, and nothing is counted twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.writers.answer import views
from pydbt.core.seen.writers.reading import (
    NO_ROOM,
    Amount,
    File,
    Kind,
    Names,
    Process,
    RowKey,
    Writer,
    WriterReading,
)
from pydbt.core.seen.writers.sums import NO_FILE, WriterSums

FILE = File(0x800001, 12, 7)
TAR = Writer(100, 5, 31, 0, False, b"tar")
DD = Writer(200, 6, 32, 1000, False, b"dd")
WRITERS = {1: TAR, 2: DD}

KEYS = [
    RowKey(kind, writer, file)
    for kind in (*Kind, 99)
    for writer in (0, 1, 2, 3)
    for file in (None, FILE, File(0x800001, 13, 1), NO_ROOM)
]


def reading(rows: dict[RowKey, Amount], captured: int | None = None, lost: Amount = Amount(0, 0)) -> WriterReading:  # noqa: B008
    total = sum(amount.written for amount in rows.values()) + lost.written
    return WriterReading(rows, WRITERS, total if captured is None else captured, lost)


def written_of(sums: WriterSums, view: str, kind: str) -> int:
    return sum(int(row["written_bytes"]) for row in views(sums, Names())[view] if row["kind"] == kind)


def totals(sums: WriterSums) -> dict[str, int]:
    answer = views(sums, Names(), rows_max=3)
    return {view: sum(row["written_bytes"] for row in answer[view]) for view in ("processes", "groups", "files")}


@given(
    st.lists(
        st.tuples(
            st.dictionaries(
                st.sampled_from(KEYS), st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)), max_size=8
            ),
            st.integers(0, 1 << 30),
            st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20)),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_rows_of_every_view_add_up_to_the_captured_bytes(story: list[Any]) -> None:
    sums, rows, lost, unseen = WriterSums(), {}, Amount(0, 0), 0
    for more, gap, more_lost, out_of_normal in story:
        for key, (dirtied, written) in more.items():
            before = rows.get(key, Amount(0, 0))
            rows[key] = Amount(before.dirtied + dirtied, before.written + written)
        lost = Amount(lost.dirtied + more_lost[0], lost.written + more_lost[1])
        unseen += gap
        captured = sum(one.written for one in rows.values()) + lost.written + unseen
        for _ in range(3):  # what a reading has just missed is no gap before it was missed three times
            sums.take(reading(dict(rows), captured, lost), 1.0, out_of_normal=out_of_normal)
        assert sums.captured_bytes == sums.counted_bytes == captured and sums.excess_bytes == 0
        assert set(totals(sums).values()) == {captured}
    dirtied = sum(one.dirtied for one in rows.values()) + lost.dirtied
    answer = views(sums, Names(), rows_max=2)
    for view in ("processes", "groups", "files"):
        assert sum(row["dirtied_bytes"] for row in answer[view]) == dirtied


def test_a_process_a_group_and_a_file_each_have_their_own_rows() -> None:
    sums = WriterSums()
    rows = {
        RowKey(Kind.DIRECT, 1, FILE): Amount(0, 300),
        RowKey(Kind.BUFFERED, 1, FILE): Amount(500, 40),
        RowKey(Kind.BUFFERED, 2, FILE): Amount(8, 8),
        RowKey(Kind.DIRECT, 2, None): Amount(0, 1),
    }
    sums.take(reading(rows), 1.0, out_of_normal=False)
    assert {subject: entry.written for subject, entry in sums.by_process.entries()} == {
        TAR.subject: 340,
        DD.subject: 9,
    }
    assert {subject: entry.written for subject, entry in sums.by_group.entries()} == {31: 340, 32: 9}
    assert {subject: entry.written for subject, entry in sums.by_file.entries()} == {FILE: 348, NO_FILE: 1}
    assert dict(sums.by_process.entries())[TAR.subject].dirtied == 500


def test_journal_metadata_before_and_unknown_are_rows_of_their_own() -> None:
    sums = WriterSums()
    rows = {
        RowKey(Kind.JOURNAL, 0, None): Amount(0, 1),
        RowKey(Kind.METADATA, 0, FILE): Amount(0, 2),
        RowKey(Kind.BEFORE, 0, FILE): Amount(0, 4),
        RowKey(Kind.UNKNOWN, 0, None): Amount(0, 8),
    }
    sums.take(reading(rows), 1.0, out_of_normal=False)
    found = {kind: written_of(sums, "processes", kind) for kind in ("journal", "metadata", "before", "unknown")}
    assert found == {"journal": 1, "metadata": 2, "before": 4, "unknown": 8}
    assert dict(sums.by_file.entries())[FILE].written == 4, "the file is known, whoever dirtied it"
    assert written_of(sums, "files", "metadata") == 2


def test_bytes_of_a_writer_whose_name_was_lost_are_unknown() -> None:
    sums = WriterSums()
    sums.take(reading({RowKey(Kind.DIRECT, 77, FILE): Amount(0, 10)}), 1.0, out_of_normal=False)
    assert written_of(sums, "processes", "unknown") == 10
    assert dict(sums.by_file.entries())[FILE].written == 10


def test_captured_bytes_that_no_program_saw_are_of_an_unknown_writer_once_they_stay_away() -> None:
    sums = WriterSums()
    rows = {RowKey(Kind.DIRECT, 1, FILE): Amount(0, 100)}
    sums.take(reading(rows, captured=150), 1.0, out_of_normal=False)
    assert written_of(sums, "processes", "unknown") == 50
    rows = {RowKey(Kind.DIRECT, 1, FILE): Amount(0, 150)}  # it was only on its way
    sums.take(reading(rows, captured=150), 1.0, out_of_normal=False)
    assert written_of(sums, "processes", "unknown") == 0 and sums.captured_bytes == 150
    for _ in range(3):
        sums.take(reading(rows, captured=170), 1.0, out_of_normal=False)
    assert written_of(sums, "groups", "unknown") == 20 and sums.captured_bytes == 170


def test_bytes_that_were_counted_twice_are_told_and_hidden_by_no_sum() -> None:
    sums = WriterSums()
    rows = {RowKey(Kind.DIRECT, 1, FILE): Amount(0, 100), RowKey(Kind.DIRECT, 2, None): Amount(0, 60)}
    for _ in range(3):
        sums.take(reading(rows, captured=130), 1.0, out_of_normal=False)
    answer = views(sums, Names())
    assert (answer["captured_bytes"], answer["counted_bytes"], answer["excess_bytes"]) == (160, 130, 30)
    sums.take(reading(rows, captured=160), 1.0, out_of_normal=False)
    assert views(sums, Names())["excess_bytes"] == 0


def test_a_row_that_was_taken_away_and_made_anew_is_counted_from_0() -> None:
    sums, key = WriterSums(), RowKey(Kind.DIRECT, 1, FILE)
    for written in (100, 100, 30, 50):
        sums.take(reading({key: Amount(0, written)}, captured=0), 1.0, out_of_normal=False)
    assert dict(sums.by_process.entries())[TAR.subject].written == 150


def test_a_row_that_was_taken_away_and_has_grown_beyond_what_it_was_is_counted_from_0() -> None:
    sums, key = WriterSums(), RowKey(Kind.DIRECT, 1, FILE)
    taken_away = WriterReading({key: Amount(0, 100)}, WRITERS, 100, ended=frozenset({key}))
    sums.take(taken_away, 1.0, out_of_normal=False)
    sums.take(reading({key: Amount(0, 150)}, captured=250), 1.0, out_of_normal=False)
    assert dict(sums.by_process.entries())[TAR.subject].written == 250 and sums.unseen_bytes == 0


def test_bytes_for_whose_row_there_was_no_room_are_their_writers_and_of_an_unknown_file() -> None:
    sums = WriterSums()
    rows = {
        RowKey(Kind.BUFFERED, 1, FILE): Amount(5, 5),
        RowKey(Kind.BUFFERED, 1, NO_ROOM): Amount(60, 50),
        RowKey(Kind.DIRECT, 2, NO_ROOM): Amount(0, 7),
    }
    sums.take(reading(rows), 1.0, out_of_normal=False)
    assert {subject: entry.written for subject, entry in sums.by_process.entries()} == {TAR.subject: 55, DD.subject: 7}
    assert {subject: entry.written for subject, entry in sums.by_group.entries()} == {31: 55, 32: 7}
    assert written_of(sums, "files", "unknown") == 57 and written_of(sums, "files", "no_file") == 0


def test_bytes_written_outside_of_normal_mode_are_counted_apart_and_forgotten_when_it_is_back() -> None:
    sums, key = WriterSums(), RowKey(Kind.DIRECT, 1, FILE)
    for written, out_of_normal, told in (
        (100, False, 0),
        (130, True, 30),
        (150, True, 50),
        (160, False, 0),
        (170, True, 10),
    ):
        sums.take(reading({key: Amount(0, written)}), 1.0, out_of_normal=out_of_normal)
        assert dict(sums.by_process.entries())[TAR.subject].out_of_normal == told


def test_a_process_that_changed_its_name_or_its_group_is_one_process() -> None:
    sums = WriterSums()
    rows = {RowKey(Kind.DIRECT, 1, FILE): Amount(0, 1)}
    sums.take(WriterReading(rows, {1: TAR}, 1), 1.0, out_of_normal=False)
    renamed = Writer(TAR.process, TAR.started_ns, 99, 0, False, b"gzip")
    rows = {**rows, RowKey(Kind.DIRECT, 5, FILE): Amount(0, 2)}
    sums.take(WriterReading(rows, {1: TAR, 5: renamed}, 3), 1.0, out_of_normal=False)
    assert dict(sums.by_process.entries()) and dict(sums.by_process.entries())[TAR.subject].written == 3
    assert sums.process(TAR.subject) == renamed
    assert {number: entry.written for number, entry in sums.by_group.entries()} == {31: 1, 99: 2}


@pytest.mark.parametrize("known", [True, False])
def test_a_process_that_is_not_known_any_more_has_no_name(known: bool) -> None:
    sums = WriterSums()
    sums.take(reading({}), 1.0, out_of_normal=False)
    assert (sums.process(TAR.subject if known else Process(1, 1)) is not None) == known
