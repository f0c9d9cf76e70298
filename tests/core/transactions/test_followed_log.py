"""The log of a volume is followed in its captured writes; other writes there do not matter, and nothing raises."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.tracking.capture_record import Operation
from pydbt.core.transactions.crc import crc32c
from pydbt.core.transactions.followed_log import NO_FOOTING, EndedTransaction, FollowedLog
from pydbt.core.transactions.jbd2_blocks import JBD2_MAGIC
from pydbt.core.transactions.log_place import LogPlace, find_log
from pydbt.core.units import MIB
from tests.core.transactions.captured import Written
from tests.core.transactions.test_on_disk import Ext4Image
from tests.lab import file_system_logs
from tests.lab.file_system_logs import FAST, REVOKES, V3, WIDE, Jbd2Builder, XfsBuilder, fast_commit

MAGIC = JBD2_MAGIC.to_bytes(4, "big")
FIRST = 24 * 1024  # of the journal on an ``Ext4Image`` with blocks of 1 KiB


class Ext4:
    """A volume with a journal of 400 blocks of 1 KiB, and its log, followed from the middle on."""

    def __init__(self) -> None:
        self.built = Jbd2Builder(1024, 400)
        self.image = Ext4Image(self.built, pieces=1)
        self.image.put((0, self.built.superblock()))
        self.place = find_log(self.image.read, len(self.image.content))
        self.log = FollowedLog(self.place)

    def written(self) -> Written:
        """Everything that the journal's builder has written since the last time."""
        made = Written()
        for offset, data in self.built.writes:
            made.write(FIRST + offset, data)
        self.built.writes.clear()
        return made

    def take(self, written: Written) -> list[EndedTransaction]:
        return self.log.captured(written.records(), written.payload)


def names(ended: list[EndedTransaction]) -> list[str]:
    return [f"{one.transaction.name} {one.transaction.state}" for one in ended]


def with_footing() -> Ext4:
    volume = Ext4()
    assert volume.log.problem == NO_FOOTING
    volume.built.transaction(5, 6)
    assert volume.take(volume.written()) == [], "it began before the log was joined"
    assert volume.log.problem == ""
    return volume


def test_each_transaction_is_told_once_with_the_write_that_ended_it_and_what_it_is() -> None:
    volume = with_footing()
    volume.built.transaction(5, 6, 7)
    volume.built.transaction(9)
    written = Written()
    written.write(0, bytes(512))  # somewhere else
    for offset, data in volume.built.writes:
        written.write(FIRST + offset, data)
        written.complete(FIRST + offset, len(data))
    ended = volume.take(written)
    assert names(ended) == ["8 committed", "9 committed"]
    assert [one.index for one in ended] == [9, 15] and [one.ordinal for one in ended] == [1, 2]
    # The first transaction has four blocks from block 1 of the journal on.
    assert [one.runs for one in ended] == [((FIRST + 5 * 1024, 5 * 1024),), ((FIRST + 10 * 1024, 3 * 1024),)]
    assert ended[0].transaction.named.tolist() == [[number * 1024, 1024] for number in (5, 6, 7)]


def test_writes_may_be_merged_and_reach_beyond_the_log() -> None:
    volume = with_footing()
    volume.built.transaction(5, 6)
    volume.built.transaction(7)
    first = volume.built.writes[0][0]
    whole = b"".join(data for _, data in volume.built.writes)
    written = Written()
    written.write(FIRST + first, whole)
    assert names(volume.take(written)) == ["8 committed", "9 committed"]


def test_a_transaction_that_goes_on_at_the_logs_beginning_has_two_runs() -> None:
    volume = with_footing()
    found: list[EndedTransaction] = []
    for _ in range(170):
        volume.built.transaction(1, 2, 3)
        found += volume.take(volume.written())
    assert [one.transaction.number for one in found] == list(range(8, 178))
    places = [one.runs for one in found]
    assert ((FIRST + 395 * 1024, 5 * 1024),) in places
    assert sum(length for runs in places for _, length in runs) == 170 * 5 * 1024
    assert all(FIRST < offset < FIRST + 400 * 1024 for runs in places for offset, _ in runs)
    assert ((FIRST + 396 * 1024, 4 * 1024), (FIRST + 1024, 1024)) in places


