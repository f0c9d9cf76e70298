"""Where a side waits for its primary outlives a reboot, and is written when it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.core.errors import StateError
from pydbt.store.listen_file import LISTEN_FILE_NAME, load_listen, save_listen


def test_the_address_is_there_after_it_was_saved_and_the_last_one_counts(tmp_path: Path) -> None:
    assert load_listen(tmp_path) == ""
    for address in ("10.0.0.1:7790", "[fe80::1%eth0]:7790", "unix:/run/x.sock"):
        save_listen(tmp_path, address)
        assert load_listen(tmp_path) == address
    written = (tmp_path / LISTEN_FILE_NAME).stat()
    save_listen(tmp_path, "unix:/run/x.sock")
    assert (tmp_path / LISTEN_FILE_NAME).stat().st_ino == written.st_ino, "nothing is written that is known"


def test_a_file_that_cannot_be_read_is_named_and_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / LISTEN_FILE_NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(StateError, match=LISTEN_FILE_NAME):
        load_listen(tmp_path)
    save_listen(tmp_path, "10.0.0.1:7790")
    assert load_listen(tmp_path) == "10.0.0.1:7790"
