"""What ``XfsLog`` tells of a log, quick or not, is what a plain reading tells: whatever is written, in whatever order."""

from __future__ import annotations

import random
import struct
import tracemalloc

import numpy as np
import pytest

from pydbt.core.transactions.crc import crc32c
from pydbt.core.transactions.followed_log import EndedTransaction, FollowedLog
from pydbt.core.transactions.log_place import LogPlace
from pydbt.core.transactions.transaction import JournalTransaction
from pydbt.core.transactions.xfs_batch import WholeRecords
from pydbt.core.transactions.xfs_items import runs_of_formats
from pydbt.core.transactions.xfs_log import XfsLog
from pydbt.core.transactions.xfs_volume import XfsVolume, read_xfs_superblock
from pydbt.core.units import MIB
from tests.core.transactions.captured import Written
from tests.core.transactions.plain_xfs import PlainXfsLog
from tests.lab import file_system_logs
from tests.lab.file_system_logs import XfsBuilder

Operation = tuple[int, int, bytes]
BEGIN = 16 * 4096


@pytest.fixture(autouse=True)
def quick_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the library's checksum is the right one is another test."""
    monkeypatch.setattr(file_system_logs, "slow_crc32c", crc32c)


def outcome(one: JournalTransaction) -> tuple[object, ...]:
    return *one[:7], one.named.tolist(), one.revoked.tolist(), one.named_whole, one.reason


def place_of(built: XfsBuilder) -> LogPlace:
    return LogPlace("xfs", ((BEGIN, built.log_sectors * 512),), (), built.superblock())


class BothWays:
    """A log that is followed in batches of captured writes, and read in the plain way."""

    def __init__(self, built: XfsBuilder) -> None:
        self.quick = FollowedLog(place_of(built))
        self.plain = PlainXfsLog(read_xfs_superblock(built.superblock()), follows_stream=True)
        self.told = 0

    def take(self, writes: list[tuple[int, bytes | None]], whole: bool) -> list[EndedTransaction]:
        written = Written(whole=whole)
        expected: list[tuple[object, ...]] = []
        for index, (offset, data) in enumerate(writes):
            written.write(BEGIN + offset, data, sectors=1)
            layouts = self.plain.layouts
            found = (
                self.plain.lost("writes to the log came without their data")
                if data is None
                else self.plain.written(offset, data)
            )
            renewed = self.plain.layouts != layouts
            expected += [(index, outcome(one), self.plain.runs_of(one, BEGIN), renewed) for one in found]
        ended = self.quick.captured(written.records(), written.payload)
        assert [(one.index, outcome(one.transaction), one.runs) for one in ended] == [one[:3] for one in expected]
        assert [one.ordinal for one in ended] == list(range(self.told + 1, self.told + 1 + len(ended)))
        assert self.quick.problem == (self.plain.problem or ("" if self.plain.has_footing else self.quick.problem))
        if renewals := [one.ordinal for one, row in zip(ended, expected, strict=True) if row[3]]:
            assert self.quick.renewed_from >= renewals[0]
        parser = self.quick._parser
        assert isinstance(parser, XfsLog)
        state = [(one.tail_lsn, one.unmounted, one.gaps, one.layouts) for one in (parser, self.plain)]
        assert state[0] == state[1]
        assert [outcome(one) for one in parser.open] == [outcome(one) for one in self.plain.open]
        self.told += len(ended)
        return ended


def items(built: XfsBuilder, chance: random.Random, count: int) -> list[list[bytes]]:
    """Items of all kinds, few of which are damaged."""
    order, sector = built.order, chance.randrange(1 << 30)
    quota = [struct.pack(f"{order}HHIqiI", 0x123D, 2, 0, sector, 8, 0), b"q" * 104]
    new = [struct.pack(f"{order}HH", 0x123F, 1) + struct.pack(">6I", 1, 77, 64, 512, chance.choice((8, 1 << 31)), 9)]
    old = [struct.pack(f"{order}HHIHHQ16xqii", 0x123B, 2, 1, 0, 0, 131, sector, 8, 0), b"C" * 96]
    intent = [struct.pack(f"{order}HHIQ", chance.choice((0x1236, 0x1249, 0x1777)), 1, 0, 5)]
    odd = [struct.pack(f"{order}HH", 0x123C, chance.choice((0, 1, 3, 2))), bytes(chance.choice((0, 2, 40)))]
    wide = [struct.pack(f"{order}HHIqiI", 0x123D, 1, 0, *chance.choice(((-8, 8), (8, -8), (1 << 60, 8), (8, 8))), 0)]
    kinds = [
        built.buffer(sector, chance.choice((8, 0, 32))),
        built.buffer(sector, 8, flags=chance.choice((0, 2))),
        built.inode(sector, 32),
        [built.inode(sector, 32)[0], b"I" * 176, chance.randbytes(4 * chance.randrange(30))],
        [built.buffer(sector, 8, regions=3)[0], chance.randbytes(128), struct.pack("<IIBBH", 7, 0, 0x69, 2, 0) * 9],
        quota, new, old, intent, wide,
    ]  # fmt: skip
    if chance.random() < 0.02:
        kinds = [odd, [b"ab"]]
    return [chance.choice(kinds) for _ in range(count)]


