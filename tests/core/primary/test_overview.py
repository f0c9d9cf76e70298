"""At a glance: the map that must be on disk, the bytes out of sync, and the words for what is waited for."""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.events import BlocksRead, ReadBlocks, SendBlocks, SendDigests
from pydbt.core.primary.file_system_transactions import FileSystemTransactions
from pydbt.core.primary.flight_watch import FlightWatch
from pydbt.core.primary.link import Link
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.overview import Overview
from pydbt.core.primary.parts import Parts
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.resync import PassMap, Resync
from pydbt.core.primary.settler import Settler
from pydbt.core.primary.state import State
from pydbt.core.primary.stream_landing import StreamLanding
from pydbt.core.primary.taints import Taints
from pydbt.core.primary.verifier import Verifier
from pydbt.core.protocol.frames import Want
from pydbt.core.units import Geometry
from tests.core.primary.parts import only, state_of, taken_effects, write


def looking(state: State) -> tuple[QuietBitmap, Overview]:
    quiet = QuietBitmap(state, 0.0)
    landing = StreamLanding(state, FlightWatch(state, 0.0))
    overview = Overview(
        Parts(
            state,
            Link(15.0, 0.0),
            quiet,
            Settler(state),
            Verifier(state),
            landing,
            Taints(state),
            FileSystemTransactions(state),
        )
    )
    return quiet, overview


def test_the_map_has_pending_sent_and_unsettled_blocks_and_those_of_the_log_once_they_are_covered() -> None:
    state = state_of(mode=Mode.RESYNCHRONIZING)
    quiet, overview = looking(state)
    state.tracker.pending.set_range(1, 1)
    resync = Resync(state, quiet, 1, 0.0)
    resync.begin_pass(0.0)
    resync.read(BlocksRead(only(taken_effects(state), ReadBlocks).reading, 0, 4096), 0.0, every_block=False)
    state.tracker.pending.set_range(2, 1)
    state.unsettled.add(np.array([3]), 1, 0.0)
    taken = write(state, 4)
    state.tracker.insert_all(taken.segment.last_sequences.astype(np.uint64), *taken.written(state))
    assert overview.unsynchronized_map(resync).extents().blocks().tolist() == [1, 2, 3]
    assert overview.out_of_sync_bytes(resync) == 4 * 4096
    quiet.cover()
    assert overview.unsynchronized_map(resync).extents().blocks().tolist() == [1, 2, 3, 4]
    status = overview.status(resync, 0.0)
    assert status.unsettled_bytes == 4096 and status.sequence == 1 and status.snapshots is None


def test_before_the_blocks_in_use_are_on_the_map_nobody_knows_how_much_is_out_of_sync() -> None:
    state = state_of(scan_used=True)
    overview = looking(state)[1]
    assert not overview.is_known and not overview.status(None, 0.0).known
    state.replica.scanned = True
    assert overview.is_known and overview.status(None, 0.0).known


def test_a_search_for_the_blocks_in_use_is_named() -> None:
    state = state_of(scan_used=True)
    quiet, landing, taints = QuietBitmap(state, 0.0), StreamLanding(state, FlightWatch(state, 0.0)), Taints(state)
    overview = Overview(
        Parts(
            state,
            Link(15.0, 0.0),
            quiet,
            Settler(state),
            Verifier(state),
            landing,
            taints,
            FileSystemTransactions(state),
        )
    )
    assert overview.waiting_for(None) == ""
    quiet.scan(whole=False)
    assert "blocks in use" in overview.waiting_for(None)


def test_a_taint_makes_it_unknown_until_all_that_it_stands_for_is_on_the_map() -> None:
    state = state_of()
    quiet, landing, taints = QuietBitmap(state, 0.0), StreamLanding(state, FlightWatch(state, 0.0)), Taints(state)
    overview = Overview(
        Parts(
            state,
            Link(15.0, 0.0),
            quiet,
            Settler(state),
            Verifier(state),
            landing,
            taints,
            FileSystemTransactions(state),
        )
    )
    assert overview.is_known
    taints.add("an unknown operation wrote")
    assert not overview.is_known
    taints.search_begins()
    taints.answered_by_scan()
    assert overview.is_known
    taints.add("another one")
    assert not overview.is_known
    taints.landed()
    assert not overview.is_known and list(state.taints) == ["another one"]
    taints.clear(state.taint_numbers)
    assert overview.is_known