@pytest.mark.parametrize("op", [Operation.WRITE_ZEROES, Operation.DISCARD, Operation.WRITE])
def test_a_write_to_the_log_without_data_ends_what_is_open_and_the_log_is_found_again(op: Operation) -> None:
    volume = with_footing()
    volume.built.descriptor({5: bytes(1024)})
    assert volume.take(volume.written()) == []
    hole = Written()
    hole.write(FIRST + 300 * 1024, None, op=op, sectors=2)
    ended = volume.take(hole)
    assert names(ended) == ["8 abandoned"] and "without their data" in ended[0].transaction.reason
    assert volume.log.problem == NO_FOOTING
    volume.built.commit()
    volume.built.transaction(6)
    assert names(volume.take(volume.written())) == ["9 committed"]


def test_where_the_journals_superblock_was_written_without_data_nothing_is_told_before_it_is_read_again() -> None:
    volume = with_footing()
    hole = Written()
    hole.write(FIRST, None, sectors=2)
    volume.take(hole)
    assert volume.log.moved and volume.log.unseen and "superblock" in volume.log.problem
    volume.built.transaction(5)
    assert volume.take(volume.written()) == []
    again = FollowedLog(volume.place, volume.log.next_ordinal, volume.log)
    assert again.problem == NO_FOOTING and not again.unseen
    volume.log = again
    for _ in range(2):
        volume.built.transaction(5)
    assert names(volume.take(volume.written())) == ["10 committed"]


def test_lost_records_abandon_what_is_open() -> None:
    volume = with_footing()
    volume.built.descriptor({5: bytes(1024)})
    volume.take(volume.written())
    (lost,) = volume.log.lost("records of writes were lost")
    assert (lost.name, lost.reason) == ("8", "records of writes were lost")
    assert volume.log.lost("again") == []


def test_a_fast_commit_is_one_of_its_own() -> None:
    built = Jbd2Builder(1024, 1300, incompat=REVOKES | WIDE | V3 | FAST, fast_blocks=256)
    image = Ext4Image(built)
    image.put((0, built.superblock()))
    log = FollowedLog(find_log(image.read, len(image.content)))
    written = Written()
    written.write(FIRST + 1045 * 1024, fast_commit(8, [(5, b"x" * 20)], 1024, head=True))
    (ended,) = log.captured(written.records(), written.payload)
    assert (ended.transaction.name, ended.runs) == ("8.1", ((FIRST + 1045 * 1024, 1024),))


def test_a_write_to_what_tells_where_the_log_is_asks_for_a_look_only_when_it_changes_that() -> None:
    volume = Ext4()
    same = Written()
    same.write(1024, volume.image.read(1024, 1024))
    same.write(5 * 1024, volume.image.read(5 * 1024, 8 * 1024))
    assert volume.take(same) == [] and not volume.log.moved
    counters = Written()
    block = bytearray(volume.image.read(1024, 1024))
    block[0x30:0x34] = b"time"
    counters.write(1024, bytes(block))
    volume.take(counters)
    assert not volume.log.moved
    block[0x68] ^= 1  # another identity
    changed = Written()
    changed.write(1024, bytes(block))
    volume.take(changed)
    assert volume.log.moved


def test_zeroes_over_the_superblock_ask_for_a_look() -> None:
    volume = Ext4()
    zeroes = Written()
    zeroes.write(0, None, op=Operation.WRITE_ZEROES, sectors=16)
    volume.take(zeroes)
    assert volume.log.moved


def test_a_log_that_stays_where_it_is_keeps_its_footing_and_its_count() -> None:
    volume = with_footing()
    volume.built.transaction(5)
    volume.take(volume.written())
    volume.log = FollowedLog(
        find_log(volume.image.read, len(volume.image.content)), volume.log.next_ordinal, volume.log
    )
    volume.built.transaction(6)
    assert [(one.transaction.name, one.ordinal) for one in volume.take(volume.written())] == [("9", 2)]


def test_a_transaction_of_a_log_in_very_many_pieces_has_its_pieces_and_nothing_between_them() -> None:
    volume = Ext4()
    # Each block of the journal is in a place of its own, two apart from the next.
    extents = tuple((FIRST + number * 2048, 1024) for number in range(400))
    volume.log = FollowedLog(LogPlace("ext4", extents, (), volume.built.superblock()))
    for count in (1, 30, 62):
        volume.built.transaction(*range(count))
    for part in range(2):
        volume.built.descriptor({100 * part + number: bytes(1024) for number in range(40)})
    volume.built.commit()
    written = Written()
    for offset, data in volume.built.writes:
        written.write(FIRST + offset * 2, data)
    found = volume.take(written)
    assert [len(one.runs) for one in found] == [32, 64, 83]
    first = 1 + 3 + 32 + 64
    assert found[-1].runs == tuple(extents[first : first + 83])


