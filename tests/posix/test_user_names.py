"""Users of this machine by their numbers."""

from __future__ import annotations

from pathlib import Path

from pydbt.posix.user_names import user_names


def test_a_number_has_the_first_name_of_its_lines_and_lines_that_are_none_are_left_out(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_bytes(
        b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0:::\n\n#\nann\xff:x:1000:1000:::\nno:x:none:1:::\n+::::::\n"
    )
    assert user_names(passwd) == {0: b"root", 1000: b"ann\xff"}


def test_without_the_file_nobody_has_a_name(tmp_path: Path) -> None:
    assert user_names(tmp_path / "none") == {}


def test_root_is_called_root_here() -> None:
    assert user_names()[0] == b"root"
