"""An XFS log is followed by its writes: records in any order, checkpoints over several of them, cycles, roll-over."""

from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.transactions.jbd2_blocks import NotUnderstood
from pydbt.core.transactions.transaction import JournalTransaction, TransactionState
from pydbt.core.transactions.xfs_log import XfsLog
from pydbt.core.transactions.xfs_volume import read_xfs_superblock
from pydbt.core.units import MIB
from tests.lab.file_system_logs import XfsBuilder, with_xfs_sum


def feed(log: XfsLog, writes: list[tuple[int, bytes]]) -> list[JournalTransaction]:
    return [one for offset, data in writes for one in log.written(offset, data)]


def log_of(built: XfsBuilder) -> XfsLog:
    return XfsLog(read_xfs_superblock(built.superblock()))


def states(found: list[JournalTransaction]) -> list[tuple[str, str]]:
    return [(one.name, one.state.value) for one in found]


def split(writes: list[tuple[int, bytes]], size: int) -> list[tuple[int, bytes]]:
    return [(offset + at, data[at : at + size]) for offset, data in writes for at in range(0, len(data), size)]


@pytest.mark.parametrize("size_bytes", [16384, 32768, 65536, 262144])
@pytest.mark.parametrize("order", ["<", ">"])
def test_records_of_every_size_are_read(size_bytes: int, order: str) -> None:
    built = XfsBuilder(size_bytes=size_bytes, order=order)
    wide = [[struct.pack(f"{order}HHHHqI4x", 0x123C, 2, 0, 8, 800 + index, 1), b"D" * 4000] for index in range(3)]
    many = wide * (size_bytes // 16384)
    built.write(built.record(built.checkpoint(1, built.buffer(8, 8), built.inode(64, 32), *many)))
    built.write(built.record(built.checkpoint(2, built.buffer(16, 8))))
    for size in (1 << 20, 4096, 512):
        found = feed(log_of(built), split(built.writes, size))
        assert [one.state.value for one in found] == ["committed", "committed"]
        assert found[0].name == "3:0" and found[0].committed_ns is None
        assert found[0].named.tolist()[:3] == [[4096, 4096], [32768, 16384], [800 * 512, 4096]]
        assert found[1].first_block == found[0].block_count


def test_records_may_come_out_of_order() -> None:
    built = XfsBuilder()
    for tid in range(6):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
    order = [0, 3, 1, 2, 5, 4]
    found = feed(log_of(built), [built.writes[index] for index in order])
    assert [one.named.tolist()[0][0] for one in found] == [4096 * tid for tid in range(6)]


def test_a_checkpoint_lies_in_several_records_and_shares_them_with_others() -> None:
    built = XfsBuilder()
    first, other = built.checkpoint(1, built.buffer(8, 8), built.buffer(16, 8)), built.checkpoint(2, built.inode(24, 8))
    # The format of the second buffer is split over two records.
    (tid, _, region), cut = first[4], 12
    built.write(built.record([*first[:4], other[0], (tid, 4, region[:cut])]))
    built.write(built.record([(tid, 0x18, region[cut:]), *other[1:], *first[5:]]))
    found = feed(log_of(built), built.writes)
    assert [one.name for one in found] == ["3:2", "3:2"] and {one.starts_at for one in found} == {3 << 32}
    assert [one.named.tolist() for one in found] == [[[12288, 4096]], [[4096, 4096], [8192, 4096]]]
    assert found[1].block_count == 4


def test_a_header_of_a_transaction_that_is_split_is_put_together() -> None:
    built = XfsBuilder()
    operations = built.checkpoint(1, built.buffer(8, 8))
    built.write(built.record([operations[0], (1, 4, operations[1][2][:8])]))
    built.write(built.record([(1, 0x18, operations[1][2][8:]), *operations[2:]]))
    (one,) = feed(log_of(built), built.writes)
    assert one.state is TransactionState.COMMITTED and one.named.tolist() == [[4096, 4096]]


def test_the_log_goes_on_at_its_beginning_with_the_next_cycle() -> None:
    built = XfsBuilder(log_sectors=64, size_bytes=65536)
    for tid in range(60):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8), *([built.inode(1, 1)] * 6))))
    assert any(offset == 0 for offset, _ in built.writes[1:]) and built.cycle > 4
    found = feed(log_of(built), built.writes)
    assert [one.state.value for one in found] == ["committed"] * 60
    assert [one.number for one in found] == sorted({one.number for one in found})


def test_a_log_that_is_joined_in_the_middle_leaves_out_what_began_before() -> None:
    built = XfsBuilder()
    long = built.checkpoint(1, built.buffer(8, 8), built.buffer(16, 8))
    built.write(built.record(long[:4]))
    built.write(built.record([*long[4:], *built.checkpoint(2, built.buffer(24, 8))]))
    found = feed(log_of(built), built.writes[1:])
    assert [one.named.tolist() for one in found] == [[[12288, 4096]]]


