"""A jbd2 journal is followed by its writes, whatever their sizes; a transaction counts when all of it has come, in its place."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.transactions.jbd2_blocks import NotUnderstood, read_journal_superblock
from pydbt.core.transactions.jbd2_log import Jbd2Log
from pydbt.core.transactions.transaction import JournalTransaction, TransactionState
from pydbt.core.units import MIB
from tests.lab.file_system_logs import (
    ASYNC,
    FAST,
    REVOKES,
    TIME_NS,
    TIME_S,
    V2,
    V3,
    WIDE,
    Jbd2Builder,
    fast_commit,
    run_of,
)

FORMATS = [REVOKES, REVOKES | WIDE, REVOKES | V2, REVOKES | WIDE | V2 | ASYNC, REVOKES | V3, REVOKES | WIDE | V3]


def feed(log: Jbd2Log, writes: Iterable[tuple[int, bytes]]) -> list[JournalTransaction]:
    return [one for offset, data in writes for one in log.written(offset, data)]


def split(writes: Iterable[tuple[int, bytes]], size: int) -> list[tuple[int, bytes]]:
    return [(offset + at, data[at : at + size]) for offset, data in writes for at in range(0, len(data), size)]


def merged(writes: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for offset, data in writes:
        if found and found[-1][0] + len(found[-1][1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + data)
        else:
            found.append((offset, data))
    return found


def states(found: list[JournalTransaction]) -> list[tuple[str, str]]:
    return [(one.name, one.state.value) for one in found]


@pytest.mark.parametrize("incompat", FORMATS)
@pytest.mark.parametrize("block_bytes", [1024, 2048, 4096, 65536])
def test_each_format_of_tags_and_checksums_is_read(incompat: int, block_bytes: int) -> None:
    built = Jbd2Builder(block_bytes, 64, incompat)
    high = (5 << 32 | 9) if incompat & WIDE else 9
    built.descriptor({high: b"a" * block_bytes, 12: b"b" * block_bytes})
    built.revoke([high, 77])
    built.descriptor({13: b"c" * block_bytes})
    built.commit()
    for writes in (built.writes, merged(built.writes), split(built.writes, 512), split(built.writes, 1536)):
        (one,) = feed(Jbd2Log(built.superblock()), writes)
        assert (one.name, one.number, one.state) == ("7", 7, TransactionState.COMMITTED)
        assert one.committed_ns == (TIME_S + 7) * 10**9 + TIME_NS
        assert one.named.tolist() == [run_of(number, block_bytes) for number in (high, 12, 13)]
        assert one.revoked.tolist() == [run_of(number, block_bytes) for number in (high, 77)]
        assert (one.first_block, one.block_count, one.named_whole) == (1, 7, True)


def test_a_checksum_of_the_whole_transaction_is_compared() -> None:
    for spoil in (False, True):
        built = Jbd2Builder(incompat=REVOKES, whole_sums=True)
        built.descriptor({5: b"x" * 1024})
        built.commit(spoil)
        (one,) = feed(Jbd2Log(built.superblock()), built.writes)
        assert (one.state is TransactionState.ABANDONED, "checksum" in one.reason) == (spoil, spoil)


def test_a_commit_block_without_a_checksum_of_the_whole_is_accepted() -> None:
    built = Jbd2Builder(incompat=REVOKES, whole_sums=True)
    built.descriptor({5: b"x" * 1024})
    built.whole_sums = False
    built.commit()
    built.whole_sums = True
    assert states(feed(Jbd2Log(built.superblock(sequence=7)), built.writes)) == [("7", "committed")]


def test_the_log_goes_on_at_its_beginning() -> None:
    built = Jbd2Builder(block_count=17)
    for number in range(40):
        built.transaction(100 + number, 200 + number, 300)
    found = feed(Jbd2Log(built.superblock()), built.writes)
    assert states(found) == [(str(number), "committed") for number in range(7, 47)]
    assert any(one.first_block + one.block_count > 17 for one in found), "one of them wraps"


def test_numbers_of_transactions_go_on_with_0() -> None:
    built = Jbd2Builder(sequence=0xFFFFFFFE)
    for _ in range(4):
        built.transaction(5)
    found = feed(Jbd2Log(built.superblock(sequence=0xFFFFFFFE)), built.writes)
    assert [one.number for one in found] == [0xFFFFFFFE, 0xFFFFFFFF, 0, 1]


@pytest.mark.parametrize("skipped", range(1, 8))
def test_a_log_that_is_joined_in_the_middle_finds_its_footing_behind_the_next_commit(skipped: int) -> None:
    built = Jbd2Builder()
    for _ in range(4):
        built.transaction(5, 6)
    log = Jbd2Log(built.superblock(), from_start=False)
    found = feed(log, built.writes[skipped:])
    assert found and all(one.state is TransactionState.COMMITTED for one in found)
    assert [one.number for one in found] == list(range(8 + skipped // 4, 11))


def test_a_superblock_tells_where_the_log_starts() -> None:
    """As at a mount: it is written before the first transaction."""
    built = Jbd2Builder(start=20)
    log = Jbd2Log(built.superblock(start=0))
    built.transaction(5)
    assert states(feed(log, [(0, built.superblock(sequence=7)), *built.writes])) == [("7", "committed")]


@pytest.mark.parametrize(("opened", "number"), [(False, 8), (False, 9), (True, 9)])
def test_a_mount_goes_on_at_another_place(opened: bool, number: int) -> None:
    """After an unmount with the next number; after a crash, which recovery ends, with one more."""
    built = Jbd2Builder()
    built.transaction(5)
    if opened:
        built.descriptor({6: bytes(1024)})
    again = Jbd2Builder(start=30, sequence=number)
    again.transaction(7)
    found = feed(Jbd2Log(built.superblock()), [*built.writes, (0, again.superblock()), *again.writes])
    assert states(found)[-1] == (str(number), "committed")
    assert [one.reason for one in found[1:-1]] == ["the file system was mounted anew"] * opened


def test_a_superblock_of_the_log_s_tail_changes_nothing() -> None:
    built = Jbd2Builder()
    built.transaction(5)
    built.transaction(5)
    built.descriptor({6: bytes(1024)})
    built.writes.append((0, built.superblock(start=4, sequence=8)))
    built.commit()
    built.writes.append((0, built.superblock(start=7, sequence=9)))
    built.transaction(7)
    found = feed(Jbd2Log(built.superblock()), built.writes)
    assert states(found) == [(str(number), "committed") for number in (7, 8, 9, 10)]


@pytest.mark.parametrize("tail_was_told", [False, True])
def test_a_journal_of_the_same_layout_whose_numbers_begin_again_is_another_one(tail_was_told: bool) -> None:
    """mkfs with the identity of before, where no feature of the journal tells the two apart."""
    built = Jbd2Builder()
    log = Jbd2Log(built.superblock())
    for _ in range(3):
        built.transaction(5)
    if tail_was_told:
        built.writes.append((0, built.superblock(start=4, sequence=8)))
    feed(log, built.writes)
    assert log.layouts == 1
    made = Jbd2Builder(sequence=7 if tail_was_told else 9)
    made.transaction(6)
    feed(log, [(0, made.superblock(start=0))])
    assert log.layouts == 2
    found = feed(log, [(0, made.superblock(start=1)), *made.writes])
    assert states(found) == [(str(made.first), "committed")] and log.layouts == 2


def test_an_unmount_and_the_mount_behind_it_are_of_the_same_journal() -> None:
    built = Jbd2Builder()
    log = Jbd2Log(built.superblock())
    for start, sequence in ((0, 8), (4, 8), (0, 9), (0, 9), (7, 9), (0, 10)):
        feed(log, [(0, built.superblock(start=start, sequence=sequence))])
        if start or built.sequence == 7:
            built.transaction(5)
            feed(log, built.writes)
            built.writes.clear()
    assert log.layouts == 1


def test_an_open_transaction_is_told() -> None:
    built = Jbd2Builder()
    log = Jbd2Log(built.superblock())
    assert log.open is None
    built.descriptor({9: bytes(1024)})
    assert not feed(log, built.writes)
    assert log.open is not None and (log.open.name, log.open.state.value, log.open.block_count) == ("7", "open", 2)


def test_a_block_that_did_not_come_is_told() -> None:
    built = Jbd2Builder()
    built.transaction(5, 6)
    del built.writes[1]
    (one,) = feed(Jbd2Log(built.superblock()), built.writes)
    assert one.state is TransactionState.ABANDONED and "1 of its blocks did not come" in one.reason


@pytest.mark.parametrize("incompat", [V2, V3])
def test_content_that_is_not_that_of_the_tag_is_told(incompat: int) -> None:
    built = Jbd2Builder(incompat=REVOKES | incompat)
    built.transaction(5, 6)
    built.transaction(7)
    built.writes[2] = (built.writes[2][0], bytes(1024))
    found = feed(Jbd2Log(built.superblock(sequence=7)), built.writes)
    assert states(found) == [("7", "abandoned"), ("8", "committed")] and "block 3 of the journal" in found[0].reason


def test_a_control_block_with_a_wrong_checksum_ends_the_transaction_and_the_next_commit_gives_footing() -> None:
    built = Jbd2Builder()
    built.descriptor({5: bytes(1024)})
    built.descriptor({6: bytes(1024)}, spoil=True)
    built.commit()
    built.transaction(7)
    found = feed(Jbd2Log(built.superblock(sequence=7)), built.writes)
    assert states(found) == [("7", "abandoned"), ("8", "committed")] and "checksum" in found[0].reason


def test_a_damaged_block_elsewhere_changes_nothing() -> None:
    built = Jbd2Builder()
    stray = Jbd2Builder(start=40)
    stray.descriptor({5: bytes(1024)}, spoil=True)
    built.descriptor({5: bytes(1024)})
    built.writes += stray.writes
    built.commit()
    assert states(feed(Jbd2Log(built.superblock(sequence=7)), built.writes)) == [("7", "committed")]


def test_blocks_of_earlier_transactions_change_nothing() -> None:
    old, built = Jbd2Builder(sequence=3, start=30), Jbd2Builder()
    old.transaction(5)
    built.descriptor({5: bytes(1024)})
    built.writes += old.writes
    built.commit()
    assert states(feed(Jbd2Log(built.superblock(sequence=7)), built.writes)) == [("7", "committed")]


def test_lost_writes_abandon_the_open_transaction() -> None:
    built = Jbd2Builder()
    built.descriptor({5: bytes(1024)})
    kept = list(built.writes)
    built.commit()
    built.transaction(6)
    built.transaction(7)
    found = feed(Jbd2Log(built.superblock(sequence=7)), kept + built.writes[3:])
    assert states(found) == [("7", "abandoned"), ("9", "committed")] and "did not come" in found[0].reason


def test_a_new_file_system_abandons_the_open_transaction() -> None:
    built = Jbd2Builder()
    built.descriptor({5: bytes(1024)})
    log = Jbd2Log(built.superblock())
    other = Jbd2Builder(block_bytes=4096, incompat=REVOKES)
    found = feed(log, [*built.writes, (0, other.superblock(uuid=bytes(16)))])
    assert states(found) == [("7", "abandoned")] and "made anew" in found[0].reason
    other.transaction(9)
    assert states(feed(log, other.writes)) == [("7", "committed")]


def test_a_journal_that_is_not_understood_is_told_until_a_superblock_comes_that_is() -> None:
    built = Jbd2Builder()
    log = Jbd2Log(bytes(1024))
    assert "superblock of jbd2" in log.problem and log.open is None
    assert not log.written(1024, bytes(1024)) and not log.written(0, bytes(4096))
    built.descriptor({5: bytes(1024)})
    assert not feed(log, [(0, built.superblock(sequence=7)), *built.writes]) and not log.problem
    found = log.written(0, bytes(1024))
    assert states(found) == [("7", "abandoned")] and log.problem
    assert not feed(log, built.writes)


def spoiled(offset: int, layout: str, *values: int) -> bytes:
    block = bytearray(Jbd2Builder(incompat=REVOKES).superblock())
    struct.pack_into(layout, block, offset, *values)
    return bytes(block)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"", "cut off"),
        (spoiled(40, ">I", 0x40 | REVOKES), "features that this program does not know (0x40)"),
        (spoiled(12, ">I", 1000), "impossible numbers"),
        (spoiled(12, ">I", 512), "impossible numbers"),
        (spoiled(16, ">I", 1), "impossible numbers"),
        (spoiled(28, ">I", 64), "impossible numbers"),
        (spoiled(40, ">I", V3), "unknown kind (0)"),
        (Jbd2Builder().superblock()[:1000] + b"\1" * 24, "checksum of its superblock is wrong"),
    ],
)
def test_why_a_superblock_is_refused(block: bytes, words: str) -> None:
    with pytest.raises(NotUnderstood) as refused:
        read_journal_superblock(block)
    assert words in str(refused.value)


def test_a_superblock_of_version_1_has_no_features() -> None:
    block = bytearray(Jbd2Builder(incompat=0x40).superblock())
    struct.pack_into(">I", block, 4, 3)
    assert read_journal_superblock(bytes(block)).incompat == 0


def test_a_fast_commit_is_a_transaction_of_its_own() -> None:
    built = Jbd2Builder(block_count=1300, incompat=REVOKES | WIDE | V3 | FAST, fast_blocks=256)
    layout = read_journal_superblock(built.superblock())
    assert (layout.last_block, layout.fast_first_block) == (1044, 1045)
    built.transaction(5)
    log = Jbd2Log(built.superblock(sequence=7))
    assert len(feed(log, built.writes)) == 1
    area, tags = 1045 * 1024, [(6, bytes(100)), (1, bytes(16))]
    first = fast_commit(8, tags, 1024, True)
    second = fast_commit(8, tags * 9, 1024, False)
    found = feed(log, split([(area, first), (area + len(first), second)], 512))
    assert states(found) == [("8.1", "committed"), ("8.2", "committed")]
    assert [(one.first_block, one.block_count, one.committed_ns) for one in found] == [(1045, 1, None), (1046, 2, None)]
    # Behind the next full commit they begin again at the area's first block.
    built.writes.clear()
    built.transaction(6)
    built.writes.append((area, fast_commit(9, tags, 1024, True)))
    built.writes.append((area + 1024, fast_commit(9, tags, 1024, False, spoil=1)))
    built.writes.append((area + 2048, fast_commit(9, tags, 1024, False)))
    assert states(feed(log, built.writes)) == [("8", "committed"), ("9.1", "committed"), ("9.2", "abandoned")]


@pytest.mark.parametrize(
    "block",
    [
        struct.pack("<HH", 9, 9) + bytes(100),
        struct.pack("<HHII", 9, 8, 0, 8) + struct.pack("<HH", 12, 0),
        struct.pack("<HHII", 9, 8, 0, 8) + struct.pack("<HH", 6, 5000),
        struct.pack("<HHII", 9, 8, 0, 8) + struct.pack("<HH", 7, 1024 - 12 - 4 - 8) + struct.pack("<HH", 8, 8),
    ],
)
def test_what_is_no_row_of_tags_ends_the_fast_commits(block: bytes) -> None:
    built = Jbd2Builder(block_count=1300, incompat=REVOKES | WIDE | V3 | FAST, fast_blocks=256)
    log, area = Jbd2Log(built.superblock()), 1045 * 1024
    assert not log.written(area, block.ljust(1024, b"\0"))
    assert not log.written(area + 1024, fast_commit(8, [], 1024, False))


def test_an_area_of_fast_commits_that_leaves_no_room_for_the_log_is_none() -> None:
    built = Jbd2Builder(block_count=1100, incompat=REVOKES | FAST, fast_blocks=256)
    layout = read_journal_superblock(built.superblock())
    assert layout.last_block == 1100 and layout.fast_first_block > 1100


def hostile(generator: random.Random, built: Jbd2Builder) -> list[tuple[int, bytes]]:
    """Writes of a log in which something is wrong: bytes, order, place, or number of them."""
    writes = split(built.writes, generator.choice((512, 1024, 4096)))
    for _ in range(generator.randrange(6)):
        at = generator.randrange(len(writes))
        offset, data = writes[at]
        match generator.randrange(5):
            case 0:
                spoiled = bytearray(data)
                spoiled[generator.randrange(len(data))] = generator.randrange(256)
                writes[at] = offset, bytes(spoiled)
            case 1:
                writes.insert(generator.randrange(len(writes)), writes.pop(at))
            case 2:
                writes[at] = offset + generator.randrange(-2000, 2000), data
            case 3:
                writes[at] = offset, data[: generator.randrange(len(data))]
            case 4:
                writes.append(
                    (0, built.superblock(sequence=generator.randrange(1 << 32), start=generator.randrange(60)))
                )
    return writes


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_raise_and_none_are_called_committed_that_are_damaged(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(15):
        built = Jbd2Builder(incompat=generator.choice(FORMATS) | REVOKES, block_count=48)
        first = built.sequence
        for _ in range(12):
            built.descriptor(
                {generator.randrange(1 << 31): generator.randbytes(1024) for _ in range(generator.randrange(1, 4))}
            )
            if generator.random() < 0.3:
                built.revoke([generator.randrange(1 << 31)])
            built.commit()
        log = Jbd2Log(built.superblock(sequence=first))
        found = feed(log, hostile(generator, built))
        committed = [one.number for one in found if one.state is TransactionState.COMMITTED]
        assert all(one.reason for one in found if one.state is TransactionState.ABANDONED)
        if built.sums:
            assert set(committed) <= set(range(first, built.sequence))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-5000, 70_000), st.binary(max_size=3000)), max_size=12), st.sampled_from(FORMATS))
def test_random_writes_raise_nothing(writes: list[tuple[int, bytes]], incompat: int) -> None:
    log = Jbd2Log(Jbd2Builder(incompat=incompat).superblock())
    feed(log, writes)


def test_what_is_kept_has_a_bound_whatever_comes() -> None:
    """A transaction without an end that names ever more blocks; content that does not come; parts of blocks without the rest."""
    built = Jbd2Builder(block_bytes=65536, block_count=1 << 20, incompat=REVOKES | WIDE)
    head = struct.pack(">III", 0xC03B3998, 1, 7)
    many = (head + struct.pack(">IHHI", 9, 0, 2, 1) * 5460).ljust(65536, b"\0")
    revoke = struct.pack(">IIII", 0xC03B3998, 5, 7, 65536) + bytes(65520)
    log, content = Jbd2Log(built.superblock()), bytes(65536)
    tracemalloc.start()
    try:
        at = 1
        for _ in range(8):
            log.written(at * 65536, many)
            for place in range(at + 1, at + 5461):
                log.written(place * 65536, content)
            log.written((at + 5461) * 65536, revoke)
            at += 5462
        assert not log.written(at * 65536, many)
        for place in range(600_000, 600_040):
            log.written(place * 65536, bytes(512))
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        assert log.open is not None and not log.open.named_whole
    finally:
        tracemalloc.stop()


def test_more_blocks_than_can_be_awaited_end_the_transaction() -> None:
    built = Jbd2Builder(block_bytes=65536, block_count=1 << 20, incompat=REVOKES)
    log = Jbd2Log(built.superblock())
    descriptor = struct.pack(">III", 0xC03B3998, 1, 7) + struct.pack(">IHH", 9, 0, 2) * 8190
    found: list[JournalTransaction] = []
    at = 1
    for _ in range(2):
        found += log.written(at * 65536, descriptor.ljust(65536, b"\0"))
        at = 1 + (log.open.block_count if log.open is not None else 0)
    assert states(found) == [("7", "abandoned")] and "more blocks" in found[0].reason