def streams(built: XfsBuilder, chance: random.Random) -> list[tuple[int, bytes]]:
    """Checkpoints that are small, many of one shape; that lie in several records and share them; and unmounts."""
    same = items(built, chance, 4)
    left: list[Operation] = []  # of one that goes on in the next record
    for _ in range(chance.choice((10, 60))):
        tid, kind = chance.choice((chance.randrange(1 << 32), chance.randrange(4))), chance.random()
        operations, left = left, []
        if kind < 0.6:
            operations += built.checkpoint(tid, *same)
        elif kind < 0.95:
            operations += built.checkpoint(tid, *items(built, chance, chance.choice((0, 1, 5, 40))))
        else:
            operations.append((9, 0x20, b"Un" + bytes(6)))
        if chance.random() < 0.15 and len(operations) > 2:
            cut = chance.randrange(1, len(operations))
            left, operations = operations[cut:], operations[:cut]
            if chance.random() < 0.5 and len(left[0][2]) > 4:
                number, flags, region = left[0]
                at = chance.randrange(1, len(region))
                operations.append((number, flags | 4, region[:at]))
                left[0] = (number, flags | 0x18, region[at:])
        if sum(12 + len(region) for _, _, region in operations) <= built.size_bytes:
            damage = chance.random()
            built.write(built.record(operations, spoil="sum" if damage < 0.01 else "", mixed=damage > 0.99))
    writes, built.writes = built.writes, []
    return writes


def disturbed(writes: list[tuple[int, bytes]], chance: random.Random) -> list[tuple[int, bytes | None]]:
    """As the kernel may submit them, and as it never would."""
    made: list[tuple[int, bytes | None]] = list(writes)
    damage = chance.choice((0.0, 0.0, 0.05))
    for at in range(len(made) - 1):
        if chance.random() < chance.choice((0.0, 0.2)):
            made[at : at + 2] = made[at + 1 : at - 1 if at else None : -1]
    found: list[tuple[int, bytes | None]] = []
    for offset, data in made:
        kind = chance.random() / damage if damage else 9
        if data is None or kind > 1:
            found.append((offset, data))
        elif kind < 0.2:
            found.append((offset, None))
        elif kind < 0.4:
            half = len(data) // 1024 * 512
            found += [(offset + half, data[half:]), (offset, data[:half])] if half else [(offset, data)]
        elif kind < 0.7:
            spoiled = bytearray(data)
            spoiled[chance.randrange(len(data) if chance.random() < 0.5 else 330)] ^= 1 << chance.randrange(8)
            spoiled[32:36] = bytes(4) if chance.random() < 0.5 else spoiled[32:36]
            found.append((offset, bytes(spoiled)))
        elif kind < 0.8:
            found += [(offset, data), (offset, data)]
    return found


@pytest.mark.parametrize("seed", range(12))
def test_random_logs_are_told_as_by_a_plain_reading(seed: int) -> None:
    chance = random.Random(seed)
    committed = abandoned = 0
    for _ in range(6):
        built = XfsBuilder(
            log_sectors=chance.choice((256, 1024, 8192)),
            size_bytes=chance.choice((32768, 32768, 65536, 16384)),
            order=chance.choice("<<<>"),
            sector=chance.choice((0, 0, 200)),
            cycle=chance.choice((3, 3, 3, (1 << 30) - 3, (1 << 31) - 2, 0xFFFFFF00)),
            tail=chance.choice((3 << 32, 3 << 32, (1 << 64) - 1)),
        )
        both = BothWays(built)
        writes = disturbed(streams(built, chance), chance)
        while writes:
            size = chance.choice((1, 7, 40, 200))
            ended = both.take(writes[:size], whole=chance.random() < 0.8)
            del writes[:size]
            committed += sum(one.transaction.state == "committed" for one in ended)
            abandoned += sum(one.transaction.state == "abandoned" for one in ended)
    assert committed > 20, (committed, abandoned)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size_bytes", [32768, 262144])
