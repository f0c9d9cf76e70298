"""What a crash of the primary at a bad moment must not make it forget."""

from __future__ import annotations

import numpy as np
import pytest

from pydbt.core import primary_events as ev
from pydbt.core.extents import make_extents
from pydbt.core.frames import Want
from pydbt.core.modes import Mode
from pydbt.core.primary import Primary
from pydbt.core.primary_config import PrimaryConfig
from pydbt.core.units import Geometry

GEOMETRY = Geometry(64 * 4096, 4096)


def test_no_map_is_written_before_the_blocks_in_use_are_in_it():
    """A map on disk lets the next start leave out the scan."""
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7), 0.0)
    effects = brain.handle(ev.Tick(), 0.0)
    if any(isinstance(effect, ev.TakeQuiet) for effect in effects):
        effects = brain.handle(ev.QuietTaken(np.zeros(1, np.uint64), 0, True), 0.0)
    assert not any(isinstance(effect, ev.Persist) for effect in effects)


def test_another_replica_is_remembered_only_when_the_map_holds_everything():
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False, replica="one"), 0.0)
    remembered = []
    for effect in brain.handle(ev.Connected("two", "consistent", 3, 5, False, False), 0.0):
        if isinstance(effect, ev.RememberReplica) and effect.replica == "two":
            remembered.append(effect)
    assert brain.tracker.pending.count() == 64 or not remembered


def test_a_settled_block_on_its_way_is_in_the_map_that_lets_the_kernel_forget_it():
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False), 0.0)
    brain.mode, brain.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(0.0)
    brain.settler._set.add(np.array([5]), 0, -10.0)
    effects = brain.handle(ev.Tick(), 0.0)  # the flip, and the read of block 5
    read = next(effect for effect in effects if isinstance(effect, ev.ReadBlocks))
    brain.quiet_held, brain.quiet_due, brain.retire_at, brain.next_retire = True, False, 1, 1e9
    brain.sequence = brain.acknowledged = 0  # the quiet bitmap holds block 5, and one write that is not acknowledged
    brain.sequence = brain.queue.sent_through = 1
    effects = brain.handle(ev.SweepRead(read.batch, 0, 4096), 0.1)
    digests = next(effect for effect in effects if isinstance(effect, ev.SendDigests))
    want = Want(batch=digests.number, extents=make_extents([5], [1]))
    effects = brain.handle(ev.Received(want), 0.2)
    assert any(isinstance(effect, ev.SendSettled) for effect in effects)
    brain.acknowledged = 1  # that write is; the settled block is still on its way
    effects = brain.handle(ev.Tick(), 0.3)
    zeroed = any(isinstance(effect, ev.ZeroQuiet) or effect == ev.Persist(zero_quiet=True) for effect in effects)
    assert not zeroed or brain.unsynchronized_map().contains(5)
    assert not any(isinstance(effect, ev.ZeroQuiet) for effect in effects), "the map on disk is not written anew"


def test_what_was_read_of_a_settled_block_is_let_go_when_replication_halts():
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False), 0.0)
    brain.mode, brain.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(0.0)
    brain.next_retire = 1e9
    brain.settler._set.add(np.array([5]), 0, -10.0)
    effects = brain.handle(ev.Tick(), 0.0)
    read = next(effect for effect in effects if isinstance(effect, ev.ReadBlocks))
    effects = brain.handle(ev.SweepRead(read.batch, 0, 4096), 0.1)
    digests = next(effect for effect in effects if isinstance(effect, ev.SendDigests))
    brain.handle(ev.Outbound(1 << 30, 0), 0.1)  # the link is slow: nothing more goes out for now
    brain.handle(ev.Received(Want(batch=digests.number, extents=make_extents([5], [1]))), 0.2)
    effects = brain.handle(ev.Disconnected("cut"), 0.3)
    assert brain.tracker.pending.contains(5)
    assert ev.DropBatch(read.batch) in effects


def test_a_wait_lasts_until_what_was_settled_for_it_is_durable():
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False), 0.0)
    brain.mode, brain.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(0.0)
    brain.next_retire = 1e9
    brain.settler._set.add(np.array([5]), 0, -10.0)
    effects = brain.handle(ev.WaitAsked(1, 0), 0.0)
    read = next(effect for effect in effects if isinstance(effect, ev.ReadBlocks))
    effects = brain.handle(ev.SweepRead(read.batch, 0, 4096), 0.1)
    digests = next(effect for effect in effects if isinstance(effect, ev.SendDigests))
    effects = brain.handle(ev.Received(Want(batch=digests.number, extents=make_extents([5], [1]))), 0.2)
    assert any(isinstance(effect, ev.SendSettled) for effect in effects)
    assert ev.AnswerWait(1) not in effects, "the content that was settled is not on the secondary yet"


@pytest.mark.parametrize("held", [False, True])
def test_a_target_that_was_a_replica_of_this_volume_before_is_compared_where_it_has_free_space_now_too(held):
    """What it alone had of a write, or what was there before it was given up, may lie where nobody looks any more."""
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7), 0.0)
    brain.handle(ev.Tick(), 0.0)
    effects = brain.handle(ev.Connected("two", "consistent", 3, 5, False, False, held), 0.0)
    assert [effect.whole for effect in effects if isinstance(effect, ev.ScanUsed)] == [held]


def test_an_initial_copy_that_another_replica_takes_over_begins_anew():
    """What the first replica had acknowledged has left the map; the second has none of it."""
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=True, scan_used=False, replica="one"), 0.0)
    effects = brain.handle(ev.Connected("two", "inconsistent", 0, 0, False, True), 0.0)
    assert any(isinstance(effect, ev.ScanUsed) for effect in effects) or not brain.scanned
