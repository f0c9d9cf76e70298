"""A failed write is narrowed to its blocks, which are kept aside, durable with the next sync, and tried again."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.controller.secondary import kept_target as module
from pydbt.controller.secondary.kept_target import MOST_FAILURES, NARROW_S, TRY_KEPT_S, KeptTarget
from pydbt.controller.secondary.workers import Applier
from pydbt.core.blocks.apply_plan import ZEROS, PlannedWrites
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.errors import DeviceError, MediumError
from pydbt.core.protocol.frames import Blocks
from pydbt.core.secondary import events as e
from pydbt.core.secondary.bad_blocks import BadBlocks
from pydbt.core.secondary.replica import AppliedPoint
from tests.simulation.cluster.patches import NoGuard

BLOCK = 4096
SIZE = 4096 * BLOCK


class Disk:
    """As pydbt.device.target.Target. ``bad`` cannot be written, ``unreadable`` not be read."""

    def __init__(self) -> None:
        self.content = bytearray(SIZE)
        self.bad: set[int] = set()
        self.unreadable: set[int] = set()
        self.is_careful, self.is_gone, self.failed_at, self.kept_tried = True, False, None, -1
        self.fails: DeviceError | None = None
        self.done: list[str] = []
        self.tries = 0

    def write_runs(self, writes: PlannedWrites, buffer: memoryview) -> None:
        if self.fails:
            raise self.fails
        for sector, count, source in zip(
            writes.sectors.tolist(), writes.lengths_sectors.tolist(), writes.sources.tolist(), strict=True
        ):
            data = bytes(count * 512) if source == ZEROS else buffer[source : source + count * 512]
            self.write_through(sector * 512, data)

    def write_through(self, offset: int, data: bytes | memoryview) -> None:
        self.tries += 1
        if self.bad & set(range(offset // BLOCK, -(-(offset + len(data)) // BLOCK))):
            raise MediumError(f"TARGET d cannot be written at byte {offset}")
        self.content[offset : offset + len(data)] = data

    def read_into(self, offset: int, view: memoryview) -> None:
        if self.unreadable & set(range(offset // BLOCK, -(-(offset + len(view)) // BLOCK))):
            raise MediumError(f"TARGET d cannot be read at byte {offset}")
        view[:] = self.content[offset : offset + len(view)]

    def sync(self) -> None:
        self.done.append("sync")
        if self.fails:
            raise self.fails

    def forget(self, offset: int, length: int) -> None:
        self.done.append("forget")

    def try_again(self) -> None:
        if self.failed_at is not None:
            self.write_through(self.failed_at, self.content[self.failed_at : self.failed_at + BLOCK])
            self.failed_at = None

    def stay_careful(self) -> None: ...

    def start_writeback(self) -> None:
        self.done.append("writeback")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=100.0)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def blocks() -> BadBlocks:
    return BadBlocks(SIZE)


@pytest.fixture
def target(disk: Disk, blocks: BadBlocks, clock: SimpleNamespace) -> KeptTarget:
    return KeptTarget(disk, blocks, lambda kept: disk.done.append(f"save {len(kept)}"))


def write(target: KeptTarget, sector: int, data: bytes | int) -> bytes:
    """Data, or this many sectors of zeros."""
    count, source = (data, ZEROS) if isinstance(data, int) else (len(data) // 512, 0)
    columns = (np.array([value], np.int64) for value in (sector, count, source))
    target.write_runs(PlannedWrites(*columns), memoryview(b"" if isinstance(data, int) else data))
    return bytes(count * 512) if isinstance(data, int) else data


def seen(target: KeptTarget, first: int, count: int) -> bytes:
    view = memoryview(bytearray(count * BLOCK))
    target.read_into(first * BLOCK, view)
    return bytes(view)


def test_a_failed_run_is_narrowed_to_its_bad_blocks_and_the_rest_is_written(
    target: KeptTarget, disk: Disk, blocks: BadBlocks
) -> None:
    disk.bad = {3, 700}
    data = write(target, 0, bytes(range(256)) * 16 * 1024)
    assert blocks.runs().blocks().tolist() == [3, 700] == target.news().blocks().tolist()
    assert target.news() is None
    assert disk.tries < 60, "and not block by block"
    for number in (2, 4, 699, 701, 1023):
        assert disk.content[number * BLOCK : (number + 1) * BLOCK] == data[number * BLOCK : (number + 1) * BLOCK]
    assert seen(target, 0, 1024) == data, "a comparison sees what is kept"
    disk.tries = 0
    write(target, 3 * 8, b"a" * BLOCK)
    assert disk.tries == 0 and seen(target, 3, 1) == b"a" * BLOCK, "later writes go there at once"


def test_the_kept_blocks_are_saved_after_the_target_is_synced_and_only_when_they_changed(
    target: KeptTarget, disk: Disk
) -> None:
    disk.bad = {3}
    write(target, 24, b"a" * BLOCK)
    disk.done.clear()
    target.sync()
    target.sync()
    assert disk.done == ["sync", "save 1", "sync"]
    target.start_writeback()
    assert disk.done[-1] == "writeback"


def test_zeros_are_kept_as_well(target: KeptTarget, disk: Disk) -> None:
    disk.content[:] = b"o" * SIZE
    disk.bad = {200}
    write(target, 0, 300 * 8)
    assert seen(target, 0, 300) == bytes(300 * BLOCK) and disk.content[300 * BLOCK] == ord("o")


def test_a_part_of_a_bad_block_is_kept_with_the_rest_of_it(target: KeptTarget, disk: Disk, blocks: BadBlocks) -> None:
    disk.content[:] = b"o" * SIZE
    disk.bad = {3}
    write(target, 26, b"n" * 1024)
    assert blocks.is_whole(3) and seen(target, 3, 1) == b"o" * 1024 + b"n" * 1024 + b"o" * 2048


def test_a_comparison_reads_around_what_is_kept(target: KeptTarget, disk: Disk) -> None:
    """Also in units of more than a block; or such a unit would be sent again by every comparison."""
    disk.bad = disk.unreadable = {3, 5}
    data = write(target, 0, bytes(range(256)) * 16 * 8)
    assert seen(target, 0, 8) == data and seen(target, 3, 1) == data[3 * BLOCK : 4 * BLOCK]


def test_several_runs_of_one_batch_to_one_bad_block_are_all_kept(target: KeptTarget, disk: Disk) -> None:
    disk.content[:] = b"o" * SIZE
    disk.bad = {3}
    columns = [np.array(column, np.int64) for column in ((23, 26, 30), (2, 1, 10), (0, 1024, 1536))]
    target.write_runs(PlannedWrites(*columns), memoryview(b"a" * 1024 + b"b" * 512 + b"c" * 5120))
    assert seen(target, 3, 1) == b"a" * 512 + b"o" * 512 + b"b" * 512 + b"o" * 1536 + b"c" * 1024
    assert disk.content[4 * BLOCK : 5 * BLOCK] == b"c" * 4096 and disk.content[23 * 512] == ord("a")


def test_a_block_that_can_be_neither_written_nor_read_gets_no_invented_content(
    target: KeptTarget, disk: Disk, blocks: BadBlocks
) -> None:
    disk.bad = disk.unreadable = {3}
    write(target, 26, b"n" * 1024)
    with pytest.raises(MediumError):
        seen(target, 3, 1)
    target.sync()
    disk.bad = set()
    target.try_again()
    assert len(blocks) == 1, "the target would take it, and its content is not known"
    disk.bad, disk.unreadable = {3}, set()
    disk.done.clear()
    target.try_again()
    assert disk.done[-1] == "save 1", "what could be read after all is not told as compared before it is saved"
    disk.bad = set()
    target.try_again()
    assert not len(blocks) and disk.content[3 * BLOCK : 4 * BLOCK] == bytes(1024) + b"n" * 1024 + bytes(2048)


def test_a_failure_of_a_write_that_was_not_waited_for_is_one_of_the_whole_target(
    target: KeptTarget, disk: Disk
) -> None:
    disk.bad, disk.is_careful = {3}, False
    with pytest.raises(MediumError):
        write(target, 24, b"a" * BLOCK)
    assert target.news() is None


def test_a_disk_that_is_gone_has_no_bad_blocks(target: KeptTarget, disk: Disk) -> None:
    disk.bad, disk.is_gone = {3}, True
    with pytest.raises(MediumError):
        write(target, 24, b"a" * BLOCK)
    assert target.news() is None


@pytest.mark.parametrize("careful", [True, False])
def test_any_other_error_is_one_of_the_whole_target(target: KeptTarget, disk: Disk, careful: bool) -> None:
    disk.fails, disk.is_careful = DeviceError("no space left on device"), careful
    with pytest.raises(DeviceError, match="no space left"):
        write(target, 24, b"a" * BLOCK)
    with pytest.raises(DeviceError, match="no space left"):
        target.sync()
    assert target.news() is None and not any(done.startswith("save") for done in disk.done)


def test_more_bad_blocks_than_a_disk_has_are_a_failure_of_the_whole_target(
    target: KeptTarget, disk: Disk, blocks: BadBlocks
) -> None:
    disk.bad = set(range(100, 300))
    with pytest.raises(DeviceError, match="more than 64 blocks cannot be written"):
        write(target, 0, b"a" * (1024 * BLOCK))
    assert len(blocks) == 64 and disk.done[-1] == "save 64", "they count the next time"
    assert disk.failed_at == 164 * BLOCK, "tried before anything else is written again"


def test_a_disk_that_takes_too_long_is_failing(target: KeptTarget, disk: Disk, clock: SimpleNamespace) -> None:
    disk.bad = {3, 5}
    right = disk.write_through

    def slow(offset: int, data: memoryview) -> None:
        clock.now += NARROW_S / 3
        right(offset, data)

    disk.write_through = slow
    with pytest.raises(DeviceError, match="it takes too long"):
        write(target, 0, b"a" * (16 * BLOCK))


def test_kept_blocks_are_tried_again_in_time_and_leave_when_they_are_on_the_disk(
    target: KeptTarget, disk: Disk, blocks: BadBlocks, clock: SimpleNamespace
) -> None:
    assert not target.is_due
    disk.bad = {3, 5}
    write(target, 24, b"a" * BLOCK + bytes(BLOCK) + b"c" * BLOCK)
    target.news()
    target.sync()
    assert not target.is_due
    clock.now += TRY_KEPT_S
    assert target.is_due
    disk.done.clear()
    target.try_again()
    assert disk.done == ["forget", "forget"], "the cache may not have what the disk lacks"
    assert target.news() is None and not target.is_due
    disk.done.clear()
    disk.bad = {5}
    target.try_again()
    assert disk.content[3 * BLOCK : 4 * BLOCK] == b"a" * BLOCK
    assert disk.done == ["forget", "sync", "save 1"] and target.news().blocks().tolist() == [5]
    assert seen(target, 3, 3) == b"a" * BLOCK + bytes(BLOCK) + b"c" * BLOCK


def test_kept_blocks_of_an_earlier_engine_are_tried_at_once(
    disk: Disk, blocks: BadBlocks, clock: SimpleNamespace
) -> None:
    blocks.add(3, b"a" * BLOCK)
    target = KeptTarget(disk, blocks, lambda kept: None)
    assert target.is_due
    target.try_again()
    assert target.news() is not None and disk.content[3 * BLOCK] == ord("a")


def test_each_time_tries_a_few_blocks_and_the_next_time_goes_on_behind_them(target: KeptTarget, disk: Disk) -> None:
    disk.bad = set(range(20))
    write(target, 0, b"a" * (20 * BLOCK))
    tried: list[int] = []
    right = disk.write_through
    disk.write_through = lambda offset, data: (tried.append(offset // BLOCK), right(offset, data))
    for _ in range(3):
        target.try_again()
    assert tried == [number % 20 for number in range(3 * MOST_FAILURES)]


def test_an_engine_that_begins_anew_goes_on_behind_the_one_that_was_tried_last(disk: Disk, blocks: BadBlocks) -> None:
    disk.bad = set(range(20))
    for number in disk.bad:
        blocks.add(number, b"a" * BLOCK)
    tried: list[int] = []
    right = disk.write_through
    disk.write_through = lambda offset, data: (tried.append(offset // BLOCK), right(offset, data))
    for _ in range(3):
        loaded = BadBlocks(blocks.size_bytes, dict(blocks.kept))
        KeptTarget(disk, loaded, lambda kept: None).try_again()
    assert tried == [number % 20 for number in range(3 * MOST_FAILURES)]


def test_a_kept_block_that_the_disk_takes_makes_room_for_the_one_that_was_too_many(
    target: KeptTarget, disk: Disk, blocks: BadBlocks
) -> None:
    disk.bad = set(range(100, 300))
    with pytest.raises(DeviceError, match="more than 64"):
        write(target, 0, b"a" * (1024 * BLOCK))
    for _ in range(3):
        with pytest.raises(MediumError):
            target.try_what_failed()
    disk.bad = {*range(100, 130), *range(131, 165)}
    for _ in range(6):  # one of the 64 is found in its turn
        with contextlib.suppress(MediumError):
            target.try_what_failed()
            break
    assert len(blocks) == 63 and disk.failed_at is None
    write(target, 164 * 8, b"b" * BLOCK)
    assert blocks.runs().blocks().tolist() == sorted(disk.bad), "and it is kept"


def test_the_block_that_failed_is_tried_alone_where_no_more_are_bad_than_are_kept(
    target: KeptTarget, disk: Disk
) -> None:
    disk.bad, disk.failed_at = {3, 5}, 5 * BLOCK
    write(target, 24, b"a" * BLOCK)
    disk.bad = {5}
    with pytest.raises(MediumError):
        target.try_what_failed()
    assert seen(target, 3, 1) == b"a" * BLOCK and target.news() is not None
    disk.bad = set()
    target.try_what_failed()
    assert disk.failed_at is None


def test_kept_blocks_are_tried_for_no_longer_than_half_of_the_time(
    target: KeptTarget, disk: Disk, clock: SimpleNamespace
) -> None:
    disk.bad = {3, 4, 5}
    write(target, 24, b"a" * (3 * BLOCK))
    right = disk.write_through

    def slow(offset: int, data: memoryview) -> None:
        clock.now += TRY_KEPT_S
        right(offset, data)

    disk.write_through, disk.tries = slow, 0
    target.try_again()
    assert disk.tries == 1


def test_the_applier_tells_of_them_ahead_of_its_work_and_tries_them_while_it_is_idle(
    target: KeptTarget, disk: Disk, clock: SimpleNamespace
) -> None:
    told: list[e.Event] = []
    applier = Applier(None, target, AppliedPoint(0, 0, 0), 0, NoGuard(), told.append, told.append)
    disk.bad = {3}
    frame = Blocks(1, SectorTable.of([24], [8]), (b"a" * BLOCK,))
    for item in (e.Write(1, frame), e.Sync(2)):
        applier._do(item)
    assert [type(event) for event in told] == [e.KeptAside, e.Written, e.Synced]
    assert disk.done[-1] == "save 1"
    disk.bad = set()
    applier._look_around()
    assert len(told) == 3
    clock.now += TRY_KEPT_S
    applier._look_around()
    assert isinstance(told[-1], e.KeptAside) and not told[-1].blocks.total()
    disk.bad = {3}
    applier._do(e.Write(3, frame))
    clock.now += TRY_KEPT_S
    disk.fails = DeviceError("the disk is gone")
    applier._do(e.Write(4, frame))
    assert isinstance(told[-1], e.TargetFailed), "before a block is tried again, all else is made durable"