def test_a_superblock_of_another_journal_in_the_stream_begins_another_log() -> None:
    volume = with_footing()
    volume.built.transaction(5)
    assert [one.ordinal for one in volume.take(volume.written())] == [1] and volume.log.renewed_from == 1
    other = Written()
    other.write(FIRST, Jbd2Builder(1024, 400, incompat=0).superblock())
    volume.take(other)
    assert volume.log.renewed_from == 2
    again = FollowedLog(volume.place, volume.log.next_ordinal, volume.log)
    assert again.renewed_from == 2, "the same log, at the same place"


@pytest.mark.parametrize("seen", [False, True])
def test_a_file_system_that_was_made_since_is_another_one_although_its_journal_looks_the_same(seen: bool) -> None:
    volume = with_footing()
    volume.built.transaction(5)
    volume.take(volume.written())
    volume.image.set(1024 + 0x108, "<I", 1_795_968_429)
    place = find_log(volume.image.read, len(volume.image.content))
    assert place != volume.place
    made = Written()
    made.write(1024, bytes(volume.image.content[1024:2048]))
    if seen:
        made.write(FIRST, volume.built.superblock(start=0, sequence=1))
    volume.take(made)
    assert volume.log.moved and volume.log.renewed_from == (2 if seen else 1)
    again = FollowedLog(place, volume.log.next_ordinal, volume.log)
    assert again.renewed_from == 2 and again.problem == NO_FOOTING
    assert FollowedLog(place, 9, again).renewed_from == 2


def test_an_xfs_that_was_made_anew_with_the_same_identity_is_told_by_its_log() -> None:
    old, new = XfsBuilder(cycle=1), XfsBuilder(cycle=1)
    log = FollowedLog(xfs_place(old))
    old.write(old.record(old.checkpoint(1, old.buffer(8, 8))))
    old.write(old.record(old.checkpoint(2, old.buffer(8, 8))))
    new.write(new.record(new.checkpoint(1, new.buffer(8, 8))))
    written = Written()
    for offset, data in old.writes:
        written.write(16 * 4096 + offset, data)
    assert names(log.captured(written.records(), written.payload)) == ["1:0 committed", "1:2 committed"]
    assert log.renewed_from == 1
    made = Written()
    made.write(16 * 4096, None, op=Operation.WRITE_ZEROES, sectors=8192)
    for offset, data in new.writes:
        made.write(16 * 4096 + offset, data)
    assert names(log.captured(made.records(), made.payload)) == ["1:0 committed"] and log.renewed_from == 3


def xfs_place(built: XfsBuilder) -> LogPlace:
    def read(offset: int, length: int) -> bytes:
        return built.superblock()[offset : offset + length].ljust(length, b"\0")

    return find_log(read, 1 << 28)


def test_checkpoints_of_xfs_are_told_with_everything_from_start_to_commit() -> None:
    built = XfsBuilder(log_sectors=64)
    log, found = FollowedLog(xfs_place(built)), []
    for tid in range(40):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
        written = Written()
        for offset, data in built.writes:
            written.write(16 * 4096 + offset, data)
        built.writes.clear()
        found += log.captured(written.records(), written.payload)
    assert len(found) == 40 and log.problem == ""
    assert [one.ordinal for one in found] == list(range(1, 41))
    assert found[0].runs == ((16 * 4096, 2 * 512),)
    numbers = [one.transaction.number for one in found]
    assert numbers == sorted(set(numbers))


def hostile(generator: random.Random) -> Written:
    """Anything at all, most of it near the log and what is watched, some of it a real journal, cut and mixed."""
    built = Jbd2Builder(1024, 400, sequence=generator.randrange(1 << 32))
    for _ in range(6):
        built.descriptor({generator.randrange(1 << 31): generator.randbytes(1024)})
        built.commit(spoil=generator.random() < 0.2)
    written = Written()
    for offset, data in built.writes:
        data = bytearray(data)
        if generator.random() < 0.3:
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        cut = generator.choice((len(data), 512))
        written.write(FIRST + offset + generator.choice((0, 0, 0, 512, -512)), bytes(data[:cut]))
        if generator.random() < 0.2:
            op = generator.choice((Operation.DISCARD, Operation.WRITE_ZEROES, Operation.WRITE))
            written.write(generator.randrange(1 << 20), None, op=op, sectors=generator.randrange(5000))
        if generator.random() < 0.2:
            written.write(generator.randrange(40) * 512, generator.randbytes(512 * generator.randrange(1, 9)))
    return written


