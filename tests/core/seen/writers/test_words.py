"""The writers, in one line."""

from __future__ import annotations

from pydbt.core.seen.view import View
from pydbt.core.seen.writers.words import writers_words


def test_subjects_that_write_now_are_named_with_their_rate() -> None:
    top = [
        {"kind": "process", "name": "tar", "group": "backup.service", "written_rate_bytes": 12 << 20},
        {"kind": "journal", "name": "journal", "group": "", "written_rate_bytes": 1024},
        {"kind": "process", "name": "idle", "group": "", "written_rate_bytes": 0},
    ]
    assert (
        writers_words(View({"state": "attached", "problem": "", "top": top}))
        == "tar (backup.service) 12.0 MiB per second, journal 1.0 KiB per second"
    )


def test_a_problem_is_told_and_nothing_where_nobody_watches() -> None:
    assert writers_words(View({"state": "idle", "problem": "no BTF", "top": []})) == "unknown: no BTF"
    assert writers_words(View({"state": "idle", "problem": "", "top": []})) == ""
    assert writers_words(View(None)) == ""


def test_hostile_names_are_one_printable_line() -> None:
    words = writers_words(View({"top": [{"name": "a\x1b[2J\n", "group": "\u202e", "written_rate_bytes": 1}]}))
    assert words.isprintable()
