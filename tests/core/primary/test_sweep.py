"""The sweep: each pending block once, within window and rate, and back again when it was not acknowledged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.likely import Likely
from pydbt.core.primary.sweep import WINDOW_BYTES, Sweep
from pydbt.core.protocol.recent import Recent
from pydbt.core.units import Geometry


def sweep_of(blocks: list[int], count: int = 100_000, limit: int | None = None) -> tuple[Sweep, DirtyMap]:
    pending = DirtyMap(count)
    pending.set_blocks(np.array(sorted(set(blocks)), dtype=np.int64))
    numbers = iter(range(1, 1 << 30))
    return Sweep(Geometry(count * 4096), pending, lambda: next(numbers), rate_limit_bytes=limit, now=0.0), pending


@given(st.sets(st.integers(0, 99_999), min_size=1, max_size=600))
def test_a_pass_takes_every_pending_block_once_in_device_order(blocks):
    sweep, pending = sweep_of(list(blocks))
    taken: list[int] = []
    sweep.begin_pass()
    while (item := sweep.next_reading(0.0)) is not None:
        identifier, transit = item
        taken += transit.runs.blocks().tolist()
        sweep.finish(identifier)
    assert taken == sorted(blocks) and sweep.pass_over and not pending.any()


LIKELY = st.lists(st.tuples(st.integers(-5, 100_100), st.integers(0, 400)), max_size=60)


def named(runs: Runs, size_bytes: int, block_bytes: int = 4096) -> Likely:
    likely = Likely(Geometry(size_bytes, block_bytes))
    likely.by_log(runs)
    return likely


@given(st.sets(st.integers(0, 99_999), min_size=1, max_size=600), LIKELY)
def test_likely_blocks_come_first_and_every_pending_block_comes_once(blocks, likely):
    _, pending = sweep_of(list(blocks))
    numbers = iter(range(1, 1 << 30))
    firsts, counts = np.array(likely, np.int64).reshape(-1, 2).T
    sweep = Sweep(
        Geometry(100_000 * 4096),
        pending,
        lambda: next(numbers),
        rate_limit_bytes=None,
        now=0.0,
        likely=named(Runs(firsts, counts), 100_000 * 4096),
    )
    first: list[int] = []
    rest: list[int] = []
    sweep.begin_pass()
    while (item := sweep.next_reading(0.0)) is not None:
        identifier, transit = item
        (first if transit.likely else rest).extend(transit.runs.blocks().tolist())
        assert not (transit.likely and rest), "all of them before the others"
        sweep.finish(identifier)
    assert sorted(first + rest) == sorted(blocks) and sweep.pass_over and not pending.any()
    told = {block for start, count in likely for block in range(max(start, 0), start + count)}
    assert set(first) == told & blocks and rest == sorted(rest)


def test_likely_blocks_are_read_in_their_order_and_a_second_time_only_when_they_are_written() -> None:
    _, pending = sweep_of(list(range(5000)))
    numbers = iter(range(1, 1 << 30))
    likely = named(Runs(np.array([4000, 10, 4100], np.int64), np.array([256, 256, 500], np.int64)), 5000 * 4096)
    sweep = Sweep(Geometry(5000 * 4096), pending, lambda: next(numbers), rate_limit_bytes=None, now=0.0, likely=likely)
    sweep.begin_pass()
    taken = [sweep.next_reading(0.0)[1].runs.blocks().tolist() for _ in range(4)]
    assert [blocks[0] for blocks in taken] == [4000, 10, 4256, 4512]
    assert [len(blocks) for blocks in taken] == [256, 256, 256, 88]
    pending.set_range(4000, 1)
    assert not sweep.pass_over
    assert sweep.next_reading(0.0)[1].runs.blocks().tolist()[:11] == [*range(10), 266]


def test_small_blocks_are_read_in_whole_units_of_a_comparison_also_where_differences_are_likely() -> None:
    pending = DirtyMap(64)
    pending.set_range(0, 64)
    likely = named(Runs(np.array([13, 62], np.int64), np.array([1, 9], np.int64)), 63 * 1024 + 512, 1024)
    sweep = Sweep(Geometry(63 * 1024 + 512, 1024), pending, lambda: 1, rate_limit_bytes=None, now=0.0, likely=likely)
    _, transit = sweep.next_reading(0.0)
    assert transit.runs.blocks().tolist() == [12, 13, 14, 15, 60, 61, 62, 63]


def test_blocks_that_the_secondary_names_in_the_middle_of_a_pass_are_read_next() -> None:
    _, pending = sweep_of(list(range(5000)))
    likely = named(Runs(np.array([4000, 300], np.int64), np.array([256, 1], np.int64)), 5000 * 4096)
    numbers = iter(range(1, 1 << 30))
    sweep = Sweep(Geometry(5000 * 4096), pending, lambda: next(numbers), rate_limit_bytes=None, now=0.0, likely=likely)
    assert [sweep.next_reading(0.0)[1].runs.blocks().tolist()[0] for _ in range(3)] == [4000, 300, 0]
    likely.written_last(Recent(Runs(np.array([3000, 4000], np.int64), np.array([2, 9], np.int64)), 4096))
    _, transit = sweep.next_reading(0.0)
    assert transit.likely and transit.runs.blocks().tolist() == [3000, 3001]
    assert not sweep.next_reading(0.0)[1].likely


def test_many_that_are_compared_already_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydbt.core.primary.sweep.MAX_LIKELY_LOOKS", 3)
    _, pending = sweep_of([7, 80])
    likely = named(Runs(np.array([*range(20, 25), 80]), np.ones(6, np.int64)), 5000 * 4096)
    sweep = Sweep(Geometry(5000 * 4096), pending, lambda: 1, rate_limit_bytes=None, now=0.0, likely=likely)
    _, transit = sweep.next_reading(0.0)
    assert transit.runs.blocks().tolist() == [7, 80] and not transit.likely, "in device order by now"
    assert sweep.next_reading(0.0) is None and sweep.next_reading(0.0) is None and not pending.any()


def test_a_block_written_while_it_is_read_stays_pending_after_its_acknowledgement():
    sweep, pending = sweep_of([7])
    identifier, transit = sweep.next_reading(0.0)
    pending.set_range(7, 1)
    transit.batch = 1
    sweep.acknowledge(1)
    assert identifier not in sweep.readings and pending.contains(7)


def test_a_lost_connection_puts_everything_in_transit_back():
    sweep, pending = sweep_of([1, 2, 3, 90])
    sweep.next_reading(0.0)
    assert not pending.any()
    sweep.abandon()
    assert pending.extents().blocks().tolist() == [1, 2, 3, 90] and sweep.window_bytes == 0


def test_reading_ahead_of_the_secondary_is_bounded():
    sweep, _ = sweep_of(list(range(50_000)))
    while sweep.next_reading(0.0) is not None:
        pass
    assert sweep.window_bytes <= WINDOW_BYTES + (1 << 20)


def test_the_rate_limit_holds_over_time():
    sweep, _ = sweep_of(list(range(60_000)), limit=4 << 20)
    copied, now = 0, 0.0
    while now < 20:
        while (item := sweep.next_reading(now)) is not None:
            copied += item[1].length_bytes
            sweep.finish(item[0])
        now += 0.05
    assert 0.9 * 20 * (4 << 20) <= copied <= 1.1 * 20 * (4 << 20)


def test_sweeping_tells_once_that_it_does_not_come_to_an_end():
    sweep, _ = sweep_of(list(range(5000)))
    assert [sweep.note_pass() for _ in range(7)].count(True) == 1


def test_the_last_sweep_may_begin_when_the_writes_meanwhile_fit_into_a_quarter_of_the_room() -> None:
    sweep, _ = sweep_of(list(range(1000)))
    assert sweep.may_end(0.0, write_rate_bytes=0.0, data_room_bytes=1 << 20)
    assert not sweep.may_end(0.0, write_rate_bytes=1e9, data_room_bytes=1 << 20)
    small, _ = sweep_of([1])
    assert small.may_end(0.0, write_rate_bytes=1e9, data_room_bytes=1)


def test_urgent_reads_know_no_limit_and_all_of_a_pass_is_in_memory_then() -> None:
    sweep, _ = sweep_of(list(range(600)), limit=4096)
    while sweep.next_reading(0.0, urgent=True) is not None:
        pass
    assert not sweep.pass_read and sweep.next_allowed() is not None
    for transit in sweep.in_transit():
        transit.read = True
    assert sweep.pass_read and not sweep.pass_over


def test_the_rate_is_a_guess_first_and_measured_from_the_start_later() -> None:
    sweep, _ = sweep_of(list(range(1000)), limit=4 << 20)
    assert sweep.rate_bytes(0.1) == 4 << 20
    sweep.start(10.0)
    while (item := sweep.next_reading(10.0, urgent=True)) is not None:
        item[1].digests = item[0]
        assert sweep.answered(item[0]) == item[0] and sweep.answered(-1) is None
        sweep.finish(item[0])
    assert sweep.rate_bytes(12.0) == 1000 * 4096 / 2
