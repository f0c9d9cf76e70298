"""The parts of the primary's brain, one promise each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.events import Captured, Connected
from pydbt.core.primary.flight_watch import FlightWatch
from pydbt.core.primary.link import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, Link
from pydbt.core.primary.modes import LOGGING_PHASES, MODE_MOVES, PHASE_MOVES, STREAMING_PHASES, Mode, Phase
from pydbt.core.primary.overload import Overload
from pydbt.core.primary.position_check import doubt_about
from pydbt.core.primary.state import State
from pydbt.core.primary.statistics import Statistics
from pydbt.core.primary.sweep import WINDOW_BYTES, Sweep
from pydbt.core.primary.waits import Waits
from pydbt.core.tracking.capture_record import RECORD, Operation, RecordKind
from pydbt.core.tracking.replica_queue import MAX_BATCH_BYTES, MAX_UPDATE_SECTORS, Segment, StreamQueue, updates_of
from pydbt.core.tracking.unsettled import DIFFERS_SINCE_EVER, Unsettled
from pydbt.core.units import Geometry


def writes(*sectors: int) -> np.ndarray:
    records = np.zeros(len(sectors), dtype=RECORD)
    records["sectors"], records["pieces"], records["kind"] = sectors, 1, 1
    return records


def segment(first: int, *sectors: int) -> Segment:
    records = writes(*sectors)
    return Segment(records, first - 1 + np.cumsum(updates_of(records)), first, arrived=float(first))


# --- modes ------------------------------------------------------------------------------------------------


def test_every_mode_and_phase_has_its_row_and_a_way_back_to_normal():
    assert set(MODE_MOVES) == set(Mode) and set(PHASE_MOVES) == set(Phase)
    for start in Mode:
        reached, frontier = {start}, [start]
        while frontier:
            new = MODE_MOVES[frontier.pop()] - reached
            reached |= new
            frontier += new
        assert Mode.NORMAL in reached, f"{start} is a dead end"


def test_no_stream_leaves_before_the_last_sweep_is_over():
    assert STREAMING_PHASES < LOGGING_PHASES
    assert not STREAMING_PHASES & {Phase.SWEEPING, Phase.ARMING, Phase.SETTLING, Phase.LAST_SWEEP}


# --- the stream -------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(1, 9000), min_size=1, max_size=30), min_size=1, max_size=8))
def test_what_is_queued_leaves_in_order_and_with_consecutive_numbers(batches):
    queue, sequence, given_sectors = StreamQueue(), 1, []
    for batch in batches:
        item = segment(sequence, *batch)
        queue.append(item)
        sequence = item.last_sequence + 1
        given_sectors += batch
    taken, expected = [], 1
    while (item := queue.take()) is not None:
        assert item.first_sequence == expected
        assert len(item.records) == 1 or item.length_bytes <= MAX_BATCH_BYTES
        expected = item.last_sequence + 1
        taken += item.records["sectors"].tolist()
    assert taken == given_sectors and expected == sequence and queue.all_sent


def test_a_write_larger_than_a_frame_takes_a_number_for_every_part():
    assert updates_of(writes(1, MAX_UPDATE_SECTORS, MAX_UPDATE_SECTORS + 1, 3 * MAX_UPDATE_SECTORS)).tolist() == [
        1,
        1,
        2,
        3,
    ]


def test_a_discard_of_any_size_is_one_update():
    record = writes(0xFFFFFFFF)
    record["pieces"] = 0
    assert updates_of(record).tolist() == [1]


def test_lag_is_counted_until_the_acknowledgement_and_not_until_the_send():
    queue = StreamQueue()
    queue.append(segment(1, 8, 8))
    queue.take()
    assert queue.unacknowledged_bytes == 2 * 4096 and queue.oldest_arrival() == 1.0
    queue.acknowledge(2)
    assert queue.unacknowledged_bytes == 0 and queue.oldest_arrival() is None


def test_discarding_the_queue_returns_exactly_what_was_never_sent():
    queue = StreamQueue()
    queue.append(segment(1, 8))
    queue.take()
    queue.append(segment(2, 16, 24))
    assert queue.clear()[0]["sectors"].tolist() == [16, 24]
    assert queue.unsent_bytes == queue.unacknowledged_bytes == 0


# --- the sweep --------------------------------------------------------------------------------------------


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


@given(st.sets(st.integers(0, 10_000), max_size=200))
def test_runs_and_blocks_are_the_same_set(blocks):
    array = np.array(sorted(blocks), dtype=np.int64)
    assert Runs.of_blocks(array).blocks().tolist() == array.tolist()


# --- waits, settling, link, lineage -----------------------------------------------------------------------


def test_a_wait_is_over_only_when_its_position_is_known_and_its_writes_are_durable_and_settled():
    waits = Waits()
    waits.add(1, position=100)
    assert waits.take_done(acknowledged=50, oldest_unsettled=None) == []
    waits.reached(99, sequence=9)
    assert waits.take_done(50, None) == []
    waits.reached(100, sequence=10)
    assert waits.take_done(9, None) == []
    assert waits.take_done(10, oldest_unsettled=10) == []
    assert waits.take_done(10, oldest_unsettled=11) == [1] and not waits


def test_a_block_touched_while_it_is_read_is_read_again():
    unsettled = Unsettled()
    unsettled.add(np.array([4, 5]), sequence=3, now=0.0)
    assert not len(unsettled.take_due(0.5, lambda b: np.zeros(len(b), bool), hurry=False))
    due = unsettled.take_due(1.0, lambda b: np.zeros(len(b), bool), hurry=False)
    unsettled.begin(1, due)
    unsettled.touch(np.array([5]))
    assert not len(unsettled.finish(1, differing=np.array([5]), now=1.0))
    assert unsettled.blocks().tolist() == [5]


def test_a_settled_block_counts_as_unsettled_until_its_content_is_durable_on_the_secondary():
    unsettled = Unsettled()
    unsettled.add(np.array([4, 5]), sequence=3, now=0.0)
    unsettled.begin(1, np.array([4, 5]))
    assert unsettled.finish(1, differing=np.array([4]), now=1.0).tolist() == [4]
    unsettled.sent(np.array([4]), sequence=9)
    unsettled.durable_through(8)
    assert unsettled.oldest_sequence() == 3 and unsettled.blocks().tolist() == [4]
    unsettled.durable_through(9)
    assert not len(unsettled)


def test_a_block_with_a_write_in_flight_is_not_read_for_settling():
    unsettled = Unsettled()
    unsettled.add(np.array([4]), sequence=1, now=0.0)
    assert not len(unsettled.take_due(9.0, lambda b: np.ones(len(b), bool), hurry=True))


def test_a_block_written_anew_is_settled_once_that_is_durable():
    block, unsettled = np.array([4]), Unsettled()
    unsettled.add(block, sequence=3, now=0.0)
    unsettled.rewritten(block, np.array([5]))
    unsettled.durable_through(4)
    assert unsettled.oldest_sequence() == 3 and unsettled.next_due() is None
    unsettled.durable_through(5)
    assert not len(unsettled)


def test_a_block_unsettled_after_it_was_written_anew_is_so_since_then_only():
    block, unsettled = np.array([4]), Unsettled()
    unsettled.add(block, sequence=3, now=0.0)
    unsettled.rewritten(block, np.array([5]))
    unsettled.add(block, sequence=6, now=0.0)
    unsettled.rewritten(block, np.array([7]))  # one at a time, or none would ever be durable
    assert unsettled.oldest_sequence() == 3
    unsettled.durable_through(5)
    assert unsettled.oldest_sequence() == 6 and unsettled.next_due() is not None
    unsettled.durable_through(9)
    assert unsettled.oldest_sequence() == 6, "the second one had not been counted on"


def test_a_difference_found_by_a_comparison_is_not_settled_by_what_was_written_before_it():
    block, unsettled = np.array([4]), Unsettled()
    unsettled.add(block, sequence=3, now=0.0)
    unsettled.rewritten(block, np.array([5]))
    unsettled.add(block, sequence=DIFFERS_SINCE_EVER, now=0.0)
    unsettled.durable_through(9)
    assert unsettled.oldest_sequence() == DIFFERS_SINCE_EVER


def test_what_is_settled_while_it_is_read_is_not_read_again():
    block, unsettled = np.array([4]), Unsettled()
    unsettled.add(block, sequence=3, now=0.0)
    unsettled.begin(1, block)
    unsettled.touch(block)
    unsettled.rewritten(block, np.array([5]))
    assert not len(unsettled.finish(1, differing=block, now=1.0)) and unsettled.next_due() is None
    unsettled.durable_through(5)
    assert not len(unsettled)


def settler_with(unsettled: list[int], size_sectors: int = 64) -> Primary:
    """A brain in normal mode that follows, with blocks of 8 sectors, some of them unsettled."""
    brain = Primary(PrimaryConfig(Geometry(size_sectors * 512), epoch=7, initial=False, scan_used=False), 0.0)
    brain.state.mode, brain.state.in_flight.certain = Mode.NORMAL, True
    brain.quiet.next_retire = 1e9
    brain.link.connected(0.0)
    brain.state.unsettled.add(np.array(unsettled), 0, 1e9)
    return brain


@pytest.mark.parametrize(
    ("sector", "sectors", "op", "pieces", "settled"),
    [
        (8, 8, Operation.WRITE, 1, [1]),
        (0, 64, Operation.WRITE, 1, [0, 1, 2, 7]),
        (4, 16, Operation.WRITE, 1, [1]),
        (9, 7, Operation.WRITE, 1, []),
        (16, 7, Operation.WRITE, 1, []),
        (56, 4, Operation.WRITE, 1, [7]),  # the last block is a short one
        (8, 8, Operation.DISCARD, 0, []),
        (8, 8, Operation.WRITE_ZEROES, 0, []),
    ],
)
def test_only_a_write_of_the_whole_block_with_its_data_settles_it(sector, sectors, op, pieces, settled):
    sectors = min(sectors, 60 - sector)
    brain = settler_with([0, 1, 2, 7], size_sectors=60)
    records = np.zeros(2, RECORD)
    records["kind"], records["sector"], records["sectors"] = (RecordKind.SUBMIT, RecordKind.COMPLETE), sector, sectors
    records["op"], records["pieces"], records["data"] = op, (pieces, 0), (pieces, 0)
    brain.handle(Captured(records, 128, 0), 0.5)
    brain.durable_through(1)
    assert sorted({0, 1, 2, 7} - set(brain.state.unsettled.blocks().tolist())) == settled


def test_what_is_discarded_or_zeroed_does_not_count_as_a_rate_of_writes_since_it_takes_no_room():
    """A landing that waited for it to sink would be late."""
    statistics, records = Statistics(0.0), writes(8, 1 << 21, 1 << 21)
    records["op"] = Operation.WRITE, Operation.DISCARD, Operation.WRITE_ZEROES
    statistics.captured(records)
    statistics.observe(2.0, 0)
    assert statistics.write_rate_bytes(2.0) == 8 * 512 / 2


def test_a_silent_or_idle_secondary_is_taken_for_dead_and_a_busy_one_is_not():
    link = Link(10.0, 0.0)
    link.connected(0.0)
    assert not link.dead(9.0, waiting=True)
    link.heard(9.0)
    link.progress(9.0)
    for now in range(10, 50):
        link.heard(float(now))
        assert not link.dead(float(now), waiting=True)
    assert "acknowledged nothing" in link.dead(49.5, waiting=True)
    assert "nothing was heard" in link.dead(59.5, waiting=False)


def test_reconnection_backs_off_to_a_bound_and_starts_short_again_after_a_good_connection():
    link, now, gaps = Link(10.0, 0.0), 0.0, []
    for _ in range(8):
        link.connecting = True
        link.lost("refused", now)
        gaps.append(link.deadline() - now)
        now = link.deadline()
    assert gaps[0] == FIRST_BACKOFF_S and gaps == sorted(gaps) and gaps[-1] == LONGEST_BACKOFF_S
    link.connected(now)
    link.lost("cut", now + 60)
    assert link.deadline() == now + 60 + FIRST_BACKOFF_S


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (Connected("other", "consistent", 5, 10, False, False), "another replica"),
        (Connected("mine", "inconsistent", 0, 0, False, True), "anew"),
        (Connected("mine", "consistent", 5, 9, False, False), "went back"),
        (Connected("mine", "consistent", 5, 10, False, False), ""),
        (Connected("mine", "inconsistent", 6, 0, False, False), ""),
        (Connected("mine", "consistent", 4, 99, False, False), "another time"),
    ],
)
def test_a_secondary_that_is_not_the_one_the_maps_were_kept_for_is_noticed(said, word):
    doubt = doubt_about("mine", (5, 10), said, assumed=False, later_epochs=(6, 7))
    assert word in doubt and bool(doubt) == bool(word)


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        (Connected("mine", "consistent", 5, 10, False, False), True),
        (Connected("mine", "consistent", 5, 10, True, False), False),  # it is still there
        (Connected("mine", "inconsistent", 5, 10, False, False), False),  # and so it is in a resynchronization in place
        (Connected("mine", "consistent", 7, 10, False, False), False),  # completed, and nobody lived to hear of it
    ],
)
def test_a_secondary_that_has_lost_what_it_had_got_of_a_resynchronization_is_noticed(said, lost):
    doubt = doubt_about("mine", (5, 10), said, assumed=False, later_epochs=(6, 7), unfinished=True)
    assert bool(doubt) == lost


@pytest.mark.parametrize(
    ("told", "progress", "lost"),
    [
        (99, 100, True),
        (0, 100, True),  # nothing of it is there any more
        (100, 100, False),
        (101, 100, False),
        (None, 100, False),  # an older secondary does not tell
        (0, 0, False),  # nor was it ever told
    ],
)
@pytest.mark.parametrize("staged", [False, True])
def test_a_secondary_with_less_than_it_had_acknowledged_of_the_copy_under_way_is_noticed(told, progress, lost, staged):
    said = Connected("mine", "inconsistent", 5, 10, staged, False, progress=told)
    doubt = doubt_about("mine", (5, 10), said, assumed=False, later_epochs=(6, 7), progress=progress)
    assert ("went back" in doubt) == bool(doubt) == lost


def test_a_secondary_that_has_all_it_ever_told_of_has_lost_nothing_though_its_stage_was_not_begun():
    """Blocks that were compared and equal were acknowledged before the BEGIN in its journal was durable."""
    said = Connected("mine", "consistent", 5, 10, False, False, progress=100)
    assert not doubt_about("mine", (5, 10), said, assumed=False, unfinished=True, progress=100)
    assert doubt_about("mine", (5, 10), said, assumed=False, unfinished=True), (
        "where no progress is known, that is all there is"
    )


def test_an_overload_that_lasts_is_told_and_a_burst_is_not():
    overload = Overload()

    def warnings(times: list[float]) -> int:
        return sum(bool(overload.note(now, 0.0)) for now in times)

    assert warnings([0.0, 30.0, 100.0, 130.0, 200.0]) == 0
    assert warnings([300.0 + second for second in range(5)]) == 1


def test_a_write_whose_task_waits_for_the_processor_is_not_taken_for_one_that_ended_unseen():
    """Submitted, and not in the disk's own count yet: taking it for ended would make its completion a stranger."""
    state = State(PrimaryConfig(Geometry(1 << 20), epoch=7), 0.0)
    state.in_flight.trust()
    state.in_flight.apply(writes(8))
    watch = FlightWatch(state, 0.0)
    for now in (10.0, 10.2, 10.8):
        assert not watch.disk_idle(0, now).total()
    assert watch.disk_idle(0, 11.2).total() == 1, "on a disk that stays idle it has ended after all"