@pytest.mark.parametrize("holes", [False, True])
def test_the_first_record_of_all_begins_another_log_in_a_stream(holes: bool) -> None:
    """mkfs with the identity of before: it writes the record of an unmount there, and overwrites the rest."""
    old, new = XfsBuilder(cycle=1), XfsBuilder(cycle=1)
    for tid in range(6):
        old.write(old.record(old.checkpoint(tid, old.buffer(8 * tid, 8))))
    new.write(new.record([(9, 0x20, b"Un" + bytes(6))]))
    new.write(new.record(new.checkpoint(1, new.buffer(8, 8))))
    log = XfsLog(read_xfs_superblock(old.superblock()), follows_stream=True)
    assert len(feed(log, old.writes)) == 6 and log.layouts == 0
    if holes:
        log.lost("zeroes were written over it")
    assert [one.name for one in feed(log, new.writes)] == ["1:2"] and log.layouts == 1
    at_rest = log_of(old)
    assert len(feed(at_rest, [*old.writes, *new.writes])) == 6 and at_rest.layouts == 0


def test_a_record_far_behind_begins_another_log_and_one_that_comes_late_does_not() -> None:
    built, far = XfsBuilder(log_sectors=65536, sector=20_000), XfsBuilder(log_sectors=65536, sector=40)
    for tid in range(4):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
    log = XfsLog(read_xfs_superblock(built.superblock()), follows_stream=True)
    found = feed(log, built.writes[1:3] + built.writes[:1] + built.writes[3:])
    assert len(found) == 3 and log.layouts == 0
    far.write(far.record(far.checkpoint(9, far.buffer(8, 8)), spoil="sum"))
    assert feed(log, far.writes) == [] and log.layouts == 0
    far.write(far.record(far.checkpoint(9, far.buffer(8, 8))))
    assert [one.name for one in feed(log, far.writes[1:])] == ["3:42"] and log.layouts == 1


def test_cancelled_buffers_new_inodes_and_quota_are_named() -> None:
    built = XfsBuilder()
    quota = [struct.pack("<HHIqiI", 0x123D, 2, 0, 40, 8, 0), b"q" * 104]
    inodes = [struct.pack("<HH", 0x123F, 1) + struct.pack(">6I", 1, 5, 64, 512, 8, 9)]
    old = [struct.pack("<HHIHHQ16xqii", 0x123B, 2, 1, 0, 0, 131, 48, 8, 0), b"C" * 96]
    intent = [struct.pack("<HHIQ", 0x1236, 1, 0, 5)]
    built.write(built.record(built.checkpoint(1, built.buffer(8, 8, flags=2), quota, inodes, old, intent)))
    (one,) = feed(log_of(built), built.writes)
    assert one.revoked.tolist() == [[4096, 4096]]
    assert one.named.tolist() == [[40 * 512, 4096], [(32768 + 5) * 4096, 8 * 4096], [48 * 512, 4096]]


def test_an_unmount_is_told_until_the_log_goes_on() -> None:
    built = XfsBuilder()
    built.write(built.record([*built.checkpoint(1, built.buffer(8, 8)), (2, 1, b"")]))
    log = log_of(built)
    assert len(feed(log, built.writes)) == 1 and not log.unmounted
    built.writes.clear()
    built.write(built.record([(9, 0x20, struct.pack("<HHI", 0x556E, 0, 0))]))
    assert [one.reason for one in feed(log, built.writes)] == ["the file system was unmounted"]
    assert log.unmounted and log.tail_lsn == 3 << 32 and not log.open
    built.writes.clear()
    built.write(built.record(built.checkpoint(2, built.buffer(8, 8))))
    assert len(feed(log, built.writes)) == 1 and not log.unmounted


def test_a_checkpoint_without_its_commit_is_open() -> None:
    built = XfsBuilder()
    built.write(built.record(built.checkpoint(1, built.buffer(8, 8))[:-1]))
    log = log_of(built)
    assert not feed(log, built.writes)
    assert states(log.open) == [("3:0", "open")]


@pytest.mark.parametrize(("spoil", "mixed", "words"), [("sum", False, "checksum"), ("", True, "another cycle")])
def test_a_damaged_record_abandons_what_is_open(spoil: str, mixed: bool, words: str) -> None:
    built = XfsBuilder()
    built.write(built.record(built.checkpoint(1, built.buffer(8, 8))[:-1]))
    built.write(built.record(built.checkpoint(2, *[built.buffer(16, 8)] * 8), spoil=spoil, mixed=mixed))
    built.write(built.record(built.checkpoint(3, built.buffer(24, 8))))
    found = feed(log_of(built), built.writes)
    assert [one.state.value for one in found] == ["abandoned", "committed"] and words in found[0].reason


