"""The watch of the file system's log finds the log, follows it, and never keeps replication from anything."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from pydbt.controller.primary import transaction_watch
from pydbt.controller.primary.transaction_watch import KEPT, READ_PAUSE_S, UNFOLLOWED_LOOK_S, TransactionWatch
from pydbt.core.errors import DeviceError
from pydbt.core.transactions.followed_log import NO_FOOTING, EndedTransaction
from pydbt.core.units import Geometry
from tests.core.transactions.captured import Written
from tests.core.transactions.test_on_disk import Ext4Image
from tests.lab.file_system_logs import TIME_S, Jbd2Builder
from tests.lab.patience import until

FIRST = 24 * 1024


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=1000.0)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(transaction_watch, "time", made)
    return made


class Story:
    """A volume with an ext4 that is written to."""

    def __init__(self, clock: SimpleNamespace) -> None:
        self.clock = clock
        self.built = Jbd2Builder(1024, 400)
        self.image = Ext4Image(self.built)
        self.image.put((0, self.built.superblock()))
        self.reads = 0
        self.watch = TransactionWatch(self.read, len(self.image.content))

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return self.image.read(offset, length)

    def look(self) -> None:
        """Begin what is due, and wait until it is over."""
        if self.watch._job is None and self.watch._looks:
            self.clock.now = max(self.clock.now, self.watch._looks[0])
        self.watch.advance(self.clock.now)
        until(lambda: self.watch._job is None or self.watch._job.ended.is_set(), "the device to be read")
        self.watch.advance(self.clock.now)

    def take(self, written: Written, lost: int = 0) -> tuple[EndedTransaction, ...]:
        return self.watch.captured(written.records(), written.payload, lost)

    def commit(self, count: int = 1, blocks: tuple[int, ...] = (5,)) -> tuple[EndedTransaction, ...]:
        written = Written()
        for _ in range(count):
            self.built.transaction(*blocks)
        for offset, data in self.built.writes:
            written.write(FIRST + offset, data)
        self.built.writes.clear()
        return self.take(written)


def test_the_log_is_found_in_a_thread_and_followed_from_its_next_commit_on(clock: SimpleNamespace) -> None:
    story = Story(clock)
    assert story.watch.problem == "the device has not been read yet" and story.watch.file_system is None
    story.look()
    assert (story.watch.problem, story.watch.file_system) == (NO_FOOTING, "ext4")
    assert story.commit() == () and story.watch.problem == ""
    assert [one.transaction.name for one in story.commit(2)] == ["8", "9"]
    (eight, nine) = story.watch.recent()
    assert (eight.name, eight.length_bytes, eight.changed) == ("8", 3 * 1024, [(5 * 1024, 1024)])
    assert story.watch.recent(after=eight.ordinal) == [nine]


def test_the_last_ones_are_kept_and_their_rate_is_that_of_the_last_seconds(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.look()
    for _ in range(60):
        clock.now += 0.5
        story.commit(10)
        rate = story.watch.per_second(clock.now)
    assert len(story.watch.recent()) == KEPT and story.watch.oldest_kept == story.watch.recent()[0].ordinal > 1
    assert 19 < rate < 21
    for _ in range(40):
        clock.now += 0.5
        rate = story.watch.per_second(clock.now)
    assert rate == 0


def test_a_changed_superblock_has_the_device_read_again_also_a_while_after(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.look()
    story.commit()
    reads = story.reads
    block = bytearray(story.image.read(1024, 1024))
    block[0x68] ^= 1
    written = Written()
    written.write(1024, bytes(block))
    story.take(written)
    story.look()
    assert story.reads > reads, "it is read at once"
    assert story.watch.problem == "", "what was written is not on the disk yet"
    story.image.content[1024:2048] = block
    story.image.content[FIRST : FIRST + 4] = bytes(4)
    clock.now += 3
    story.look()
    assert story.watch.problem == "it does not begin with a superblock of jbd2"
    clock.now += 60
    story.look()
    reads = story.reads
    story.look()
    assert story.reads == reads, "it is not read for ever"


def test_lost_records_end_what_is_open_in_the_list_for_people_too(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.look()
    story.commit()
    story.built.descriptor({5: bytes(1024)})
    written = Written()
    for offset, data in story.built.writes:
        written.write(FIRST + offset, data)
    story.built.writes.clear()
    story.take(written)
    assert story.take(Written(), lost=3) == ()
    (eight,) = story.watch.recent()
    assert (eight.name, eight.state, eight.reason) == ("8", "abandoned", "records of writes were lost")
    assert "superblock was perhaps written unseen" in story.watch.problem
    clock.now += 1
    assert story.commit() == (), "nothing is told before the superblock was read again"
    story.look()
    assert story.watch.problem == NO_FOOTING
    story.commit()
    (nine,) = story.commit()
    assert nine.ordinal == eight.ordinal + 1


def test_a_superblock_that_was_read_before_it_was_written_is_read_again(clock: SimpleNamespace) -> None:
    """ext4 changes a journal's features when it mounts it, and writes them with its first commit: perhaps just after the look."""
    story = Story(clock)
    old = Jbd2Builder(1024, 400, incompat=0)
    story.image.put((0, old.superblock()))
    story.look()
    story.image.put((0, story.built.superblock()))

    def states() -> list[str]:
        story.commit()
        return [str(one.transaction.state) for one in story.commit(blocks=(5, 6, 7))]

    assert states() != ["committed"], "its tags are of another kind"
    story.look()
    assert states() == ["committed"]
    story.image.put((0, old.superblock()))
    written = Written()
    written.write(FIRST, story.built.superblock())
    story.take(written)
    story.look()
    assert states() == ["committed"], "what came in the stream is newer than the disk"


