"""The log of a volume that is in use: its newest whole transaction, and where it tells of the last changes."""

from __future__ import annotations

import struct

import pytest

from pydbt.core.transactions.likely_changes import MAX_LIKELY_RUNS, likely_changes
from pydbt.core.transactions.on_disk import read_log, read_newest
from pydbt.core.units import Geometry
from tests.core.transactions.test_changed_files import inode
from tests.core.transactions.test_on_disk import Ext4Image
from tests.lab.file_system_logs import FAST, REVOKES, V3, WIDE, Jbd2Builder, XfsBuilder, fast_commit


def newest(image: Ext4Image) -> str | None:
    found = read_newest(image.read, len(image.content))
    return None if found is None else found.name


def test_the_newest_whole_transaction_of_ext4_is_the_one_that_recovery_ends_with() -> None:
    built = Jbd2Builder(1024, 64, sequence=40)
    for number in range(3):
        built.transaction(number, number + 9)
    built.descriptor({5: bytes(1024)})
    image = Ext4Image(built)
    image.put((0, built.superblock()), *built.writes)
    assert newest(image) == "42"
    image.put((0, built.superblock(start=9, sequence=42)))
    assert newest(image) == "42", "those before were written back"
    image.put((0, built.superblock(start=13, sequence=43)))
    assert newest(image) == "42", "it is in its place, and nothing behind it is whole"
    image.put((0, built.superblock(start=0, sequence=43)))
    assert newest(image) == "42", "after an unmount"


def test_a_new_journal_has_no_newest_transaction() -> None:
    built = Jbd2Builder(1024, 64, sequence=1)
    image = Ext4Image(built)
    image.put((0, built.superblock(start=0)))
    assert newest(image) is None


def test_a_fast_commit_is_the_newest_one() -> None:
    built = Jbd2Builder(1024, 1300, REVOKES | WIDE | V3 | FAST, fast_blocks=256)
    built.transaction(5)
    image = Ext4Image(built)
    block = fast_commit(8, [], 1024, True)
    image.put((0, built.superblock()), *built.writes, (1045 * 1024, block))
    whole = [name for name, state, _ in image.names() if state == "committed"]
    assert newest(image) == whole[-1] == "8.1"


class XfsImage:
    """A volume with nothing but the superblock and the log of an XFS."""

    def __init__(self, built: XfsBuilder) -> None:
        self.built = built
        self.content = bytearray(65536 + built.log_sectors * 512)
        self.content[: len(built.superblock())] = built.superblock()
        self.reads = 0
        self.meanwhile: list[tuple[int, bytes]] = []

    def put(self, writes: list[tuple[int, bytes]]) -> None:
        for offset, data in writes:
            self.content[65536 + offset : 65536 + offset + len(data)] = data

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        found = bytes(self.content[offset : offset + length])
        if length > 4096 and self.meanwhile:
            self.put([self.meanwhile.pop()])
        return found

    def newest(self) -> str | None:
        found = read_newest(self.read, 1 << 28)
        return None if found is None else found.name


@pytest.mark.parametrize("count", [1, 40, 300])
def test_the_newest_checkpoint_of_xfs_is_found_wherever_the_head_is(count: int) -> None:
    built = XfsBuilder(log_sectors=512)
    for tid in range(count):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
    image = XfsImage(built)
    image.put(built.writes)
    log = read_log(image.read, 1 << 28)
    assert log.newest_whole is not None
    assert image.newest() == log.newest_whole.transaction.name


def test_behind_a_hole_no_checkpoint_counts() -> None:
    built = XfsBuilder(log_sectors=512)
    for tid in range(20):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
    image = XfsImage(built)
    image.put(built.writes[:17] + built.writes[18:])
    assert image.newest() == "3:32"


def test_a_damaged_record_ends_what_counts() -> None:
    built = XfsBuilder(log_sectors=512)
    for tid in range(20):
        record = built.record(built.checkpoint(tid, built.buffer(8 * tid, 8)), spoil="sum" if tid == 12 else "")
        built.write(record)
    image = XfsImage(built)
    image.put(built.writes)
    assert image.newest() == "3:22"


def test_while_the_log_is_written_its_newest_checkpoint_is_unknown() -> None:
    """A record may have come to lie before others that were not there when it was read."""
    built = XfsBuilder(log_sectors=512)
    for tid in range(20):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
    image = XfsImage(built)
    image.put(built.writes[:18])
    image.meanwhile = built.writes[18:]
    assert image.newest() is None
    assert image.newest() == "3:38"


