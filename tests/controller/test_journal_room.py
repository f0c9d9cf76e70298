"""The disk of a secondary's state directory is looked at before its journal grows there."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pydbt.controller import journal_room
from pydbt.controller.journal_room import require_journal_room, warn_of_journal_room
from pydbt.core.errors import UsageError
from pydbt.core.units import GIB, MIB


@pytest.mark.parametrize(("free", "warned"), [(8 * GIB, False), (100 * MIB, True)])
def test_room_that_others_use_is_a_warning_and_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free: int, warned: bool
) -> None:
    disk = SimpleNamespace(f_blocks=16 * GIB // 4096, f_frsize=4096, f_bfree=free // 4096, f_bavail=free // 4096)
    monkeypatch.setattr(journal_room.os, "statvfs", lambda _: disk)
    require_journal_room(tmp_path / "not" / "made", GIB)
    warn_of_journal_room(tmp_path, GIB)
    assert ("its disk lacks 988 MiB" in caplog.text) == warned


def test_a_segment_that_goes_away_during_the_look_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(_: object) -> os.statvfs_result:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(journal_room.os, "statvfs", gone)
    warn_of_journal_room(tmp_path, GIB)
    assert not caplog.records


def test_a_disk_that_is_too_small_for_any_journal_is_not_advised_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(f_blocks=8 * MIB // 4096, f_frsize=4096, f_bfree=2048, f_bavail=2048)
    monkeypatch.setattr(journal_room.os, "statvfs", lambda _: disk)
    with pytest.raises(UsageError, match=r"8\.0 MiB in all: name a directory on a larger disk"):
        require_journal_room(tmp_path, GIB)
