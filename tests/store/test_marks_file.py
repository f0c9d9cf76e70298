"""The file of marks: whole or told to be damaged, never taken for none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.core.checksum import with_checksum
from pydbt.core.errors import StateError
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.secondary.held_marks import HeldMarks
from pydbt.store.marks_file import MARKS_FILE_NAME, load_marks, save_marks

HELD = HeldMarks().with_mark(NamedMark(5, 9, "a", 1, 2, synced=True), 7)


def test_marks_come_back_and_none_are_there_without_the_file(tmp_path: Path) -> None:
    assert load_marks(tmp_path) == HeldMarks()
    save_marks(tmp_path, HELD)
    assert load_marks(tmp_path) == HELD


def test_a_file_that_is_torn_or_newer_is_refused_with_a_sentence(tmp_path: Path) -> None:
    save_marks(tmp_path, HELD)
    path = tmp_path / MARKS_FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(StateError, match="is damaged"):
        load_marks(tmp_path)
    path.write_bytes(with_checksum(b'{"version": 2, "marks": []}', b"\n"))
    with pytest.raises(StateError, match="newer version"):
        load_marks(tmp_path)
    path.write_bytes(with_checksum(b'{"version": 1, "marks": [{"epoch": "1", "mark": "00"}]}', b"\n"))
    with pytest.raises(StateError, match="is damaged"):
        load_marks(tmp_path)