def test_records_of_all_lengths_are_told_as_by_a_plain_reading(order: str, size_bytes: int) -> None:
    built = XfsBuilder(log_sectors=16384, size_bytes=size_bytes, order=order)
    both = BothWays(built)
    for count in (1, 60, size_bytes // 512, 2, 60, 60, *[1] * 20):
        big = [[built.buffer(800, 8)[0], bytes(400)] for _ in range(count)]
        built.write(built.record(built.checkpoint(count, *big)))
    assert len(both.take(list(built.writes), whole=True)) == 26


def test_checkpoints_of_one_shape_are_recognized_and_those_that_differ_in_one_word_are_not() -> None:
    built = XfsBuilder()
    for tid in range(100):
        shape = [built.buffer(8 * tid, 8), built.inode(64, 32), built.buffer(16, 8, flags=2 * (tid == 30))]
        operations = built.checkpoint(tid + 1000, *shape)
        if tid == 50:  # as long, with another number of regions in one item
            operations[2] = (operations[2][0], 0, built.buffer(8, 8, regions=3)[0])
        if tid == 65:  # of two checkpoints
            operations[4] = (5, 0, operations[4][2])
        if tid == 66:  # with a flag that no whole checkpoint has
            operations[-1] = (operations[-1][0], 0, b"")
        if tid == 85:  # not a transaction
            operations[1] = (operations[1][0], 0, bytes(16))
        built.write(built.record(operations))
    both = BothWays(built)
    found = [one for first in range(0, 100, 20) for one in both.take(list(built.writes[first : first + 20]), True)]
    assert sum(one.transaction.state == "committed" for one in found) == 98


class Counted(WholeRecords):
    looked_through = 0

    def _find_operations(self) -> None:
        Counted.looked_through += 1
        super()._find_operations()


def test_the_operations_of_a_shape_that_is_known_are_not_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydbt.core.transactions.followed_log.WholeRecords", Counted)
    Counted.looked_through = 0
    built, found = XfsBuilder(), 0
    both = BothWays(built)
    for batch in range(5):
        for tid in range(20):
            shape = [built.buffer(8 * tid, 8)] * (1 + tid % 2)
            built.write(built.record(built.checkpoint(100 * batch + tid, *shape)))
        found += len(both.take(list(built.writes), whole=True))
        built.writes.clear()
    assert found == 100 and Counted.looked_through == 1


def test_a_write_that_lies_in_part_outside_of_the_log_is_read_the_other_way() -> None:
    built = XfsBuilder(log_sectors=64, sector=60)
    first, content = built.record(built.checkpoint(1, built.buffer(8, 8)))
    quick = FollowedLog(place_of(built))
    written = Written(whole=True)
    written.write(BEGIN - 512, bytes(512) + bytes(first * 512) + content + bytes(4096))
    (one,) = quick.captured(written.records(), written.payload)
    assert one.transaction.name == "3:60" and one.transaction.named.tolist() == [[4096, 4096]]


def test_runs_that_many_share_are_kept_alone() -> None:
    built = XfsBuilder()
    for tid in range(20):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8), built.buffer(9, 8, flags=2))))
    found = BothWays(built).take(list(built.writes), whole=True)
    for tid, one in enumerate(found):
        named, revoked = one.transaction.named_parts, one.transaction.revoked_parts
        assert named.count == revoked.count == 1 and one.transaction.named_whole
        assert named.kept().together().tolist() == [[4096 * tid, 4096]] == named.together().tolist()
        assert revoked.kept().kept().together().tolist() == [[9 * 512, 4096]]


def test_impossible_places_of_new_inodes_are_left_out() -> None:
    volume = XfsVolume(65536, 0xFFFFFFFF, 0, 1 << 20, bytes(16))
    formats = [
        struct.pack("<HH", 0x123F, 1) + struct.pack(">6I", group, 1, 64, 512, 8, 9) + bytes(28)
        for group in (0xFFFFFFFF, 0, 1)
    ]
    begins, lengths = np.arange(3) * 14, np.array([28, 28, 20], np.uint32)
    runs, names, cancels = runs_of_formats(np.frombuffer(b"".join(formats), "<u4"), begins, lengths, volume)
    assert names.tolist() == [False, True, False] and not cancels.any()
    assert runs[1].tolist() == [65536, 8 * 65536]


def test_memory_of_all_that_follows_a_log_has_a_bound() -> None:
    """Buffers of 256 KiB that come in part and out of order, and many small records, some with a great many items."""
    chance = random.Random(3)
    built = XfsBuilder(log_sectors=65536, size_bytes=262144)
    small = XfsBuilder(log_sectors=65536, sector=40_000)
    block = struct.pack("<HH", 0x1236, 1) + bytes(8)
    for tid in range(16):
        built.write(built.record([(1, 1, b""), (1, 0, b"h" * 250_000)]))
        for _ in range(30):
            small.write(small.record(small.checkpoint(tid, small.buffer(8, 8))))
        small.write(small.record(small.checkpoint(tid, *[[block]] * 1000)))
    parts = [(offset, data[:-512] if chance.random() < 0.5 else data) for offset, data in built.writes[1:]]
    log = FollowedLog(place_of(built))
    batches = []
    for first in range(0, 16, 4):
        for writes in (small.writes[31 * first : 31 * first + 124], parts[first : first + 4]):
            written = Written(whole=True)
            for offset, data in writes:
                written.write(BEGIN + offset, data)
            batches.append((written.records(), written))
    tracemalloc.start()
    try:
        for records, written in batches:
            log.captured(records, written.payload)
            assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
    assert log.problem == ""