def test_a_record_that_does_not_come_is_passed_over_when_more_follow_than_the_kernel_has_buffers() -> None:
    built = XfsBuilder()
    built.write(built.record(built.checkpoint(1, built.buffer(8, 8))[:-1]))
    for tid in range(2, 22):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
    found = feed(log_of(built), [built.writes[0], *built.writes[2:]])
    assert states(found[:1]) == [("3:0", "abandoned")] and "did not come" in found[0].reason
    assert len(found) == 20 and all(one.state is TransactionState.COMMITTED for one in found[1:])


def operations_of(*rows: tuple[int, int, bytes]) -> list[tuple[int, int, bytes]]:
    return [(1, 1, b""), *rows, (1, 2, b"")]


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        (operations_of((1, 0, b"x" * 16)), "header of a transaction"),
        (operations_of((1, 0, struct.pack("<4I", 0x5452414E, 40, 0, 1)), (1, 0, b"ab")), "cut off"),
        (operations_of((1, 0, struct.pack("<4I", 0x5452414E, 40, 0, 1)), (1, 0, bytes(16))), "no regions"),
        ([(1, 1, b""), (1, 1, b""), (1, 2, b"")], "in its place"),
    ],
)
def test_a_checkpoint_that_is_damaged_is_abandoned(operations: list[tuple[int, int, bytes]], words: str) -> None:
    built = XfsBuilder()
    built.write(built.record(operations))
    found = feed(log_of(built), built.writes)
    assert found[0].state is TransactionState.ABANDONED and words in found[0].reason


@pytest.mark.parametrize("length", [456, 4000])
def test_operations_that_reach_beyond_their_record_abandon_what_is_open(length: int) -> None:
    built = XfsBuilder()
    first, content = built.record([(1, 1, b""), (1, 0, built.header_of(1)), (2, 0, b"f" * 456)])
    record = bytearray(content)
    struct.pack_into(">I", record, 40, 40)  # more operations than there are
    struct.pack_into(">I", record, 512 + 12 + 28 + 4, length)
    record[32:36] = bytes(4)  # a record without a checksum, as mkfs writes
    (one,) = feed(log_of(built), [(first * 512, bytes(record))])
    assert one.state is TransactionState.ABANDONED and "cut off" in one.reason


def test_a_byte_order_that_is_unknown_is_told() -> None:
    built = XfsBuilder()
    built.write(built.record(built.checkpoint(1, built.buffer(8, 8))[:-1]))
    first, content = built.record(built.checkpoint(2, built.buffer(8, 8)))
    header = bytearray(content)
    struct.pack_into(">I", header, 300, 7)
    header[32:36] = bytes(4)
    found = feed(log_of(built), [*built.writes, (first * 512, bytes(header))])
    assert states(found) == [("3:0", "abandoned")] and "byte order" in found[0].reason


@pytest.mark.parametrize("place", [8, 12, 16, 304, 320])
def test_what_is_no_header_of_this_place_and_file_system_is_left_out(place: int) -> None:
    built = XfsBuilder()
    first, content = built.record(built.checkpoint(1, built.buffer(8, 8)))
    header = bytearray(content)
    struct.pack_into(">I", header, place, 0x7FFFFFFF if place != 320 else 0)
    found = feed(log_of(built), [(first * 512, bytes(header))])
    assert found == []


def test_more_open_checkpoints_than_the_kernel_has_end_the_oldest() -> None:
    built = XfsBuilder()
    built.write(built.record([(tid, 1, b"") for tid in range(70)]))
    found = feed(log_of(built), built.writes)
    assert len(found) == 6 and all(one.state is TransactionState.ABANDONED for one in found)


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_raise(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(15):
        built = XfsBuilder(log_sectors=256, size_bytes=generator.choice((32768, 65536)))
        for tid in range(20):
            built.write(built.record(built.checkpoint(tid, built.buffer(8, 8), built.inode(8, 8))))
        writes = split(built.writes, generator.choice((512, 4096)))
        for _ in range(8):
            at = generator.randrange(len(writes))
            offset, data = writes[at]
            spoiled = bytearray(data)
            spoiled[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            if generator.random() < 0.5:
                struct.pack_into(">I", spoiled, 12, generator.randrange(1 << 20))
            writes[at] = offset + generator.choice((0, 0, 512, -512, 7)), bytes(spoiled)
        feed(log_of(built), writes)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-3000, 100_000), st.binary(max_size=3000)), max_size=10))
def test_random_writes_raise_nothing(writes: list[tuple[int, bytes]]) -> None:
    feed(log_of(XfsBuilder()), writes)


