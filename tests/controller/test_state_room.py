"""The state file of a secondary on a disk that is full, or that became read-only: it waits, and the room for it is held."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller.secondary import engine as secondary_engine
from pydbt.controller.secondary.engine import RESERVE_NAME, STATE_RESERVE_BYTES, PersistFailed
from pydbt.controller.secondary.service import SecondaryService
from pydbt.core.errors import StateError
from tests.controller.test_secondary_end import SIZE, options

__all__ = ["options"]


def test_a_disk_that_became_read_only_is_waited_for(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = SecondaryService(options)

    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def refuses(*_: Any) -> None:
        raise StateError("replica.json cannot be written: Read-only file system")

    try:
        with monkeypatch.context() as patched:
            patched.setattr(secondary_engine, "save_record", refuses)
            patched.setattr(Path, "unlink", read_only)
            with pytest.raises(PersistFailed, match="Read-only"):
                service._engine._persist(service._engine.brain.record)
    finally:
        service.close()


@pytest.mark.parametrize("left_bytes", [0, STATE_RESERVE_BYTES // 2])
def test_the_room_for_the_state_file_is_held_again_after_a_time_without_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_bytes: int
) -> None:
    reserve = tmp_path / RESERVE_NAME

    def full(descriptor: int, offset: int, length: int) -> None:
        os.ftruncate(descriptor, left_bytes)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        secondary_engine._hold_reserve(reserve)
    assert not reserve.exists()
    reserve.write_bytes(bytes(left_bytes))  # as an earlier version left it
    reserve.chmod(0o600)
    secondary_engine._hold_reserve(reserve)
    assert reserve.stat().st_size == STATE_RESERVE_BYTES
    assert reserve.stat().st_blocks * 512 >= STATE_RESERVE_BYTES


def test_a_start_removes_what_killed_writes_left(options: Any) -> None:
    left = options.state_dir / ".replica.json.0123abcd.new"
    left.write_bytes(b"{")
    SecondaryService(options).close()
    assert not left.exists()


def test_a_first_start_on_a_full_disk_is_one_sentence_and_nothing_is_left(
    options: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = os.mkdir

    def mkdir(path: Any, mode: int = 0o777, **more: Any) -> None:
        if Path(path).name == "journal":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        made(path, mode, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    new = replace(options, target=tmp_path / "new", state_dir=tmp_path / "new-state", create_bytes=SIZE)
    with pytest.raises(StateError, match=r"journal cannot be made: No space left on device"):
        SecondaryService(new)
    assert not new.target.exists() and not new.state_dir.exists()
