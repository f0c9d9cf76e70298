"""Marks as people read them: the name, its moment, who holds it, and what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pydbt.cli.last_mark import last_mark_line
from pydbt.cli.mark_words import mark_name, marks_words, replica_marks_words
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.secondary.held_marks import HeldMarks
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.seen.view import View
from pydbt.store.marks_file import MARKS_FILE_NAME, save_marks
from pydbt.store.replica_state import save_record

MARK = {
    "name": "before migration 14", "moment": "2026-01-02T03:04:05.678Z", "synced": True, "partly": False, "held_by": ["a:1"],
    "not_held_by": [], "perhaps_held_by": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, '"before migration 14" (2026-01-02 03:04:05 UTC) held by a:1'),
        (
            {"before_boot": True, "moment": None},
            '"before migration 14" held by a:1, but set before the primary\'s machine was started: perhaps not whole there since',
        ),
        ({"synced": False}, '"before migration 14" (2026-01-02 03:04:05 UTC) held by a:1, without sync'),
        ({"partly": True, "moment": None}, '"before migration 14" held by a:1, not everything synced'),
        ({"held_by": [], "moment": None}, '"before migration 14" not acknowledged yet'),
        ({"not_held_by": ["b:2"], "moment": None}, '"before migration 14" held by a:1, not by b:2'),
        ({"held_by": [], "not_held_by": ["b:2"], "moment": None}, '"before migration 14" held by nobody, not by b:2'),
        ({"perhaps_held_by": ["b:2"], "moment": None}, '"before migration 14" held by a:1, unknown of b:2'),
        (
            {"held_by": [], "perhaps_held_by": ["b:2"], "moment": None},
            '"before migration 14" not known to be held, unknown of b:2',
        ),
        (
            {"held_by": [], "not_held_by": ["b:2"], "perhaps_held_by": ["c:3"], "moment": None},
            '"before migration 14" not known to be held, not by b:2, unknown of c:3',
        ),
    ],
)
def test_a_mark_tells_who_holds_it_and_what_it_lacks(changes: dict[str, Any], words: str) -> None:
    assert marks_words(View({"marks": [MARK | changes]})) == words


def test_the_newest_three_are_shown_and_none_are_nothing() -> None:
    marks = [{**MARK, "name": name, "moment": None} for name in "abcd"]
    assert replica_marks_words(View({"marks": marks})) == '"a"; "b"; "c"'
    assert marks_words(View({})) == replica_marks_words(View({"marks": []})) == ""
    marks = [{**MARK, "name": "a", "moment": None, "resynchronized": True}]
    assert replica_marks_words(View({"marks": marks})) == '"a", resynchronized since by another run of a primary'
    assert mark_name(View({"name": "\x1b[2J"})) == '"\\x1b[2J"'


def test_a_promotion_names_the_last_mark_and_whether_anything_was_written_behind_it(tmp_path: Path) -> None:
    record = ReplicaRecord("ab" * 16, "t", 4096, volume="cd" * 16, consistent=True, epoch=7, sequence=5)
    save_record(tmp_path, record)
    assert last_mark_line(tmp_path) == "it holds no mark of 'controller mark'"
    for sequence, words in ((5, "and nothing that was written behind it"), (4, "it has writes behind that as well")):
        save_marks(tmp_path, HeldMarks().with_mark(NamedMark(sequence, 9, "a", 1, 2, synced=True), 7))
        line = last_mark_line(tmp_path)
        assert line.startswith('the last mark that it holds is "a" (1970-01-01 00:00:00 UTC)') and line.endswith(words)
    save_marks(tmp_path, HeldMarks().with_mark(NamedMark(5, 9, "a", 1, 2, synced=True), 6))
    assert "resynchronized since" in last_mark_line(tmp_path), "the image is of another run"
    (tmp_path / MARKS_FILE_NAME).write_bytes(b"torn")
    assert last_mark_line(tmp_path).startswith("its last mark is unknown: ")
