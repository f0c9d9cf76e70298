"""Settling: an unsettled block is read, compared behind the stream, and sent when it differs."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import settler as settler_module
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.events import BlocksRead, Captured, DropReading, ReadBlocks, SendDigests
from pydbt.core.primary.intake import take_in
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.reported_state import behind_since
from pydbt.core.primary.settler import Settled, Settler
from pydbt.core.primary.state import State
from pydbt.core.protocol.frames import Want
from pydbt.core.tracking.capture_record import RECORD, Operation, RecordFlag, RecordKind
from pydbt.core.tracking.discards import DiscardPromise
from pydbt.core.tracking.unsettled import SETTLE_DELAY_S
from pydbt.core.units import Geometry
from tests.core.primary.parts import lines, only, pending_of, records, runs, state_of, taken_effects, write


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


def unsettled_state(*blocks: int, **settings: object) -> tuple[State, Settler]:
    state = state_of(mode=Mode.NORMAL, **settings)
    state.unsettled.add(np.array(blocks, np.int64), 0, now=0.0)
    return state, Settler(state)


def read_and_offered(state: State, settler: Settler, now: float = 1.0) -> SendDigests:
    """The unsettled blocks are read, and their digests are offered."""
    settler.advance(now, hurry=True)
    read = only(taken_effects(state), ReadBlocks)
    assert settler.read(BlocksRead(read.reading, state.position, 4096), now)
    settler.advance(now, hurry=False)
    return only(taken_effects(state), SendDigests)


def test_an_unsettled_block_is_read_when_its_time_has_come_and_one_reading_at_a_time() -> None:
    state, settler = unsettled_state(5, 6, 9)
    settler.advance(0.5, hurry=False)
    assert not taken_effects(state) and settler.deadline() == 1.0
    settler.advance(1.0, hurry=False)
    assert only(taken_effects(state), ReadBlocks).runs.blocks().tolist() == [5, 6, 9]
    settler.advance(1.0, hurry=True)
    assert not taken_effects(state) and settler.deadline() == inf, "the first one is under way"


def test_a_block_is_compared_only_behind_every_update_that_was_captured_by_the_end_of_its_read() -> None:
    state, settler = unsettled_state(5)
    settler.advance(1.0, hurry=True)
    read = only(taken_effects(state), ReadBlocks)
    settler.read(BlocksRead(read.reading, state.position + 1, 4096), 1.0)
    settler.advance(1.0, hurry=False)
    assert not taken_effects(state), "records from before the end of the read are still to come"
    state.queue.append(write(state, 30).segment)
    settler.advance(1.0, hurry=False)
    assert not taken_effects(state) and not settler.awaiting, "a write is queued that the secondary must have first"
    state.queue.take()
    settler.advance(1.0, hurry=False)
    assert only(taken_effects(state), SendDigests).reading == read.reading and settler.awaiting


def test_a_block_that_differs_is_queued_as_one_update_behind_the_stream_and_settled_once_that_is_durable() -> None:
    state, settler = unsettled_state(5, 6)
    offered = read_and_offered(state, settler)
    assert settler.want(Want(batch=offered.batch, units=runs((6, 1))), 1.2) is Settled.TAKEN
    item = state.queue.take()
    assert item is not None and item.reading == offered.reading and item.first_sequence == state.sequence == 1
    assert item.runs is not None and item.runs.blocks().tolist() == [6]
    assert state.tracker.dirty.contains(6) and state.unsettled.blocks().tolist() == [6], "block 5 is the same"
    state.unsettled.durable_through(1)
    assert not len(state.unsettled)


def test_blocks_that_are_the_same_leave_the_set_and_the_memory() -> None:
    state, settler = unsettled_state(5)
    offered = read_and_offered(state, settler)
    assert settler.want(Want(batch=offered.batch, units=Runs.none()), 1.2) is Settled.TAKEN
    assert taken_effects(state) == [DropReading(offered.reading)] and not len(state.unsettled)
    assert settler.want(Want(batch=offered.batch, units=Runs.none()), 1.3) is Settled.NOTHING, "an answer counts once"


def test_where_the_log_has_no_room_the_block_is_pending_and_the_brain_is_told() -> None:
    state, settler = unsettled_state(5, log_slots=4)
    offered = read_and_offered(state, settler)
    sequences = np.arange(1, 5, dtype=np.uint64)
    state.tracker.insert_all(sequences, np.arange(20, 24), np.ones(4, np.int64))
    state.sequence = 4
    assert settler.want(Want(batch=offered.batch, units=runs((5, 1))), 1.2) is Settled.LOG_FULL
    assert pending_of(state) == [5] and taken_effects(state) == [DropReading(offered.reading)]


def test_a_block_that_could_not_be_read_stays_unsettled_and_is_read_again() -> None:
    state, settler = unsettled_state(5)
    settler.advance(1.0, hurry=True)
    read = only(taken_effects(state), ReadBlocks)
    assert settler.read(BlocksRead(read.reading, 0, 0, error="bad sector"), 1.0)
    assert lines(state, "error") and taken_effects(state) == [DropReading(read.reading)]
    assert state.unsettled.blocks().tolist() == [5]
    settler.advance(2.0, hurry=False)
    assert only(taken_effects(state), ReadBlocks).runs.blocks().tolist() == [5]


def test_a_read_of_another_part_is_none_of_its_business() -> None:
    _, settler = unsettled_state(5)
    assert not settler.read(BlocksRead(77, 0, 0), 1.0)


def test_a_write_to_a_block_that_is_being_read_makes_its_comparison_worthless() -> None:
    state, settler = unsettled_state(5)
    settler.advance(1.0, hurry=True)
    read = only(taken_effects(state), ReadBlocks)
    taken = write(state, 5)
    assert not settler.mark(taken.report, taken.segment, taken.written(state), 1.1)
    settler.read(BlocksRead(read.reading, state.position, 4096), 1.2)
    state.queue.sent_through = state.sequence
    settler.advance(1.2, hurry=False)
    offered = only(taken_effects(state), SendDigests)
    settler.want(Want(batch=offered.batch, units=runs((5, 1))), 1.3)
    assert taken_effects(state) == [DropReading(read.reading)], "an older content is not sent over a newer one"


def test_overlapping_failed_and_unstable_writes_unsettle_their_blocks() -> None:
    state = state_of(mode=Mode.NORMAL)
    settler = Settler(state)
    made = records(
        *[(RecordKind.SUBMIT, block) for block in (1, 1, 2, 3)], *[(RecordKind.COMPLETE, block) for block in (2, 3)]
    )
    made["flags"][-2:] = RecordFlag.ERROR, RecordFlag.UNSTABLE
    taken = take_in(state, Captured(made, 6, 0), 0.0)
    assert not settler.mark(taken.report, taken.segment, taken.written(state), 0.0)
    assert sorted(state.unsettled.blocks().tolist()) == [1, 2, 3]
    assert state.statistics.unsettled_blocks == {
        "overlapped": 1,
        "failed": 1,
        "unstable": 1,
        "unseen": 0,
        "verified": 0,
        "discarded": 0,
    }


def test_a_write_that_is_captured_late_is_unsettled_since_it_happened_and_read_as_soon_as_any_other() -> None:
    """The controller had stood still, and the records lay in the ring."""
    state = state_of(mode=Mode.NORMAL)
    settler = Settler(state)
    made = records((RecordKind.SUBMIT, 1), (RecordKind.COMPLETE, 1))
    made["flags"][-1], made["time_ns"] = RecordFlag.UNSTABLE, (3_000_000_000, 4_000_000_000)
    taken = take_in(state, Captured(made, 2, 0), 10.0)
    assert taken.since == 3.0
    settler.mark(taken.report, taken.segment, taken.written(state), 10.0, taken.since)
    assert state.unsettled.oldest_time() == 3.0 and behind_since(state) == 3.0
    assert settler.deadline() == 10.0 + SETTLE_DELAY_S
    only_ended = take_in(state, Captured(made[1:], 3, 0), 11.0)
    assert only_ended.since == 4.0 and only_ended.segment.arrived == 11.0


def test_more_blocks_than_are_worth_reading_singly_are_left_to_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler_module, "MAX_UNSETTLED_BLOCKS", 2)
    state = state_of(mode=Mode.NORMAL)
    settler = Settler(state)
    assert not settler.repair(np.array([1, 2]), 0.0) and settler.repairing
    assert settler.repair(np.array([3]), 0.0) and pending_of(state) == [3]
    taken = write(state, 4, 4)
    assert settler.mark(taken.report, taken.segment, taken.written(state), 0.0)
    assert sorted(state.unsettled.blocks().tolist()) == [1, 2]


def test_blocks_whose_completion_was_never_shown_are_read_again() -> None:
    state = state_of(mode=Mode.NORMAL)
    Settler(state).unknown(runs((8, 2)), 0.0)
    assert sorted(state.unsettled.blocks().tolist()) == [8, 9] and state.statistics.unsettled_blocks["unseen"] == 2


def test_when_replication_halts_unsettled_blocks_are_pending_and_their_readings_are_dropped() -> None:
    state, settler = unsettled_state(5)
    offered = read_and_offered(state, settler)
    settler.abandon(state.tracker.pending)
    assert pending_of(state) == [5] and not len(state.unsettled)
    assert taken_effects(state) == [DropReading(offered.reading)]
    assert settler.want(Want(batch=offered.batch, units=runs((5, 1))), 1.3) is Settled.NOTHING
    settler.abandon(state.tracker.pending)
    assert not taken_effects(state), "there is nothing left to drop"


def discarded(state: State, settler: Settler, first_block: int, blocks: int) -> bool:
    made = records((RecordKind.SUBMIT, first_block))
    made["op"], made["sectors"], made["pieces"], made["data"] = Operation.DISCARD, blocks * 8, 0, 0
    taken = take_in(state, Captured(made, state.position + 1, state.lost), state.now)
    return settler.mark(taken.report, taken.segment, taken.written(state), state.now)


def test_discarded_blocks_of_a_device_that_promises_nothing_are_read_back() -> None:
    state = state_of(mode=Mode.NORMAL, discards=DiscardPromise(0))
    settler = Settler(state)
    assert not discarded(state, settler, 4, 3)
    assert sorted(state.unsettled.blocks().tolist()) == [4, 5, 6] and not state.left_out.blocks.any()
    assert state.statistics.unsettled_blocks["discarded"] == 3
    state = state_of(mode=Mode.NORMAL)
    assert not discarded(state, Settler(state), 4, 3) and not len(state.unsettled), "it promises zeros"


def test_more_of_them_than_anybody_would_wait_for_count_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler_module, "MAX_DISCARDED_BLOCKS", 8)
    state = state_of(mode=Mode.NORMAL, discards=DiscardPromise(0))
    settler = Settler(state)
    assert not discarded(state, settler, 4, 6) and not discarded(state, settler, 20, 6), "that is no overload"
    assert sorted(state.unsettled.blocks().tolist()) == list(range(4, 10))
    assert state.left_out.blocks.extents().blocks().tolist() == list(range(20, 26))


def test_a_block_of_free_space_that_is_sent_is_not_left_out_any_more() -> None:
    state, settler = unsettled_state(2)
    state.left_out.add(runs((0, 8)))
    settler.advance(2.0, hurry=False)
    asked = only(taken_effects(state), ReadBlocks)
    settler.read(BlocksRead(asked.reading, state.position, 4096), 2.0)
    settler.advance(2.0, hurry=False)
    sent = only(taken_effects(state), SendDigests)
    assert settler.want(Want(batch=sent.batch, units=runs((2, 1))), 2.0) is Settled.TAKEN
    assert not state.left_out.mask(np.array([2])).any()


def test_a_secondary_that_compares_nothing_is_sent_what_was_read() -> None:
    state, settler = unsettled_state(5, 6)
    state.replica.compares = False
    settler.advance(1.0, hurry=True)
    read = only(taken_effects(state), ReadBlocks)
    settler.read(BlocksRead(read.reading, state.position, 4096), 1.0)
    assert settler.advance(1.0, hurry=False) is Settled.TAKEN
    assert not [effect for effect in taken_effects(state) if isinstance(effect, SendDigests)]
    item = state.queue.take()
    assert item is not None and item.runs is not None and item.runs.blocks().tolist() == [5, 6]
    assert sorted(state.unsettled.blocks().tolist()) == [5, 6], "until that is durable"


def test_without_a_comparison_a_log_without_room_is_told_too() -> None:
    state, settler = unsettled_state(5, log_slots=4)
    state.replica.compares = False
    settler.advance(1.0, hurry=True)
    read = only(taken_effects(state), ReadBlocks)
    settler.read(BlocksRead(read.reading, state.position, 4096), 1.0)
    state.tracker.insert_all(np.arange(1, 5, dtype=np.uint64), np.arange(20, 24), np.ones(4, np.int64))
    state.sequence = 4
    assert settler.advance(1.0, hurry=False) is Settled.LOG_FULL
    assert pending_of(state) == [5]
