"""Files that are replaced: nothing is left of a write that was killed, and nothing else is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydbt.posix import atomic
from pydbt.posix.atomic import remove_unfinished, replace_file


class Killed(BaseException):
    """In the place of a signal."""


def test_the_file_that_a_killed_write_left_is_removed_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "volume.json"
    replace_file(kept, b"before")

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(Killed):
            replace_file(kept, b"after")
    assert len(list(tmp_path.iterdir())) == 2
    others = [tmp_path / name for name in ("x.new", ".x.new", ".x.0123456.new", "x.01234567.new", ".x.0123456Z.new")]
    for other in others:
        other.write_bytes(b"somebody else's")
    (tmp_path / ".link.01234567.new").symlink_to(kept)
    (tmp_path / ".folder.01234567.new").mkdir()
    remove_unfinished(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"volume.json", ".link.01234567.new", ".folder.01234567.new", *(other.name for other in others)}
    assert kept.read_bytes() == b"before"


def test_a_folder_that_is_not_there_or_cannot_be_read_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_unfinished(tmp_path / "none")
    (tmp_path / ".x.01234567.new").write_bytes(b"")

    def refuses(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(atomic.os, "unlink", refuses)
    remove_unfinished(tmp_path)