def test_a_log_that_was_never_written_has_no_newest_transaction() -> None:
    assert XfsImage(XfsBuilder(log_sectors=512)).newest() is None


def test_a_large_log_is_not_read_as_a_whole() -> None:
    built = XfsBuilder(log_sectors=131_072, sector=60_000)
    for tid in range(30):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
    image = XfsImage(built)
    image.put([(place, struct.pack(">I", 3) * 128) for place in range(0, 60_000 * 512, 512)])
    image.put(built.writes)
    assert image.newest() == "3:60058"
    assert image.reads < 60


def test_the_blocks_changed_last_come_first_and_the_whole_log_at_the_end() -> None:
    built = Jbd2Builder(1024, 400, sequence=40)
    for number in (100, 200, 300):
        built.transaction(number, number + 9)
    image = Ext4Image(built)
    image.put((0, built.superblock()), *built.writes)
    found = likely_changes(image.read, Geometry(len(image.content), 1024))
    runs = list(zip(found.firsts.tolist(), found.counts.tolist(), strict=True))
    assert runs[0] == (0, 1) and runs[1] == (24, 1), "the superblocks"
    assert runs[2][0] == 24 + 13, "behind the last commit, where the replica may have more"
    assert runs[-1] == (24, 400)
    named = [first for first, count in runs if count == 1 and first >= 100]
    assert named == [300, 309, 200, 209, 100, 109]
    assert runs.index((24 + 9, 4)) < runs.index((300, 1)) < runs.index((24 + 5, 4)), "each with its part of the log"


def test_the_data_of_files_that_were_changed_comes_before_what_transactions_name() -> None:
    built = Jbd2Builder(1024, 400, sequence=40)
    table = inode(900, (390, 2)) + inode(950, (380, 1)) + inode(990, (300, 60)) + bytes(256)
    built.descriptor({100: table})
    built.commit()
    image = Ext4Image(built)
    image.put((0, built.superblock()), *built.writes)
    geometry = Geometry(1 << 20, 1024)
    found = likely_changes(image.read, geometry)
    runs = list(zip(found.firsts.tolist(), found.counts.tolist(), strict=True))
    assert runs[-3:] == [(25, 3), (100, 1), (24, 400)] and (390, 2) not in runs, (
        "the newest file is larger than their part"
    )
    image.put(*((offset, data.replace(inode(990, (300, 60)), bytes(256))) for offset, data in built.writes))
    found = likely_changes(image.read, geometry)
    runs = list(zip(found.firsts.tolist(), found.counts.tolist(), strict=True))
    assert runs[-5:] == [(380, 1), (390, 2), (25, 3), (100, 1), (24, 400)]


def test_the_blocks_that_an_xfs_changed_last_come_first() -> None:
    built = XfsBuilder(log_sectors=512)
    for tid in range(20):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid + 800, 8))))
    image = XfsImage(built)
    image.put(built.writes)
    found = likely_changes(image.read, Geometry(1 << 28, 4096))
    named = [first for first in found.firsts.tolist() if 100 <= first < 200]
    assert named == list(range(119, 99, -1))
    assert (found.firsts[-1], found.counts[-1]) == (16, 64)


def test_a_block_outside_of_the_volume_that_a_log_names_is_left_out() -> None:
    built = Jbd2Builder(1024, 400)
    built.transaction(100, 1 << 40)
    image = Ext4Image(built)
    image.put((0, built.superblock()), *built.writes)
    geometry = Geometry(len(image.content), 4096)
    found = likely_changes(image.read, geometry)
    assert 25 in found.firsts and int(found.ends().max()) <= geometry.block_count


def test_a_log_that_names_very_much_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Jbd2Builder(1024, 400, sequence=40)
    for number in range(60):
        built.transaction(1000 + number, 2000 + number)
    image = Ext4Image(built)
    image.put((0, built.superblock()), *built.writes)
    assert MAX_LIKELY_RUNS * 16 == 1 << 20
    monkeypatch.setattr("pydbt.core.transactions.likely_changes.MAX_LIKELY_RUNS", 50)
    found = likely_changes(image.read, Geometry(1 << 30, 1024)).firsts.tolist()
    assert len(found) == 50 and 2059 in found and 1000 not in found