def in_one_piece(generator: random.Random) -> list[Written]:
    """A journal's writes in batches: mostly whole blocks, some out of place, twice, spoiled, or not there."""
    built = Jbd2Builder(1024, 400, start=generator.randrange(1, 390))
    damage = generator.choice((0.0, 0.05))
    for _ in range(30):
        built.descriptor(
            {generator.randrange(1 << 31): generator.randbytes(1024) for _ in range(generator.randrange(1, 5))}
        )
        if generator.random() < 0.2:
            built.revoke([generator.randrange(1 << 31)])
        built.commit(spoil=generator.random() < 2 * damage)
    batches = [Written(whole=True)]
    size, before_control, anywhere = generator.choice((10, 60)), generator.choice((0, 1)), generator.choice((0, 0, 0.3))
    for offset, data in built.writes:
        if generator.random() < max(before_control * (data[:4] == MAGIC), anywhere):
            batches[-1].complete(FIRST + offset, 1024)
        if generator.random() < damage:
            continue
        if generator.random() < damage / 2:
            spoiled = bytearray(data)
            spoiled[generator.randrange(len(data) if generator.random() < 0.3 else 64)] ^= 1 << generator.randrange(8)
            data = bytes(spoiled)
        for _ in range(1 + (generator.random() < damage)):
            batches[-1].write(FIRST + offset, data)
        if generator.random() < 0.02:
            batches[-1].write(FIRST + offset, data[:512])
        if generator.random() < 1 / size:
            batches.append(Written(whole=True))
    return batches


@pytest.mark.parametrize("seed", range(6))
def test_the_quick_way_for_whole_blocks_tells_the_same_as_the_other(seed: int) -> None:
    generator = random.Random(seed)
    committed = 0
    for _ in range(10):
        quick, slow = Ext4(), Ext4()
        for batch in in_one_piece(generator):
            batch.whole = True
            found = quick.take(batch)
            batch.whole = False
            other = slow.take(batch)
            assert names(found) == names(other)
            assert [(one.index, one.runs, one.ordinal) for one in found] == [
                (o.index, o.runs, o.ordinal) for o in other
            ]
            assert quick.log.problem == slow.log.problem
            named = [(one.transaction.named.tolist(), one.transaction.revoked.tolist()) for one in found]
            assert named == [(o.transaction.named.tolist(), o.transaction.revoked.tolist()) for o in other]
            committed += sum(name.endswith("committed") for name in names(found))
    assert committed > 50


