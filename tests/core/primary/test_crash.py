"""A crash of the primary at a bad moment must not make it forget these facts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.quiet_bitmap import Bits
from pydbt.core.primary.resync import Resync
from pydbt.core.protocol.frames import Ack, Want
from pydbt.core.protocol.generations import Generations
from pydbt.core.tracking.capture_record import RECORD, RecordKind
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
    assert brain.state.tracker.pending.count() == 64 or not remembered


KNOWN = PrimaryConfig(
    GEOMETRY,
    epoch=7,
    initial=False,
    scan_used=False,
    replica="one",
    replica_epoch=7,
    replica_sequence=5,
    replica_progress=100,
)


def told(progress: int | None, replica: str = "one") -> ev.Connected:
    return ev.Connected(replica, "inconsistent", 7, 5, False, False, progress=progress)


def remembered(effects: list[ev.Effect]) -> list[int]:
    return [effect.progress for effect in effects if isinstance(effect, ev.RememberReplica)]


def acknowledged(brain: Primary, progress: int) -> None:
    brain.handle(ev.Received(Ack(5, progress=progress)), 0.0)


@pytest.mark.parametrize("progress", [100, 160, None])
def test_a_secondary_that_has_all_it_ever_told_of_is_trusted_and_remembered(progress):
    brain = Primary(KNOWN, 0.0)
    assert remembered(brain.handle(told(progress), 0.0)) == [max(progress or 0, 100)] and brain.state.replica.scanned


def test_a_secondary_put_back_behind_this_runs_acknowledgements_is_noticed_and_that_is_saved_at_once():
    brain = Primary(KNOWN, 0.0)
    brain.handle(told(100), 0.0)
    acknowledged(brain, 180)
    acknowledged(brain, 0)  # said by nobody, and no reason to forget
    brain.handle(ev.Disconnected("cut"), 1.0)
    effects = brain.handle(told(150), 2.0)
    assert not brain.state.replica.scanned and brain.state.replica.initial
    assert remembered(effects) == [180], (
        "a run that dies before everything is on the map leaves it to the next one to notice"
    )


def test_a_secondary_that_was_put_back_is_compared_once_however_often_its_connection_is_lost_meanwhile():
    brain = Primary(KNOWN, 0.0)
    brain.handle(told(90), 0.0)
    assert not brain.state.replica.scanned
    brain.handle(ev.UsedBlocks(Runs(np.array([0]), np.array([64])), "all of it"), 0.0)
    effects = brain.handle(ev.Persisted(zeroed=False, number=brain.quiet.writes), 0.0)
    assert remembered(effects) == [90], "what it says now is all that counts, once the map has everything"
    acknowledged(brain, 95)
    for when, progress, trusted in ((1.0, 95, True), (3.0, 94, False)):
        brain.handle(ev.Disconnected("cut"), when)
        brain.handle(told(progress), when + 1)
        assert brain.state.replica.scanned == trusted


def test_a_secondary_put_back_to_one_backup_and_then_to_another_is_noticed_both_times():
    """The second one may have been made later, and have got more than is acknowledged since the first one was put back."""
    brain = Primary(KNOWN, 0.0)
    brain.handle(ev.Connected("one", "consistent", 7, 2, False, False, progress=30), 0.0)
    brain.handle(ev.UsedBlocks(Runs(np.array([0]), np.array([64])), "all of it"), 0.0)
    brain.handle(ev.Persisted(zeroed=False, number=brain.quiet.writes), 0.0)
    brain.handle(ev.Disconnected("cut"), 1.0)
    brain.handle(ev.Connected("one", "consistent", 7, 3, False, False, progress=80), 2.0)
    assert not brain.state.replica.scanned


def test_another_replica_is_not_held_to_what_the_one_before_it_had_told():
    brain = Primary(KNOWN, 0.0)
    effects = brain.handle(told(3, "two"), 0.0)
    assert brain.state.replica.progress == 3 and not remembered(effects)


def test_the_volume_gets_a_new_name_when_its_secondary_was_put_back():
    """Were that promoted, it would be no heir to what it lacks."""
    shared = Generations(9, shared=True)
    brain = Primary(replace(KNOWN, generations=shared), 0.0)
    brain.handle(told(90), 0.0)
    assert brain.state.generations.current != 9 and not brain.state.generations.shared


def test_a_settled_block_on_its_way_is_in_the_map_that_lets_the_kernel_forget_it():
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False), 0.0)
    brain.state.mode, brain.state.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(0.0)
    brain.state.unsettled.add(np.array([5]), 0, -10.0)
    effects = brain.handle(ev.Tick(), 0.0)  # the flip, and the read of block 5
    read = next(effect for effect in effects if isinstance(effect, ev.ReadBlocks))
    brain.quiet.bits, brain.quiet.request, brain.quiet.next_retire = Bits(retire_at=1), None, 1e9
    brain.state.sequence = brain.state.acknowledged = (
        0  # the quiet bitmap holds block 5, and one write that is not acknowledged
    )
    brain.state.sequence = brain.state.queue.sent_through = 1
    effects = brain.handle(ev.BlocksRead(read.reading, 0, 4096), 0.1)
    digests = next(effect for effect in effects if isinstance(effect, ev.SendDigests))
    want = Want(batch=digests.batch, units=Runs(np.array([5]), np.array([1])))
    effects = brain.handle(ev.Received(want), 0.2)
    assert any(isinstance(effect, ev.SendSettled) for effect in effects)
    brain.state.acknowledged = 1  # that write is; the settled block is still on its way
    effects = brain.handle(ev.Tick(), 0.3)
    zeroed = any(isinstance(effect, ev.ZeroQuiet) or effect == ev.Persist(zero_quiet=True) for effect in effects)
    assert not zeroed or brain.unsynchronized_map().contains(5)
    assert not any(isinstance(effect, ev.ZeroQuiet) for effect in effects), "the map on disk is not written anew"


def test_a_reading_of_an_unsettled_block_is_dropped_when_replication_halts():
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False), 0.0)
    brain.state.mode, brain.state.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(0.0)
    brain.quiet.next_retire = 1e9
    brain.state.unsettled.add(np.array([5]), 0, -10.0)
    effects = brain.handle(ev.Tick(), 0.0)
    read = next(effect for effect in effects if isinstance(effect, ev.ReadBlocks))
    effects = brain.handle(ev.BlocksRead(read.reading, 0, 4096), 0.1)
    digests = next(effect for effect in effects if isinstance(effect, ev.SendDigests))
    brain.handle(ev.Outbound(1 << 30, 0), 0.1)  # the link is slow: nothing more goes out for now
    brain.handle(ev.Received(Want(batch=digests.batch, units=Runs(np.array([5]), np.array([1])))), 0.2)
    effects = brain.handle(ev.Disconnected("cut"), 0.3)
    assert brain.state.tracker.pending.contains(5)
    assert ev.DropReading(read.reading) in effects


def test_a_wait_lasts_until_what_was_settled_for_it_is_durable():
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False), 0.0)
    brain.state.mode, brain.state.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(0.0)
    brain.quiet.next_retire = 1e9
    brain.state.unsettled.add(np.array([5]), 0, -10.0)
    effects = brain.handle(ev.WaitAsked(1, 0), 0.0)
    read = next(effect for effect in effects if isinstance(effect, ev.ReadBlocks))
    effects = brain.handle(ev.BlocksRead(read.reading, 0, 4096), 0.1)
    digests = next(effect for effect in effects if isinstance(effect, ev.SendDigests))
    effects = brain.handle(ev.Received(Want(batch=digests.batch, units=Runs(np.array([5]), np.array([1])))), 0.2)
    assert any(isinstance(effect, ev.SendSettled) for effect in effects)
    assert ev.AnswerWait(1) not in effects, "the content that was settled is not on the secondary yet"


@pytest.mark.parametrize("held", [False, True])
def test_a_target_that_was_a_replica_of_this_volume_before_is_compared_where_it_has_free_space_now_too(held):
    """Writes that it alone had, or its content from before it was given up, may lie where nobody looks any more."""
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7), 0.0)
    brain.handle(ev.Tick(), 0.0)
    effects = brain.handle(ev.Connected("two", "consistent", 3, 5, False, False, held), 0.0)
    assert [effect.whole for effect in effects if isinstance(effect, ev.ScanUsed)] == [held]


def test_blocks_in_use_that_were_found_before_it_was_known_that_all_are_needed_are_not_enough():
    """They are found beside the loop: meanwhile the connection may have broken, and another secondary may have answered."""
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7), 0.0)
    brain.handle(ev.Tick(), 0.0)
    brain.handle(ev.Connected("one", "consistent", 3, 5, False, False, False), 0.0)
    brain.handle(ev.Disconnected("cut"), 0.1)
    effects = brain.handle(ev.Connected("two", "consistent", 3, 5, False, False, True), 5.0)
    assert not any(isinstance(effect, ev.ScanUsed) for effect in effects), "one search at a time"
    some = Runs(np.array([0]), np.array([4]))
    effects = brain.handle(ev.UsedBlocks(some, "a few"), 5.1)
    assert [effect.whole for effect in effects if isinstance(effect, ev.ScanUsed)] == [True]
    assert not brain.state.replica.scanned
    brain.handle(ev.UsedBlocks(some, "all", whole=True), 5.2)
    assert brain.state.replica.scanned


def test_an_initial_copy_that_another_replica_takes_over_begins_anew():
    """Writes that the first replica had acknowledged have left the map; the second has none of them."""
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=True, scan_used=False, replica="one"), 0.0)
    effects = brain.handle(ev.Connected("two", "inconsistent", 0, 0, False, True), 0.0)
    assert any(isinstance(effect, ev.ScanUsed) for effect in effects) or not brain.state.replica.scanned


def test_a_full_disk_for_the_maps_does_not_keep_the_controller_busy_for_ever():
    """With an unsettled block the quiet bitmap may only go after a map; that failed, and was asked for again at once."""
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False), 0.0)
    brain.state.mode, brain.state.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(0.0)
    brain.quiet.next_retire = 1e9
    brain.state.unsettled.add(np.array([5]), 0, 1e9)
    brain.quiet.bits = Bits(retire_at=0)
    effects = brain.handle(ev.Tick(), 1.0)
    assert ev.Persist(zero_quiet=True) in effects
    effects = brain.handle(ev.Persisted(zeroed=False, error="no space left on device", number=brain.quiet.writes), 1.0)
    assert not any(isinstance(effect, ev.Persist) for effect in effects)
    later = [effect for when in (2.0, 3.0, 7.0) for effect in brain.handle(ev.Tick(), when)]
    assert later.count(ev.Persist(zero_quiet=True)) == 1, "but it is tried again some time later"


def test_a_write_that_was_swept_before_it_reached_the_disk_is_swept_again_at_the_landing():
    """Its bit is gone with an earlier flip, and the one of its completion comes after the flip of the landing."""
    brain = Primary(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False), 0.0)
    brain.state.in_flight.certain = True
    records = np.zeros(1, RECORD)
    records["kind"], records["sector"], records["sectors"], records["op"] = RecordKind.SUBMIT, 40, 8, 1
    brain.handle(ev.Captured(records, 64, 0), 0.0)
    brain.state.mode, brain.state.phase = Mode.RESYNCHRONIZING, Phase.ARMING
    brain.resync = Resync(brain.state, brain.quiet, 1, 0.0)
    brain.link.connected(0.0)
    brain.handle(ev.PayloadArmed(64), 0.1)
    assert brain.state.tracker.pending.contains(5)
