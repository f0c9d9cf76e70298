"""A resynchronization: maps, passes, digests, and back to the map whatever was not acknowledged."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.events import (
    BlocksRead,
    DropReading,
    Persist,
    Persisted,
    ReadBlocks,
    SendBlocks,
    SendDigests,
    SendFrame,
    TakeQuiet,
)
from pydbt.core.primary.forecast import NO_PACE
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.quiet_bitmap import PERSIST_RETRY_S, QuietBitmap
from pydbt.core.primary.resync import PROGRESS_INTERVAL_S, READ_RETRY_S, Resync
from pydbt.core.primary.state import State
from pydbt.core.protocol.frames import Begin, BeginFlag, Want
from pydbt.core.units import Geometry
from tests.core.primary.parts import fresh_map, lines, only, pending_of, runs, state_of, taken_effects


def resync_of(*pending: int, **settings: object) -> tuple[State, QuietBitmap, Resync]:
    """Under way, with the first map on disk and the BEGIN sent."""
    state = state_of(mode=Mode.RESYNCHRONIZING, **settings)
    state.phase = Phase.SWEEPING
    state.tracker.pending.set_blocks(np.array(pending, np.int64))
    quiet = QuietBitmap(state, 0.0)
    resync = Resync(state, quiet, 3, 0.0)
    resync.ask_for_map()
    fresh_map(quiet, resync)
    resync.announce(with_stream=True, now=0.0)
    taken_effects(state)
    return state, quiet, resync


def read(state: State, resync: Resync, now: float = 0.0, every_block: bool = False, error: str = "") -> ReadBlocks:
    """One pass of one reading, which is over."""
    resync.begin_pass(now)
    asked = only(taken_effects(state), ReadBlocks)
    resync.read(BlocksRead(asked.reading, 5, 4096, error=error), now, every_block=every_block)
    return asked


def test_bits_from_before_are_written_down_first_and_the_flip_comes_then() -> None:
    state = state_of(mode=Mode.RESYNCHRONIZING, quiet_held=True)
    quiet = QuietBitmap(state, 0.0)
    resync = Resync(state, quiet, 1, 0.0)
    resync.ask_for_map()
    assert taken_effects(state) == [TakeQuiet(flip=False)]
    quiet.taken(asked=True, in_log=False)
    quiet.persist(zero_quiet=True)
    assert quiet.written(Persisted(number=quiet.writes, zeroed=True), 0.0) and not resync.map_persisted()
    assert taken_effects(state) == [Persist(zero_quiet=True), TakeQuiet(flip=True)]
    fresh_map(quiet, resync)


def test_a_map_that_could_not_be_written_is_asked_for_again_some_time_later() -> None:
    state, quiet, resync = resync_of(1)
    resync.ask_for_map()
    quiet.taken(asked=True, in_log=False)
    resync.flipped()
    quiet.persist(zero_quiet=True)
    quiet.written(Persisted(zeroed=False, error="no space left", number=quiet.writes), 1.0)
    taken_effects(state)
    resync.look_again(1.5)
    assert not taken_effects(state)
    resync.look_again(1.0 + PERSIST_RETRY_S)
    assert taken_effects(state) == [TakeQuiet(flip=False)]


@pytest.mark.parametrize("with_stream", [True, False])
def test_begin_is_sent_once_and_tells_whether_a_stream_will_follow(with_stream: bool) -> None:
    state = state_of(mode=Mode.INITIAL_SYNC, initial=True)
    state.tracker.pending.set_range(0, 3)
    resync = Resync(state, QuietBitmap(state, 0.0), 4, 0.0)
    assert resync.progress(0.0) == (0, 0, NO_PACE)
    for _ in range(2):
        resync.announce(with_stream=with_stream, now=1.0)
    flags = BeginFlag.INITIAL if with_stream else BeginFlag.INITIAL | BeginFlag.NO_STREAM
    assert taken_effects(state) == [SendFrame(Begin(resync=4, epoch=7, total_bytes=3 * 4096, flags=flags))]
    assert resync.progress(1.0)[:2] == (0, 3 * 4096)


def test_a_reading_is_offered_and_only_what_differs_is_sent() -> None:
    state, _, resync = resync_of(1, 2, 3)
    asked = read(state, resync)
    sent = only(taken_effects(state), SendDigests)
    assert (sent.reading, sent.units.blocks().tolist()) == (asked.reading, [1, 2, 3]) and resync.awaiting
    assert resync.want(Want(batch=sent.batch, units=runs((2, 1)))) is None
    blocks = only(taken_effects(state), SendBlocks)
    assert blocks.wanted is not None and blocks.wanted.blocks().tolist() == [2]
    assert resync.want(Want(batch=sent.batch, units=runs((2, 1)))) is None, "an answer counts once"
    resync.acknowledged(blocks.batch)
    assert not resync.in_transit() and state.replica.unfinished and not resync.awaiting


def test_the_share_of_differences_that_were_found_early_is_told_once() -> None:
    state, _, resync = resync_of(*range(64))
    state.likely.by_log(runs((40, 2)))
    resync = Resync(state, QuietBitmap(state, 0.0), 4, 0.0)
    resync.begin_pass(0.0)
    asked = [effect for effect in taken_effects(state) if isinstance(effect, ReadBlocks)]
    assert [one.runs.blocks().tolist()[0] for one in asked] == [40, 0]
    for one in asked:
        resync.read(BlocksRead(one.reading, 5, 4096), 0.0, every_block=True)
        offered = only(taken_effects(state), SendDigests)
        resync.want(Want(offered.batch, runs((int(one.runs.firsts[0]), 1))))
        taken_effects(state)
    resync.all_compared()
    assert "of 8.0 KiB that differed" in lines(state, "info")[-1]
    assert not state.likely.runs.total()


def test_a_reading_that_is_the_same_is_in_sync_and_its_memory_is_free() -> None:
    state, _, resync = resync_of(1)
    asked = read(state, resync)
    sent = only(taken_effects(state), SendDigests)
    resync.want(Want(batch=sent.batch, units=Runs.none()))
    assert taken_effects(state) == [DropReading(asked.reading)] and not resync.in_transit()


def test_where_nothing_can_be_the_same_it_is_sent_as_it_is() -> None:
    for settings in ({"digests": False}, {"initial": True}):
        state, _, resync = resync_of(1, **settings)
        state.replica.fresh = True
        asked = read(state, resync)
        assert only(taken_effects(state), SendBlocks) == SendBlocks(asked.reading, 1, None)


@pytest.mark.parametrize("every_block", [True, False])
def test_a_secondary_that_compares_nothing_is_sent_everything(every_block: bool) -> None:
    state, _, resync = resync_of(1, 2)
    state.replica.compares = False
    asked = read(state, resync, every_block=every_block)
    assert only(taken_effects(state), SendBlocks) == SendBlocks(asked.reading, 1, None)


def test_a_reading_without_a_whole_unit_is_sent_as_it_is() -> None:
    state = State(PrimaryConfig(Geometry(64 * 512, 512), epoch=7, initial=False, scan_used=False), 0.0)
    state.tracker.pending.set_range(1, 3)  # blocks of 512 bytes, of which a digest is for eight
    resync = Resync(state, QuietBitmap(state, 0.0), 1, 0.0)
    asked = read(state, resync)
    assert only(taken_effects(state), SendBlocks) == SendBlocks(asked.reading, 1, None)


def test_blocks_outside_of_whole_units_are_sent_with_the_units_that_differ() -> None:
    state = State(PrimaryConfig(Geometry(64 * 512, 512), epoch=7, initial=False, scan_used=False), 0.0)
    state.tracker.pending.set_range(6, 12)
    resync = Resync(state, QuietBitmap(state, 0.0), 1, 0.0)
    read(state, resync)
    sent = only(taken_effects(state), SendDigests)
    assert sent.units.blocks().tolist() == [1]
    resync.want(Want(batch=sent.batch, units=Runs.none()))
    wanted = only(taken_effects(state), SendBlocks).wanted
    assert wanted is not None and wanted.blocks().tolist() == [6, 7, 16, 17]


def test_with_every_block_compared_the_blocks_that_differed_are_told() -> None:
    state, _, resync = resync_of(1, 2, 3, digests=False)
    read(state, resync, every_block=True)
    sent = only(taken_effects(state), SendDigests)
    differing = resync.want(Want(batch=sent.batch, units=runs((1, 2))))
    assert differing is not None and differing.tolist() == [1, 2]


def test_blocks_that_could_not_be_read_are_pending_again_and_nothing_is_read_for_a_while() -> None:
    state, _, resync = resync_of(1, 2)
    read(state, resync, now=1.0, error="bad sector")
    assert pending_of(state) == [1, 2] and lines(state, "error")
    resync.begin_pass(1.0 + READ_RETRY_S - 0.1)
    assert not [effect for effect in taken_effects(state) if isinstance(effect, ReadBlocks)]
    resync.feed(1.0 + READ_RETRY_S)
    assert only(taken_effects(state), ReadBlocks).runs.total() == 2


def test_a_pass_that_is_over_asks_for_the_next_map() -> None:
    state, _, resync = resync_of()
    resync.sweep_on(0.0, explained=False)
    assert taken_effects(state) == [TakeQuiet(flip=True)] and not resync.map_on_disk


def test_a_long_pass_writes_down_how_far_it_is() -> None:
    state, quiet, resync = resync_of(1)
    resync.sweep_on(PROGRESS_INTERVAL_S, explained=False)
    assert [effect for effect in taken_effects(state) if isinstance(effect, Persist)] == [Persist(zero_quiet=False)]
    quiet.written(Persisted(zeroed=False, number=quiet.writes), PROGRESS_INTERVAL_S)
    resync.sweep_on(PROGRESS_INTERVAL_S + 1, explained=False)
    assert not taken_effects(state)


@pytest.mark.parametrize("explained", [False, True])
def test_a_resynchronization_without_an_end_is_told_once_unless_the_operator_knows_why(explained: bool) -> None:
    state, quiet, resync = resync_of()
    for _ in range(8):
        resync.sweep_on(0.0, explained=explained)
        taken = [line for line in lines(state, "warning") if "does not come to an end" in line]
        taken_effects(state)
        fresh_map(quiet, resync)
        if taken:
            break
    assert bool(taken) != explained


def test_an_abandoned_reading_is_pending_again() -> None:
    state, _, resync = resync_of(1, 2)
    asked = read(state, resync)
    taken_effects(state)
    resync.abandon()
    assert taken_effects(state) == [DropReading(asked.reading)] and pending_of(state) == [1, 2]
    resync.read(BlocksRead(asked.reading, 5, 4096), 0.0, every_block=False)
    assert not taken_effects(state), "a late answer meets nothing"


def test_a_read_may_have_seen_writes_up_to_its_position_in_the_ring() -> None:
    state, _, resync = resync_of(1)
    read(state, resync)
    assert not resync.all_taken_in
    state.position = 5
    assert resync.all_taken_in


def test_the_rate_limit_sets_the_deadline() -> None:
    state, _, resync = resync_of(*range(32), rate_limit_bytes=4096)
    assert resync.deadline() == inf
    read(state, resync)
    assert resync.deadline() > 0
    state.phase = Phase.COMMITTING
    resync.abandon()
    assert resync.awaiting, "the answer to the COMMIT"


def test_a_map_that_is_written_for_another_secondary_ends_no_pass() -> None:
    _, quiet, resync = resync_of(1)
    quiet.persist(zero_quiet=True)
    assert resync.map_on_disk and not resync.map_persisted(), "blocks of this pass are on their way yet"
    assert resync.map_on_disk
