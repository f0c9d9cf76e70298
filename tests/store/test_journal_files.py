"""The journal returns exactly its durable records, in order, also when torn, stale or reused records lie behind them."""

from __future__ import annotations

import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.errors import StateError
from pydbt.core.protocol.frames import Begin, Blocks, Commit, Stream
from pydbt.core.secondary.journal import JournalRecordKind, entry_bytes, record_epoch, record_extents
from pydbt.core.units import MIB
from pydbt.posix import files as posix_files
from pydbt.store import journal_files
from pydbt.store.journal_files import SPARE_SEGMENTS, JournalFiles, JournalFull
from tests.simulation.cluster.disk import Machine
from tests.simulation.cluster.files import Files, SimOs, SimPath

SEGMENT = 64 * 1024


def stream(sequence: int, sectors: int = 1, fill: int | None = None) -> Stream:
    data = bytes([(sequence if fill is None else fill) % 256]) * (512 * sectors)
    return Stream(sequence, sequence, SectorTable.of([sequence], [sectors]), (data,))


def opened(folder: Path, checkpoint: int = 0, tail: int = 0, incarnation: int = 1, **options: int) -> JournalFiles:
    journal = JournalFiles(folder, segment_bytes=SEGMENT, most_reserved_bytes=0, **options)
    journal.start(checkpoint, tail, incarnation)
    return journal


def sequences(folder: Path, checkpoint: int = 0, incarnation: int = 1, trusted: int | None = None) -> list[int]:
    journal = JournalFiles(folder, segment_bytes=SEGMENT, most_reserved_bytes=0)
    found = journal.recover(checkpoint, incarnation, trusted)
    result = [header.first for header, _ in found if header.kind is not JournalRecordKind.PAD]
    journal.close()
    return result


def segment(folder: Path, position: int = 0) -> Path:
    return folder / f"{position // SEGMENT * SEGMENT:016x}.journal"


def test_appended_records_come_back_in_order_across_segments(tmp_path):
    journal = opened(tmp_path)
    ends = journal.append([stream(n, 1 + n % 40) for n in range(1, 41)])
    journal.sync()
    journal.close()
    assert sequences(tmp_path) == list(range(1, 41))
    assert len(list(tmp_path.iterdir())) > 4
    assert ends == sorted(ends)


def test_every_kind_of_record_comes_back_with_its_content(tmp_path):
    journal = opened(tmp_path)
    blocks = Blocks(4, SectorTable.of([8, 100], [2, 50], [1, 3]), (b"a" * 512, b"b" * 512))
    journal.append([Begin(3, 77, 1000), blocks, (Commit(3, 9), 78), stream(10)])
    journal.sync()
    records = list(journal.recover(0, 1))
    assert [header.kind.name for header, _ in records] == ["BEGIN", "BLOCKS", "COMMIT", "STREAM"]
    assert [record_epoch(*record) for record in records] == [77, 0, 78, 0]
    extents, payload = record_extents(*records[1])
    assert extents == blocks.extents and bytes(payload) == b"a" * 512 + b"b" * 512
    assert (records[2][0].first, records[2][0].last) == (3, 9)
    journal.close()


def test_a_torn_tail_ends_the_journal_wherever_it_is_torn(tmp_path):
    journal = opened(tmp_path)
    *_, before, end = journal.append([stream(n, 2) for n in range(1, 6)])
    journal.close()
    whole = segment(tmp_path).read_bytes()
    for torn_at in range(before, end - entry_bytes(stream(1, 2)) % 64, 32):
        damaged = bytearray(whole)
        damaged[torn_at : torn_at + 1] = bytes([damaged[torn_at] ^ 0x55])
        segment(tmp_path).write_bytes(damaged)
        found = sequences(tmp_path)
        assert found in ([1, 2, 3, 4], [1, 2, 3, 4, 5])
        padding = torn_at >= before + 64 + 16 + 1024
        assert (len(found) == 5) == padding


def test_an_intact_record_behind_a_torn_one_is_never_taken_for_its_successor(tmp_path):
    journal = opened(tmp_path)
    ends = journal.append([stream(n) for n in range(1, 6)])
    journal.close()
    # The machine stopped before 3 was whole; 4 and 5 are. After the restart another 3 of the same size is written.
    with segment(tmp_path).open("r+b") as file:
        file.seek(ends[1] + 10)
        file.write(b"\xff" * 20)
    assert sequences(tmp_path) == [1, 2]
    journal = opened(tmp_path, 0, ends[1], 2)
    journal.append([stream(3, fill=99)])
    journal.sync()
    journal.close()
    assert sequences(tmp_path, incarnation=2) == [1, 2, 3]


def test_a_recycled_segment_s_old_records_are_never_taken_for_new_ones(tmp_path):
    journal = opened(tmp_path)
    position = 0
    for n in range(1, 60):
        (position,) = journal.append([stream(n, 20)])
        journal.free(position)
    journal.sync()
    assert len(list(tmp_path.iterdir())) <= SPARE_SEGMENTS + 2
    start = position // SEGMENT * SEGMENT
    found = sequences(tmp_path, start)
    assert found == list(range(60 - len(found), 60))
    journal.close()


