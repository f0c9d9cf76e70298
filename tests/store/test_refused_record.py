"""A record that was refused must not be there after a crash."""

from __future__ import annotations

import contextlib
import errno
import os

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.protocol import frames as f
from pydbt.store import journal_files
from pydbt.store.journal_files import JournalFiles, JournalFull


def test_a_record_that_was_refused_for_want_of_room_is_not_found_after_a_crash(tmp_path, monkeypatch):
    """Refused blocks go straight to the target; found in the journal they would be put over newer ones."""
    journal = JournalFiles(tmp_path / "journal", segment_bytes=65536, most_reserved_bytes=0)
    journal.start(0, 0, 1)
    entries = [
        f.Blocks(batch=number, extents=SectorTable.of([0], [64]), payload=(bytes([number]) * 32768,))
        for number in (1, 2)
    ]
    real = os.posix_fallocate

    def second_fails(descriptor, offset, length):
        monkeypatch.setattr(journal_files.os, "posix_fallocate", fails)
        return real(descriptor, offset, length)

    def fails(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal_files.os, "posix_fallocate", second_fails)
    ends: list[int] = []
    with contextlib.suppress(JournalFull):
        ends = journal.append(entries)
    monkeypatch.undo()
    journal.close()
    again = JournalFiles(tmp_path / "journal", segment_bytes=65536, most_reserved_bytes=0)
    found = [header.end for header, _ in again.recover(0, 2) if header.kind == 3]
    again.close()
    assert found == ends
