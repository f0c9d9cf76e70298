"""Logs that a kernel wrote: their transactions are those that ``debugfs logdump`` shows of the same volume."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable

import pytest

from pydbt.core.transactions.jbd2_blocks import NotUnderstood
from pydbt.core.transactions.on_disk import read_log
from tests.core.transactions.recorded import SAMPLES, Recorded
from tests.lab.file_system_logs import FAST, REVOKES, V3, WIDE, Jbd2Builder, XfsBuilder, fast_commit, with_xfs_sum

EXT4 = sorted(path.stem for path in SAMPLES.glob("*.logdump"))
XFS = sorted(path.stem for path in SAMPLES.glob("*.logprint"))
Change = tuple[int, str, int]  # a place on the volume, and what stands there then


def shown_by_logdump(text: str) -> dict[str, list[int]]:
    """The committed transactions in the output of ``debugfs -R "logdump -a"``, with the blocks that each names."""
    found: dict[str, list[int]] = {}
    named: list[int] = []
    for line in text.splitlines():
        if match := re.search(r"FS block (\d+) logged", line):
            named.append(int(match[1]))
        elif match := re.search(r"expected sequence (\d+), type 2", line):
            found[match[1]], named = named, []
    return found


def fast_commits_of_logdump(text: str) -> list[str]:
    """The names of the fast commits in that output, in which only the number of each is shown."""
    return [f"{number}.{count}" for count, number in enumerate(re.findall(r"tag TAIL, tid (\d+)", text), start=1)]


def shown_by_logprint(text: str) -> list[str]:
    """The log sequence numbers of records with a commit, one for each whose start is shown too, in ``xfs_logprint``'s output."""
    shown: list[str] = []
    started: set[str] = set()
    lsn = ""
    for line in text.splitlines():
        if match := re.search(r"\blsn: (\d+),(\d+)", line):
            lsn = f"{match[1]}:{match[2]}"
        elif match := re.search(r"tid: (\w+) .*flags: START", line):
            started.add(match[1])
        elif (match := re.search(r"tid: (\w+) .*flags: COMMIT", line)) and match[1] in started:
            shown.append(lsn)
    return shown


