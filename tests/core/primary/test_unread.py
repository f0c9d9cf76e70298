"""A block of the source that cannot be read holds nothing else up, and stays out of sync until it was read or written anew."""

from __future__ import annotations

import numpy as np

from pydbt.core.primary import settler as settler_module
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.events import BlocksRead, DropReading, Persist, ReadBlocks, SendBlocks, SendDigests
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.reported_state import told_position
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.settler import Settler
from pydbt.core.primary.state import State
from pydbt.core.primary.unread import failed_as_a_whole, set_apart
from pydbt.core.primary.verifier import Verifier
from pydbt.core.protocol.frames import Want
from pydbt.core.protocol.heartbeat import OUT_OF_SYNC
from pydbt.core.tracking import unreadable as unreadable_module
from pydbt.core.tracking.unreadable import TRY_AGAIN_S
from pydbt.core.units import Geometry
from tests.core.primary.parts import lines, only, pending_of, runs, state_of, taken_effects, write
from tests.core.primary.test_resync import resync_of


def read_but(reading: int, *bad: int, position: int = 0) -> BlocksRead:
    """A read that could not read some blocks."""
    return BlocksRead(reading, position, 4096, "bad sector", runs(*((block, 1) for block in bad)))


def unreadable_of(state: State) -> list[int]:
    return state.unreadable.blocks().tolist()


def test_a_read_that_names_no_blocks_or_too_many_of_them_failed_as_a_whole(monkeypatch) -> None:
    state = state_of()
    assert not failed_as_a_whole(state, BlocksRead(1, 0, 4096))
    assert failed_as_a_whole(state, BlocksRead(1, 0, 0, "gone")) and not taken_effects(state)
    assert not failed_as_a_whole(state, read_but(1, 5))
    monkeypatch.setattr(unreadable_module, "MAX_UNREADABLE_BLOCKS", 1)
    assert failed_as_a_whole(state, read_but(1, 5, 6)) and taken_effects(state) == [DropReading(1)]


def test_the_operator_is_told_once_of_each_block() -> None:
    state = state_of()
    set_apart(state, read_but(1, 5, 6), 0.0)
    set_apart(state, read_but(1, 5, 6), 1.0)
    assert len(lines(state, "error")) == 1 and "8192 bytes of the source cannot be read" in lines(state, "error")[0]


def test_a_resynchronization_sends_what_it_could_read_and_ends_without_the_rest() -> None:
    state, _, resync = resync_of(1, 2, 3, digests=False)
    resync.begin_pass(0.0)
    asked = only(taken_effects(state), ReadBlocks)
    resync.read(read_but(asked.reading, 2), 0.0, every_block=False)
    assert only(taken_effects(state), SendBlocks).wanted is None
    assert [transit.runs.blocks().tolist() for transit in resync.in_transit()] == [[1, 3]]
    assert unreadable_of(state) == [2] and not pending_of(state) and state.reads_rest_until == 0.0
    resync.acknowledged(1)
    assert resync.sweep.pass_over and resync.progress(0.0)[:2] == (2 * 4096, 2 * 4096)


def test_a_reading_of_bad_blocks_alone_is_over() -> None:
    state, _, resync = resync_of(1, 2)
    resync.begin_pass(0.0)
    asked = only(taken_effects(state), ReadBlocks)
    resync.read(read_but(asked.reading, 1, 2), 0.0, every_block=False)
    assert taken_effects(state) == [DropReading(asked.reading)] and resync.sweep.pass_over
    assert resync.sweep.window_bytes == 0 and unreadable_of(state) == [1, 2]


def test_a_block_that_a_later_pass_reads_is_readable_again() -> None:
    state, _, resync = resync_of(1, digests=False)
    state.unreadable.add(np.array([1, 9]), 0.0)
    resync.begin_pass(0.0)
    asked = only(taken_effects(state), ReadBlocks)
    resync.read(BlocksRead(asked.reading, 5, 4096), 0.0, every_block=False)
    assert unreadable_of(state) == [9]


def test_the_next_resynchronization_tries_again_what_is_due() -> None:
    state = state_of(mode=Mode.RESYNCHRONIZING)
    state.unreadable.add(np.array([4]), 0.0)
    Resync(state, QuietBitmap(state, 0.0), 1, TRY_AGAIN_S)
    assert pending_of(state) == [4] and not len(state.unreadable)


def test_settling_goes_on_without_the_block_and_comes_back_to_it() -> None:
    state = state_of(mode=Mode.NORMAL)
    settler = Settler(state)
    state.unsettled.add(np.array([5, 6]), 0, 0.0)
    settler.advance(1.0, hurry=True)
    asked = only(taken_effects(state), ReadBlocks)
    assert settler.read(read_but(asked.reading, 5), 1.0)
    assert unreadable_of(state) == [5] and state.unsettled.blocks().tolist() == [6]
    settler.advance(1.0, hurry=False)
    sent = only(taken_effects(state), SendDigests)
    assert sent.units.blocks().tolist() == [6]
    settler.want(Want(batch=sent.batch, units=runs()), 1.0)
    assert not len(state.unsettled) and settler.deadline() == 1.0 + TRY_AGAIN_S
    settler.advance(1.0 + TRY_AGAIN_S, hurry=True)
    again = [effect for effect in taken_effects(state) if isinstance(effect, ReadBlocks)]
    assert [effect.runs.blocks().tolist() for effect in again] == [[5]]
    assert not settler.repairing, "nobody has found it to differ"
    assert settler.read(read_but(again[0].reading, 5), 62.0)
    assert unreadable_of(state) == [5] and not len(state.unsettled) and not settler.reading