def test_no_more_is_out_of_sync_than_the_volume_measures() -> None:
    state = State(PrimaryConfig(Geometry(10 * 4096 - 512, 4096), epoch=7), 0.0)
    state.tracker.pending.set_range(0, 10)
    assert looking(state)[1].out_of_sync_bytes(None) == 10 * 4096 - 512


def test_each_phase_has_its_words() -> None:
    state = state_of(mode=Mode.RESYNCHRONIZING)
    quiet, overview = looking(state)
    resync = Resync(state, quiet, 1, 0.0)
    assert overview.waiting_for(None) == ""
    state.phase = Phase.SWEEPING
    assert overview.waiting_for(resync) == "the maps to be written"
    resync._map = PassMap.ON_DISK
    assert overview.waiting_for(resync) == ""
    state.phase = Phase.COMMITTING
    assert overview.waiting_for(resync) == "the secondary to make the new image durable"
    assert overview.status(None, 0.0).done_bytes == 0


def copied(state: State, resync: Resync, first: int, count: int, wanted: int | None = None) -> None:
    """Blocks were read, found to differ (``wanted`` of them), sent, and are durable on the secondary."""
    state.tracker.pending.set_range(first, count)
    resync.begin_pass(0.0)
    reading = only(taken_effects(state), ReadBlocks).reading
    resync.read(BlocksRead(reading, 0, count * 4096), 0.0, every_block=False)
    (asked,) = taken_effects(state)
    if isinstance(asked, SendDigests):
        units = np.arange(first, first + (count if wanted is None else wanted))
        resync.want(Want(asked.batch, Runs.of_blocks(units)))
        (asked,) = taken_effects(state)
    assert isinstance(asked, SendBlocks)
    resync.acknowledged(asked.batch)


def test_a_block_that_a_promotion_would_roll_back_is_out_of_sync_until_the_commit() -> None:
    state = state_of(mode=Mode.RESYNCHRONIZING)
    quiet, overview = looking(state)
    resync = Resync(state, quiet, 1, 0.0)
    copied(state, resync, 1, 8, wanted=3)
    assert not overview.unsynchronized_map(resync).any(), "a next run need not send them again"
    assert overview.out_of_sync_bytes(resync) == 3 * 4096, "those that were equal are in the image"
    copied(state, resync, 20, 2)
    resync.abandon()
    assert overview.out_of_sync_bytes(None) == 5 * 4096, "the stage lasts longer than a connection"
    state.staged.clear()
    assert overview.out_of_sync_bytes(None) == 0


def test_in_place_there_is_no_earlier_image_and_what_was_copied_is_in_sync() -> None:
    state = state_of(mode=Mode.RESYNCHRONIZING)
    quiet, overview = looking(state)
    state.replica.goes_back = False
    copied(state, Resync(state, quiet, 1, 0.0), 1, 8)
    assert overview.out_of_sync_bytes(None) == 0 and state.staged.count() == 8


def test_a_block_that_only_waits_for_its_acknowledgement_is_told_apart_from_one_that_is_out_of_sync_otherwise() -> None:
    state = state_of(mode=Mode.NORMAL)
    overview = looking(state)[1]
    for block in (4, 5, 6):
        taken = write(state, block)
        state.tracker.insert_all(taken.segment.last_sequences.astype(np.uint64), *taken.written(state))
    status = overview.status(None, 0.0)
    assert (status.out_of_sync_bytes, status.on_the_way_bytes) == (3 * 4096, 3 * 4096)
    state.tracker.pending.set_range(6, 2)
    status = overview.status(None, 0.0)
    assert status.out_of_sync_bytes == 4 * 4096
    assert status.on_the_way_bytes == 2 * 4096, "block 6 has to be copied as well: it is not merely on the way"


def test_the_out_of_sync_bytes_are_the_whole_volume_where_their_sum_would_exceed_it() -> None:
    state = state_of(mode=Mode.NORMAL)
    overview = looking(state)[1]
    blocks = state.geometry.block_count
    state.staged.set_range(0, blocks)
    state.replica.goes_back = True
    taken = write(state, 4)
    state.tracker.insert_all(taken.segment.last_sequences.astype(np.uint64), *taken.written(state))
    status = overview.status(None, 0.0)
    assert status.out_of_sync_bytes == state.geometry.size_bytes and status.on_the_way_bytes == 0