@pytest.mark.parametrize("seed", range(5))
def test_no_writes_raise_and_nothing_is_told_twice(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(20):
        volume = Ext4()
        told: list[int] = []
        for _ in range(3):
            told += [one.ordinal for one in volume.take(hostile(generator))]
        assert told == list(range(1, len(told) + 1))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2000), st.one_of(st.none(), st.binary(min_size=512, max_size=4096)), st.integers(0, 3000)
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_random_batches_raise_nothing(rows: list[tuple[int, bytes | None, int]], xfs: bool) -> None:
    log = FollowedLog(xfs_place(XfsBuilder())) if xfs else Ext4().log
    written = Written()
    for sector, data, sectors in rows:
        written.write(sector * 512, None if data is None else data[: len(data) // 512 * 512], sectors=sectors)
    log.captured(written.records(), written.payload)


def test_data_that_does_not_make_up_a_write_counts_as_none() -> None:
    volume = with_footing()
    volume.built.transaction(5)
    written = volume.written()
    assert volume.log.captured(written.records(), lambda _: []) == []
    assert volume.log.problem == NO_FOOTING


@pytest.mark.parametrize("whole", [True, False])
def test_whole_blocks_whose_data_does_not_come_count_as_none(whole: bool) -> None:
    volume = with_footing()
    for home in range(5):
        volume.built.transaction(home)
    written = volume.written()
    written.whole = whole

    def payload(records: np.ndarray) -> list[memoryview]:
        return written.payload(records)[:-1]

    ended = volume.log.captured(written.records(), payload)
    assert sum(name.endswith("committed") for name in names(ended)) < 5
    assert volume.log.problem == NO_FOOTING


def test_a_write_without_data_is_missed_also_where_another_one_came_in_two_pieces() -> None:
    volume = with_footing()
    volume.built.descriptor({5: bytes(1024), 6: bytes(1024)})
    written = volume.written()
    del written.rows[1:]
    written.write(FIRST + 6 * 1024, None, op=Operation.DISCARD, sectors=2)
    pieces = written.payload(written.records()[:1])
    assert names(volume.log.captured(written.records(), lambda _: pieces)) == ["8 abandoned"]
    assert volume.log.problem == NO_FOOTING


def test_only_the_control_blocks_of_the_writes_that_jbd2_waited_for_are_looked_at() -> None:
    volume = with_footing()
    for number in range(20):
        volume.built.descriptor({home: bytes((number,)) * 1024 for home in range(6)})
        volume.built.commit()
    written, looked_at = Written(whole=True), 0
    for offset, data in volume.built.writes:
        if data[:4] == MAGIC:
            written.complete(FIRST + offset, 1024)
        written.write(FIRST + offset, data)

    def payload(records: np.ndarray) -> list[memoryview]:
        nonlocal looked_at
        looked_at += len(records)
        return written.payload(records)

    ended = volume.log.captured(written.records(), payload)
    assert len(ended) == 20 and looked_at == 40
    assert ended[19].transaction.named[:, 0].tolist() == [home * 1024 for home in range(6)]


def test_batches_without_a_write_to_the_log_leave_their_data_alone() -> None:
    volume = Ext4()
    elsewhere = Written()
    for block in range(500, 520):
        elsewhere.write(block * 1024, bytes(1024))

    def payload(records: np.ndarray) -> list[memoryview]:
        raise AssertionError("nobody may look at these")

    assert volume.log.captured(elsewhere.records(), payload) == []


def test_memory_has_a_bound_whatever_comes() -> None:
    volume = Ext4()
    generator = random.Random(1)
    batches = [hostile(generator) for _ in range(30)]
    tracemalloc.start()
    try:
        for batch in batches:
            volume.take(batch)
        assert tracemalloc.get_traced_memory()[0] < 4 * MIB
    finally:
        tracemalloc.stop()


@pytest.fixture
def quick_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builders of large logs take the library's checksum: that it is the right one is another test."""
    monkeypatch.setattr(file_system_logs, "slow_crc32c", crc32c)


def peak_of(log: FollowedLog, records: np.ndarray, written: Written) -> tuple[list[EndedTransaction], int]:
    tracemalloc.start()
    try:
        ended = log.captured(records, written.payload)
        return ended, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("quick_sums")
@pytest.mark.parametrize("waits", [False, True])
def test_the_largest_batch_of_mixed_transactions_is_read_in_bounded_memory_at_its_peak(waits: bool) -> None:
    """The quick way: most descriptors name one block, and between them some name nearly as many as fit."""
    chance, size, first = random.Random(7), 4096, 1 << 20
    built = Jbd2Builder(size, 20_000, REVOKES | WIDE | V3)
    log = FollowedLog(LogPlace("ext4", ((first, 20_000 * size),), (), built.superblock()))
    zeros, written, numbers = bytes(size), Written(whole=True), []
    built.transaction(1)
    for offset, data in built.writes:
        written.write(first + offset, data)
    assert log.captured(written.records(), written.payload) == [] and log.problem == ""
    built.writes.clear()
    written = Written(whole=True)
    while len(written.rows) < 16_384:
        numbers.append(built.sequence)
        built.descriptor(dict.fromkeys(range(chance.choice((1,) * 60 + (6,) * 20 + (250,))), zeros))
        built.commit()
        for offset, data in built.writes:
            if waits and data[:4] == MAGIC:
                written.complete(first, size)
            written.write(first + offset, data)
        built.writes.clear()
    ended, peak = peak_of(log, written.records(), written)
    assert [one.transaction.number for one in ended] == numbers
    assert peak < 4 * MIB, peak / MIB


@pytest.mark.usefixtures("quick_sums")
def test_a_large_batch_of_an_xfs_is_read_in_bounded_memory_at_its_peak() -> None:
    built = XfsBuilder(log_sectors=65536)
    block = built.superblock()
    place = find_log(lambda offset, length: block[offset:][:length].ljust(length, b"\0"), 65536 * 4096)
    log, written = FollowedLog(place), Written(whole=True)
    for tid in range(1_000):
        built.write(built.record(built.checkpoint(tid, built.buffer(8 * tid, 8))))
    for offset, data in built.writes:
        written.write(place.extents[0][0] + offset, data)
    ended, peak = peak_of(log, written.records(), written)
    assert len(ended) == 1_000
    assert peak < 2 * MIB, peak / MIB


@pytest.mark.parametrize("extents", [True, False])
def test_a_journal_that_moves_by_a_block_of_its_block_map_alone_is_found_again(extents: bool) -> None:
    image = Ext4Image(built := Jbd2Builder(1024, 400), extents=extents, pieces=3)
    image.put((0, built.superblock()))
    log = FollowedLog(find_log(image.read, len(image.content)))
    node = bytes(image.content[20 * 1024 : 21 * 1024])
    for content, moves in ((node, False), (node[:24] + b"\1" + node[25:], True)):
        written = Written()
        written.write(20 * 1024, content)
        log.captured(written.records(), written.payload)
        assert log.moved is moves