@pytest.mark.parametrize("name", EXT4)
def test_the_transactions_of_ext4_are_those_of_debugfs(name: str) -> None:
    volume = Recorded(name)
    log = read_log(volume.read, volume.size_bytes)
    whole = [one.transaction for one in log.transactions if "." not in one.transaction.name]
    found = {one.name: (one.named[:, 0] // log.block_bytes).tolist() for one in whole}
    shown = (SAMPLES / f"{name}.logdump").read_text()
    assert found == shown_by_logdump(shown)
    assert [one.transaction.name for one in log.transactions][len(whole) :] == fast_commits_of_logdump(shown)
    assert all(one.replayed for one in log.transactions)
    times = [one.committed_ns for one in whole]
    assert times == sorted(times) and None not in times


@pytest.mark.parametrize("name", XFS)
def test_the_transactions_of_xfs_are_those_of_logprint(name: str) -> None:
    volume = Recorded(name)
    log = read_log(volume.read, volume.size_bytes)
    assert [one.transaction.name for one in log.transactions] == shown_by_logprint(
        (SAMPLES / f"{name}.logprint").read_text()
    )
    assert all(one.replayed and len(one.transaction.named) for one in log.transactions)


def test_the_samples_are_there() -> None:
    assert len(EXT4) >= 3 and len(XFS) >= 2


class Ext4Image:
    """An ext4 with nothing but a superblock, a group and a journal; the journal is one extent, or an old block map."""

    def __init__(self, journal: Jbd2Builder, extents: bool = True, pieces: int = 1) -> None:
        self.journal, self.block = journal, journal.block_bytes
        self.content = bytearray(self.block * (journal.block_count + 64))
        scale = {1024: 0, 2048: 1, 4096: 2}[self.block]
        blocks = len(self.content) // self.block
        self.set(1024, "<IIIII", 32, blocks, 0, 0, 0)
        self.set(1024 + 0x14, "<III", int(scale == 0), scale, scale)
        self.set(1024 + 0x20, "<III", 8192, 8192, 32)
        self.set(1024 + 0x38, "<H", 0xEF53)
        self.set(1024 + 0x4C, "<I", 1)
        self.set(1024 + 0x58, "<H", 256)
        self.set(1024 + 0x5C, "<II", 0x4, 0x40)
        self.set(1024 + 0xE0, "<I", 8)
        group, table = self.block * (2 if scale == 0 else 1), 5
        self.set(group + 8, "<I", table)
        self.inode = table * self.block + 7 * 256
        size = journal.block_count * self.block
        self.set(self.inode + 4, "<I", size)
        self.set(self.inode + 0x20, "<I", 0x80000 if extents else 0)
        self.first = 24
        self._map(extents, pieces)

    def set(self, place: int, layout: str, *values: int) -> None:
        struct.pack_into(layout, self.content, place, *values)

    def _map(self, extents: bool, pieces: int) -> None:
        count, map_ = self.journal.block_count, self.inode + 0x28
        if extents:
            leaf = map_
            if pieces > 1:  # one more level
                self.set(map_, "<4HI", 0xF30A, 1, 4, 1, 0)
                self.set(map_ + 12, "<IIHH", 0, 20, 0, 0)
                leaf = 20 * self.block
            self.set(leaf, "<4HI", 0xF30A, pieces, 8, 0, 0)
            step = count // pieces
            for piece in range(pieces):
                length = step if piece < pieces - 1 else count - step * piece
                self.set(leaf + 12 + 12 * piece, "<IHHI", piece * step, length, 0, self.first + piece * step)
            return
        numbers = [self.first + index for index in range(count)]
        for index, number in enumerate(numbers[:12]):
            self.set(map_ + 4 * index, "<I", number)
        per = self.block // 4
        if numbers[12:]:
            self.set(map_ + 48, "<I", 20)
            for index, number in enumerate(numbers[12 : 12 + per]):
                self.set(20 * self.block + 4 * index, "<I", number)
        if numbers[12 + per :]:
            self.set(map_ + 52, "<I", 21)
            for at in range(0, len(numbers) - 12 - per, per):
                self.set(21 * self.block + at // per * 4, "<I", 22 + at // per)
                for index, number in enumerate(numbers[12 + per + at : 12 + 2 * per + at]):
                    self.set((22 + at // per) * self.block + 4 * index, "<I", number)

    def put(self, *writes: tuple[int, bytes]) -> None:
        for offset, data in writes:
            place = self.first * self.block + offset
            self.content[place : place + len(data)] = data

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def names(self) -> list[tuple[str, str, bool]]:
        log = read_log(self.read, len(self.content))
        return [(one.transaction.name, one.transaction.state.value, one.replayed) for one in log.transactions]


@pytest.mark.parametrize("block_bytes", [1024, 4096])
@pytest.mark.parametrize(("extents", "pieces"), [(True, 1), (True, 3), (False, 1)])
def test_the_journal_is_found_by_extents_and_by_the_old_block_map(block_bytes: int, extents: bool, pieces: int) -> None:
    built = Jbd2Builder(block_bytes, 400)
    image = Ext4Image(built, extents, pieces)
    for number in range(60):
        built.transaction(5, number)
    image.put((0, built.superblock()), *built.writes)
    assert image.names() == [(str(number), "committed", True) for number in range(7, 67)]


def test_a_transaction_that_was_written_back_is_listed_and_not_replayed() -> None:
    built = Jbd2Builder(block_count=40)
    image = Ext4Image(built)
    for _ in range(15):
        built.transaction(5, 6)
    # The log has come round: 7 to 12 are overwritten; recovery begins with 19.
    starts = [index for index, (_, data) in enumerate(built.writes) if data[4:8] == b"\0\0\0\1"]
    image.put(*built.writes, (0, built.superblock(start=built.writes[starts[12]][0] // 1024, sequence=19)))
    found = image.names()
    assert found[-3:] == [("19", "committed", True), ("20", "committed", True), ("21", "committed", True)]
    assert all(not replayed for _, _, replayed in found[:-3])
    assert [int(name) for name, _, _ in found] == list(range(int(found[0][0]), 22)) and len(found) > 6


def test_after_an_unmount_nothing_is_replayed() -> None:
    built = Jbd2Builder(block_count=40)
    image = Ext4Image(built)
    for _ in range(15):
        built.transaction(5, 6)
    image.put(*built.writes, (0, built.superblock(start=0, sequence=22)))
    found = image.names()
    assert found[-1] == ("21", "committed", False) and len(found) > 6
    empty = Ext4Image(Jbd2Builder(block_count=40))
    empty.put((0, Jbd2Builder(block_count=40).superblock(start=0)))
    assert empty.names() == []


@pytest.mark.parametrize("descriptors", [1, 2, 3])
@pytest.mark.parametrize("unmounted", [True, False])
def test_all_transactions_in_a_new_log_are_listed_and_later_those_that_are_left_whole(
    descriptors: int, unmounted: bool
) -> None:
    for block_count, count in itertools.product((41, 42), range(1, 32)):
        built = Jbd2Builder(block_count=block_count)
        image = Ext4Image(built)
        ends: list[int] = []
        for number in range(count):
            for piece in range(descriptors):
                built.descriptor({100 * piece + number: bytes([number]) * 1024})
            built.commit()
            ends.append(len(built.writes))
        image.put(*built.writes)
        first = built.writes[ends[-2]][0] // 1024 if count > 1 else 1
        sequence = 7 + count - (not unmounted)
        image.put((0, built.superblock(start=0 if unmounted else first, sequence=sequence)))
        last_write = {offset: place for place, (offset, _) in enumerate(built.writes)}
        left = [
            7 + number
            for number, (begin, end) in enumerate(itertools.pairwise([0, *ends]))
            if all(last_write[offset] < end for offset, _ in built.writes[begin:end])
        ]
        found = [int(name) for name, state, _ in image.names() if state == "committed"]
        assert found in (left, left[1:]), "the oldest may have lost its beginning"
        assert found == left or ends[-1] > (block_count - 1) // 2, "a log that is mostly new begins at its beginning"


def test_the_log_ends_with_the_first_transaction_that_is_not_whole() -> None:
    built = Jbd2Builder(block_count=40)
    image = Ext4Image(built)
    for _ in range(4):
        built.transaction(5, 6)
    image.put((0, built.superblock()), *built.writes)
    image.put((built.writes[9][0], b"\1" * 1024))
    assert image.names() == [("7", "committed", True), ("8", "committed", True), ("9", "abandoned", False)]
    image.put((0, built.superblock()), *built.writes, (built.writes[11][0], bytes(1024)))
    assert image.names()[-1] == ("9", "abandoned", False), "the commit of the next one is there"
    image.put((built.writes[15][0], bytes(1024)))
    assert image.names()[-1] == ("9", "open", False)
    newest = read_log(image.read, len(image.content)).newest_whole
    assert newest is not None and newest.transaction.name == "8"


def test_fast_commits_belong_behind_the_last_full_one() -> None:
    built = Jbd2Builder(block_count=1300, incompat=REVOKES | WIDE | V3 | FAST, fast_blocks=256)
    image = Ext4Image(built)
    built.transaction(5)
    area = 1045 * 1024
    image.put((0, built.superblock()), *built.writes)
    image.put((area, fast_commit(8, [], 1024, True) + fast_commit(8, [], 1024, False)))
    assert [name for name, _, _ in image.names()] == ["7", "8.1", "8.2"]
    image.put((area, fast_commit(7, [], 1024, True)))  # of before the full commit
    assert [name for name, _, _ in image.names()] == ["7"]


def xfs_image(built: XfsBuilder) -> tuple[Callable[[int, int], bytes], int]:
    content = bytearray((16 + built.log_sectors // 8) * 4096)
    superblock = bytearray(built.superblock())
    struct.pack_into(">Q", superblock, 8, len(content) // 4096)
    content[:4096] = with_xfs_sum(superblock)
    for offset, data in built.writes:
        content[65536 + offset : 65536 + offset + len(data)] = data
    return (lambda offset, length: bytes(content[offset : offset + length])), len(content)


def test_an_xfs_log_is_read_from_its_oldest_record() -> None:
    built = XfsBuilder(log_sectors=64)
    for tid in range(50):
        built.tail = built.cycle << 32 | built.sector if tid == 47 else built.tail
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
    read, size = xfs_image(built)
    log = read_log(read, size)
    found = [one.transaction.named.tolist()[0][0] // 4096 for one in log.transactions]
    assert found == list(range(found[0], 50)) and len(found) > 25
    assert [one.replayed for one in log.transactions][-4:] == [False, True, True, True]
    assert log.newest_whole is log.transactions[-1]
    built.write(built.record([(9, 0x20, struct.pack("<HHI", 0x556E, 0, 0))]))
    read, size = xfs_image(built)
    assert not any(one.replayed for one in read_log(read, size).transactions)


def test_a_hole_in_an_xfs_log_ends_it() -> None:
    built = XfsBuilder(log_sectors=64)
    for tid in range(50):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
    del built.writes[-2]
    read, size = xfs_image(built)
    log = read_log(read, size)
    assert log.transactions[-1].transaction.named.tolist()[0][0] // 4096 == 47


@pytest.mark.parametrize("missing", [False, True])
def test_a_transaction_behind_a_damaged_record_of_an_xfs_log_is_not_called_whole(missing: bool) -> None:
    built = XfsBuilder(log_sectors=2048)
    for tid in range(50):
        built.tail = built.cycle << 32 | built.sector if tid == 10 else built.tail
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8)), spoil="sum" if tid == 20 else ""))
    if missing:
        del built.writes[20]
    read, size = xfs_image(built)
    log = read_log(read, size)
    whole = [one.transaction for one in log.transactions if one.transaction.state.value == "committed"]
    assert [one.named.tolist()[0][0] // 4096 for one in whole] == list(range(20))
    assert (
        all("recovery stops" in one.transaction.reason for one in log.transactions[20:]) and len(log.transactions) > 40
    )
    assert [one.replayed for one in log.transactions] == [False] * 10 + [True] * 10 + [False] * (
        len(log.transactions) - 20
    )
    assert log.newest_whole is log.transactions[19]


def test_damage_before_the_tail_of_an_xfs_log_changes_nothing() -> None:
    built = XfsBuilder(log_sectors=2048)
    for tid in range(30):
        built.tail = built.cycle << 32 | built.sector if tid == 20 else built.tail
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8)), spoil="sum" if tid == 5 else ""))
    read, size = xfs_image(built)
    log = read_log(read, size)
    assert len(log.transactions) == 29 and sum(one.replayed for one in log.transactions) == 10


def test_a_volume_without_a_file_system_is_refused() -> None:
    with pytest.raises(NotUnderstood, match="no file system that this program knows"):
        read_log(lambda offset, length: bytes(length), 4096)
    with pytest.raises(NotUnderstood, match="beyond the end"):
        read_log(lambda offset, length: bytes(length), 1024)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((1024 + 0x60, "<I", 0x48), "external journal of another"),
        ((1024 + 0x5C, "<I", 0), "has no journal"),
        ((1024 + 0xE0, "<I", 0), "on another device"),
        ((1024 + 0x18, "<I", 9), "impossible block size"),
        ((1024 + 0x28, "<I", 0), "impossible numbers"),
        ((1024 + 0xE0, "<I", 77), "not in the first group (77)"),
        ((2048 + 8, "<I", 1 << 30), "block map of its journal is damaged"),
        ((5 * 1024 + 7 * 256 + 4, "<I", 0), "impossible size"),
        ((5 * 1024 + 7 * 256 + 4, "<I", 39 * 1024), "longer than the file"),
        ((5 * 1024 + 7 * 256 + 4, "<I", 41 * 1024), "block map of its journal is damaged"),
        ((5 * 1024 + 7 * 256 + 0x28, "<H", 7), "block map of its journal is damaged"),
        ((5 * 1024 + 7 * 256 + 0x28 + 12, "<I", 3), "block map of its journal is damaged"),
        ((5 * 1024 + 7 * 256 + 0x28 + 16, "<H", 40000), "block map of its journal is damaged"),
        ((24 * 1024, "<I", 0), "superblock of jbd2"),
    ],
)
def test_a_journal_that_is_not_found_is_refused_with_the_reason(change: Change, words: str) -> None:
    built = Jbd2Builder(block_count=40)
    image = Ext4Image(built)
    image.put((0, built.superblock()))
    image.set(*change)
    with pytest.raises(NotUnderstood) as refused:
        image.names()
    assert words in str(refused.value)