def test_what_is_kept_has_a_bound_whatever_comes() -> None:
    """Records of 256 KiB out of order, each without its last sector; and a first one that never comes."""
    built = XfsBuilder(log_sectors=65536, size_bytes=262144)
    built.write(built.record(built.checkpoint(1, built.buffer(8, 8))))
    record = built.record([(1, 1, b""), (1, 0, b"h" * 260_000)])[1]
    records = [(0, built.writes[0][1])]
    for index in range(2, 30):
        sector = index * 600
        content = bytearray(record)
        struct.pack_into(">Q", content, 16, 3 << 32 | sector)
        content[32:36] = bytes(4)
        records.append((sector * 512, bytes(content[: len(content) - 512 * (index % 2)])))
    log = log_of(built)
    tracemalloc.start()
    try:
        feed(log, records)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def spoiled(offset: int, layout: str, *values: int) -> bytes:
    block = bytearray(XfsBuilder().superblock())
    struct.pack_into(layout, block, offset, *values)
    return with_xfs_sum(block)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"XFSB", "superblock of XFS"),
        (spoiled(48, ">Q", 0), "log is on another device"),
        (spoiled(4, ">I", 1000), "impossible numbers"),
        (spoiled(96, ">I", 1 << 30), "impossible numbers"),
        (spoiled(48, ">Q", 9 << 15), "impossible numbers"),
        (spoiled(100, ">H", 0xB084), "version 1"),
        (spoiled(0xD8, ">I", 0x10000), "it has features that this program does not know (0x10000)"),
        (spoiled(0xDC, ">I", 0x3), "its log has features that this program does not know (0x2)"),
        (XfsBuilder().superblock()[:300] + b"x" + XfsBuilder().superblock()[301:], "checksum of its superblock"),
    ],
)
def test_why_a_superblock_is_refused(block: bytes, words: str) -> None:
    with pytest.raises(NotUnderstood) as refused:
        read_xfs_superblock(block)
    assert words in str(refused.value)


def test_of_a_larger_sector_that_was_read_in_part_the_checksum_is_not_known() -> None:
    block = bytearray(XfsBuilder().superblock())
    struct.pack_into(">H", block, 102, 4096)
    assert read_xfs_superblock(bytes(block[:512])).block_bytes == 4096
    with pytest.raises(NotUnderstood, match="checksum"):
        read_xfs_superblock(bytes(block))


@pytest.mark.parametrize(
    ("spoil", "words"), [("sum", "its checksum is wrong"), ("identity", "no record of this file system")]
)
def test_a_log_of_which_no_record_counts_has_a_problem_until_one_does(spoil: str, words: str) -> None:
    built = XfsBuilder()
    log = log_of(built)
    wrong = [built.record([(1, 0, bytes(30_000))], spoil=spoil) for _ in range(150)]
    if spoil == "identity":
        wrong = [(first, content[:304] + bytes(16) + content[320:]) for first, content in wrong]
    for record in wrong:
        built.write(record)
    feed(log, built.writes[:100])
    assert log.problem == "", "no more than what the kernel may have on the way"
    feed(log, built.writes[100:])
    assert "not understood" in log.problem and words in log.problem
    built.writes.clear()
    built.write(built.record(built.checkpoint(7, built.buffer(8, 8))))
    feed(log, built.writes)
    assert log.problem == ""
    feed(log, [(0, bytes(1 << 20))] * 5)
    assert log.problem
    log.lost("records of writes were lost")
    assert log.problem == "", "nothing is known of it"


def test_the_identity_of_before_a_change_is_that_of_the_log() -> None:
    block = bytearray(XfsBuilder().superblock())
    assert read_xfs_superblock(bytes(block)).uuid == bytes(range(16))
    struct.pack_into(">I", block, 0xD8, 4)
    block[248:264] = b"U" * 16
    assert read_xfs_superblock(with_xfs_sum(block)).uuid == b"U" * 16


def test_a_checkpoint_in_a_stream_consists_of_every_record_since_the_one_before_it() -> None:
    """Recovery stops at the first record that is not on the disk, whosever it is."""
    built = XfsBuilder()
    long = built.checkpoint(2, built.buffer(8, 8), built.buffer(16, 8))
    built.write(built.record(built.checkpoint(1, built.buffer(8, 8))))
    second = built.sector
    built.write(built.record(long[:3]))
    third = built.sector
    built.write(built.record(built.checkpoint(3, built.buffer(8, 8))))
    fourth = built.sector
    built.write(built.record(long[3:]))
    for in_stream in (False, True):
        log = XfsLog(read_xfs_superblock(built.superblock()), follows_stream=in_stream)
        first, other, last = (log.runs_of(one) for one in feed(log, built.writes))
        assert first == ((0, second * 512),)
        assert other == (((second if in_stream else third) * 512, (fourth - (second if in_stream else third)) * 512),)
        assert last == ((second * 512, (built.sector - second) * 512),), "from its start on"
