"""Text of others stays text: it ends no line, moves no cursor, and names nothing that is not seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words: 10.0.0.2:7790", "plain words: 10.0.0.2:7790"),
        ("Größe, 大きさ", "Größe, 大きさ"),
        (
            "x\n2026-11-28T16:00:00.000Z info    normal: in sync",
            "x\\x0a2026-11-28T16:00:00.000Z info    normal: in sync",
        ),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\r\x9b1A\x7f", "\\x0d\\x9b1A\\x7f"),
        ("ab\u202ecd\u2066\u2028", "ab\\u202ecd\\u2066\\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_a_character_that_is_not_printable_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_any_text_is_one_printable_line_that_can_be_encoded(text: str) -> None:
    assert printable(text).isprintable()
    printable(text).encode("utf-8")