def test_a_block_that_is_read_at_last_is_compared_like_any_other() -> None:
    state = state_of(mode=Mode.NORMAL)
    settler = Settler(state)
    state.unreadable.add(np.array([5]), -TRY_AGAIN_S)
    settler.advance(0.0, hurry=True)
    asked = only(taken_effects(state), ReadBlocks)
    assert settler.read(BlocksRead(asked.reading, 0, 4096), 0.0)
    assert not len(state.unreadable) and state.unsettled.blocks().tolist() == [5]


def test_a_write_of_the_whole_block_answers_for_it_once_it_is_durable() -> None:
    state = state_of(mode=Mode.NORMAL)
    settler = Settler(state)
    state.unreadable.add(np.array([5, 6]), 0.0)
    taken = write(state, 5)
    settler.mark(taken.report, taken.segment, taken.written(state), 0.0)
    assert unreadable_of(state) == [6] and state.unsettled.oldest_sequence() == -1
    state.unsettled.durable_through(1)
    assert not len(state.unsettled)


def test_a_write_of_a_part_of_the_block_does_not() -> None:
    state = state_of(mode=Mode.NORMAL)
    settler = Settler(state)
    state.unreadable.add(np.array([5]), 0.0)
    taken = write(state, 5)
    taken.segment.records["sectors"] = 1
    settler.mark(taken.report, taken.segment, taken.written(state), 0.0)
    assert unreadable_of(state) == [5] and not len(state.unsettled)


def test_when_replication_halts_bad_blocks_are_pending_like_all_others() -> None:
    state = state_of(mode=Mode.NORMAL)
    settler = settler_module.Settler(state)
    state.unreadable.add(np.array([5]), 0.0)
    settler.abandon(state.tracker.pending)
    assert pending_of(state) == [5] and not len(state.unreadable)


def verifying(state: State, blocks: int) -> tuple[Verifier, ReadBlocks]:
    """A verification of the first blocks, and its first reading."""
    verifier = Verifier(state)
    verifier.begin(runs((0, blocks)), False, None, 0.0)
    verifier.advance(0.0)
    return verifier, only(taken_effects(state), ReadBlocks)


def test_a_verification_compares_the_rest_and_tells_what_it_could_not() -> None:
    state = state_of(mode=Mode.NORMAL)
    verifier, asked = verifying(state, 4)
    assert verifier.read(read_but(asked.reading, 2), 0.0)
    verifier.advance(0.0)
    sent = only(taken_effects(state), SendDigests)
    assert sent.units.blocks().tolist() == [0, 1, 3]
    verifier.want(Want(batch=sent.batch, units=runs()), 0.1)
    assert verifier.progress().done_bytes == 4 * 4096
    findings = verifier.advance(0.2)
    assert (findings.compared_blocks, findings.differing_blocks, findings.unreadable_blocks) == (3, 0, 1)
    assert any("were not compared" in line for line in lines(state, "error"))
    assert unreadable_of(state) == [2]


def test_a_verification_that_can_read_nothing_of_a_reading_ends() -> None:
    state = state_of(mode=Mode.NORMAL)
    verifier, asked = verifying(state, 2)
    verifier.read(read_but(asked.reading, 0, 1), 0.0)
    assert taken_effects(state) == [DropReading(asked.reading)]
    assert verifier.advance(0.0).unreadable_blocks == 2


def test_blocks_that_a_verification_finds_the_same_are_readable_again() -> None:
    state = state_of(mode=Mode.NORMAL)
    state.unreadable.add(np.array([1, 9]), 0.0)
    verifier, asked = verifying(state, 2)
    verifier.read(BlocksRead(asked.reading, 0, 8192), 0.0)
    verifier.advance(0.0)
    sent = only(taken_effects(state), SendDigests)
    verifier.want(Want(batch=sent.batch, units=runs()), 0.1)
    assert unreadable_of(state) == [9]


def test_bad_blocks_are_out_of_sync_and_in_every_map_that_is_written() -> None:
    brain = Primary(PrimaryConfig(Geometry(64 * 4096, 4096), epoch=7, initial=False, scan_used=False), 0.0)
    brain.state.unreadable.add(np.array([5]), 0.0)
    assert brain.out_of_sync_bytes() == 4096
    assert brain.unsynchronized_map().extents().blocks().tolist() == [5]
    assert brain.status(0.0).unreadable.blocks().tolist() == [5]


def test_neither_side_calls_the_replica_up_to_date_while_a_block_cannot_be_read() -> None:
    state = state_of(mode=Mode.NORMAL)
    write(state, 1)
    assert told_position(state, repairing=False, answered_at=0.0, now=0.0) == 1
    state.unreadable.add(np.array([5]), 0.0)
    assert told_position(state, repairing=False, answered_at=0.0, now=0.0) == OUT_OF_SYNC
    Settler(state).advance(TRY_AGAIN_S, hurry=True)
    assert state.unsettled.blocks().tolist() == [5], "it is tried again"
    assert told_position(state, repairing=False, answered_at=TRY_AGAIN_S, now=TRY_AGAIN_S) == OUT_OF_SYNC


def test_a_block_that_turns_out_to_be_bad_in_normal_mode_is_written_down() -> None:
    state = state_of(mode=Mode.NORMAL)
    quiet = QuietBitmap(state, 0.0)
    state.unreadable.add(np.array([5]), 0.0)
    quiet.retire(0.5)
    assert only(taken_effects(state), Persist).zero_quiet is False
    assert not state.unreadable.unsaved