def test_names_are_durable_before_their_content_counts_as_durable(tmp_path):
    """The folder is synced when a segment gets its name; here: the file is there and of full size at once."""
    journal = opened(tmp_path)
    journal.append([stream(1)])
    assert segment(tmp_path).stat().st_size == SEGMENT
    assert os.stat(segment(tmp_path)).st_blocks * 512 >= SEGMENT, "its room is reserved"
    journal.close()


def test_records_from_the_trusted_end_on_are_not_looked_at(tmp_path):
    journal = opened(tmp_path)
    ends = journal.append([stream(n) for n in range(1, 6)])
    journal.close()
    assert sequences(tmp_path, trusted=ends[2]) == [1, 2, 3]


def test_a_full_journal_takes_entries_that_fit_and_continues_after_a_segment_is_freed(tmp_path):
    journal = opened(tmp_path, limit_bytes=2 * SEGMENT)
    ends = journal.append([stream(n, 20) for n in range(1, 30)])
    assert 0 < len(ends) < 29
    with pytest.raises(JournalFull, match="limit"):
        journal.append([stream(100, 20)])
    journal.sync()
    journal.free(ends[-1])
    journal.resume(ends[-1], 2)
    journal.append([stream(100, 20)])
    journal.sync()
    assert sequences(tmp_path, ends[-1] // SEGMENT * SEGMENT, incarnation=2)[-1] == 100
    journal.close()


def test_a_stage_may_go_past_the_limit(tmp_path):
    journal = opened(tmp_path, limit_bytes=2 * SEGMENT)
    assert len(journal.append([stream(n, 20) for n in range(1, 30)], unlimited=True)) == 29
    journal.close()


def test_a_disk_without_room_is_a_full_journal_and_not_a_broken_one(tmp_path):
    journal = JournalFiles(tmp_path, segment_bytes=SEGMENT, most_reserved_bytes=1 << 60)
    journal.start(0, 0, 1)
    assert journal.room_bytes() == 0
    with pytest.raises(JournalFull, match="full"):
        journal.append([stream(1)])
    journal.close()


def test_a_small_disk_that_the_journal_fits_is_used_to_its_limit(tmp_path, monkeypatch):
    disk = SimpleNamespace(
        f_blocks=37 * MIB // 4096, f_frsize=4096, f_bfree=36 * MIB // 4096, f_bavail=36 * MIB // 4096
    )
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    journal = JournalFiles(tmp_path, segment_bytes=16 * MIB, limit_bytes=16 * MIB)
    journal.start(0, 0, 1)
    assert journal.room_bytes() > 0 and journal.append([stream(1)])
    disk.f_bavail = disk.f_bfree = 17 * MIB // 4096
    assert journal.room_bytes() < 16 * MIB, "some room is still left to others"
    journal.close()


def test_a_failed_write_is_one_error(tmp_path):
    journal = opened(tmp_path)
    segment(tmp_path).mkdir()
    with pytest.raises(StateError, match="cannot be written"):
        journal.append([stream(1)])
    journal.close()


def test_reading_stops_at_the_end_of_a_segment(tmp_path):
    journal = opened(tmp_path)
    journal.append([stream(n, 60) for n in range(1, 6)])
    view = memoryview(bytearray(4 * SEGMENT))
    assert journal.read_into(SEGMENT - 100, view) == 100
    assert journal.read_into(0, view) == SEGMENT
    journal.close()


@pytest.mark.parametrize("disk_fails", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_records_found_at_a_start_survive_a_loss_of_power(monkeypatch, seed, disk_fails):
    """A start tells its primary where it stands: of records that a killed process left in the cache, or failed to sync."""
    rng = random.Random(seed)
    machine = Machine("secondary")
    files, simulated_os = Files(machine), SimOs(rng)
    monkeypatch.setattr(journal_files, "os", simulated_os)
    monkeypatch.setattr(posix_files, "os", simulated_os)
    folder = SimPath("/journal", files)
    journal = opened(folder)
    journal.append([stream(n, 40) for n in range(1, 3)])
    journal.sync()
    journal.append([stream(n, 40) for n in range(3, 9)])  # more than two segments
    if disk_fails:
        machine.trouble = True
        with pytest.raises(StateError):
            journal.sync()
        machine.trouble = False
    again = JournalFiles(folder, segment_bytes=SEGMENT, most_reserved_bytes=0)  # the process was killed
    records = list(again.recover(0, 1))
    found = [header.first for header, _ in records if header.kind is not JournalRecordKind.PAD]
    assert found[:2] == [1, 2]
    again.start(0, records[-1][0].end, 2)
    files.crash(rng)
    assert sequences(folder, incarnation=2) == found