def test_a_transaction_that_names_many_blocks_keeps_the_first_and_the_count_of_all(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.look()
    story.commit()
    written = Written()
    for part in range(6):
        story.built.descriptor({1000 * part + number: bytes(1024) for number in range(60)})
    story.built.commit()
    for offset, data in story.built.writes:
        written.write(FIRST + offset, data)
    story.take(written)
    (one,) = story.watch.recent()
    assert one.changed_count == 360 and one.named.count == 64
    assert one.changed == [(1024 * number, 1024) for number in [*range(60), *range(1000, 1004)]]


def test_a_device_that_cannot_be_read_is_told(clock: SimpleNamespace) -> None:
    def read(offset: int, length: int) -> bytes:
        raise DeviceError("/dev/x has vanished")

    story = Story(clock)
    story.watch = TransactionWatch(read, 1 << 20)
    story.look()
    assert story.watch.problem == "the device cannot be read: /dev/x has vanished"
    assert story.commit() == ()


def test_a_volume_without_a_known_file_system_is_told(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.watch = TransactionWatch(lambda offset, length: bytes(length), 1 << 20)
    story.look()
    assert "no file system that this program knows" in story.watch.problem


def test_where_nothing_is_followed_the_device_is_read_again_after_a_while(clock: SimpleNamespace) -> None:
    story = Story(clock)
    head, story.image.content[1024:2048] = bytes(story.image.content[1024:2048]), bytes(1024)
    for _ in range(3):
        story.look()
    assert story.watch.file_system is None
    story.image.content[1024:2048] = head
    clock.now += UNFOLLOWED_LOOK_S - 1
    story.look()
    assert story.watch.file_system is None
    clock.now += 1
    story.look()
    assert story.watch.file_system == "ext4"
    reads = story.reads
    clock.now += 10 * UNFOLLOWED_LOOK_S
    story.look()
    assert story.reads == reads


def test_another_file_system_is_told_once_and_its_transactions_alone_are_new(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.look()
    story.commit()
    assert [one.transaction.name for one in story.commit()] == ["8"]
    assert story.watch.take_renewed() and not story.watch.take_renewed(), "the first log is another than none"
    story.commit()
    assert not story.watch.take_renewed()
    story.built.transaction(5)
    written = Written()
    for offset, data in story.built.writes:
        written.write(FIRST + offset, data)
    story.built.writes.clear()
    written.write(FIRST, Jbd2Builder(1024, 400, incompat=0).superblock())
    assert story.take(written) == (), "of the log that was replaced"
    assert [one.name for one in story.watch.recent()] == ["8", "9", "10"]
    assert story.watch.take_renewed()


def read_log(story: Story) -> list[bool]:
    """Begin a read of the log, and wait for its end; it is told there."""
    ended: list[bool] = []
    story.watch.read_log(story.clock.now, lambda: ended.append(True))
    until(lambda: ended or story.watch._newest._job is None, "the log to be read")
    return ended


def test_the_newest_transaction_of_the_log_is_read_where_the_stream_has_told_none(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.clock.time_ns = lambda: int((TIME_S + 9) * 1e9)
    story.built.transaction(5)
    story.image.put(*story.built.writes)
    story.built.writes.clear()
    assert not read_log(story) and not story.watch.has_read, "the log has not been found yet"
    story.look()
    assert read_log(story) == [True] and story.watch.has_read
    assert story.watch.take_read(lambda: 640, 600) is None, "the read may have seen records that are still in the ring"
    assert story.watch.take_read(lambda: 900, 639) is None and story.watch.has_read
    found = story.watch.take_read(lambda: 900, 640)
    assert found is not None and found.transaction.name == "7" and found.log == ((FIRST, 400 * 1024),)
    assert found.submitted_at is not None and 1.5 < clock.now - found.submitted_at < 2.5 and found.ordinal == 0
    assert not story.watch.has_read and story.watch.take_read(lambda: 900, 900) is None
    assert not read_log(story), "it was read a moment ago"
    clock.now += READ_PAUSE_S
    assert read_log(story)


def test_a_transaction_read_from_a_log_that_was_replaced_does_not_count(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.clock.time_ns = lambda: 0
    story.built.transaction(5)
    story.image.put(*story.built.writes)
    story.look()
    assert read_log(story)
    made = Written()
    made.write(FIRST, Jbd2Builder(1024, 400, incompat=0).superblock())
    story.take(made)
    assert story.watch.take_read(lambda: 0, 0) is None


def test_a_log_that_cannot_be_read_tells_no_transaction(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.look()
    story.image.content[1024:2048] = bytes(1024)
    assert read_log(story) and story.watch.take_read(lambda: 0, 0) is None
    geometry = Geometry(len(story.image.content), 1024)
    assert not story.watch.likely_changes(geometry).total()


def test_the_ordinal_of_what_was_read_is_that_of_the_last_one_told_before_that_is_not_later(
    clock: SimpleNamespace,
) -> None:
    story = Story(clock)
    story.clock.time_ns = lambda: 0
    story.look()
    story.commit(4)
    assert [one.name for one in story.watch.recent()] == ["8", "9", "10"]
    story.image.put((0, story.built.superblock()))
    log = Jbd2Builder(1024, 400)
    for _ in range(3):
        log.transaction(5)
    story.image.put(*log.writes)
    assert read_log(story)
    found = story.watch.take_read(lambda: 0, 0)
    assert found is not None and found.transaction.name == "9" and found.ordinal == 2
    assert found.submitted_at == clock.now, "by a clock that was set back it would be later"


def test_where_differences_are_likely_is_read_from_the_log(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.built.transaction(300)
    story.image.put(*story.built.writes)
    assert 300 in story.watch.likely_changes(Geometry(len(story.image.content), 1024)).firsts


def test_where_only_addresses_are_captured_nothing_is_read(clock: SimpleNamespace) -> None:
    story = Story(clock)
    story.watch = TransactionWatch(story.read, 1 << 20, unfollowed="only the addresses of writes are captured")
    clock.now += 100
    story.look()
    assert story.reads == 0 and story.commit() == ()
    assert story.watch.problem == "only the addresses of writes are captured"


def test_a_fault_of_the_parser_is_told_once_and_keeps_nothing_from_going_on(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(clock)
    story.look()
    monkeypatch.setattr(story.watch._followed, "captured", lambda *_: 1 // 0)
    assert story.commit() == ()
    assert "a fault of this program" in story.watch.problem
    clock.now += 100
    story.look()
    assert story.commit() == () and "a fault of this program" in story.watch.problem


def test_the_clock_of_the_process_is_used(tmp_path: object) -> None:
    watch = TransactionWatch(lambda offset, length: bytes(length), 1 << 20)
    assert watch.per_second(time.monotonic()) == 0
