"""What the simulation of clusters found, each as the shortest story that shows it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.quiet_bitmap import Bits
from pydbt.core.primary.resync import Resync
from pydbt.core.tracking.capture_record import RECORD, RecordKind
from pydbt.core.units import Geometry
from tests.simulation.cluster.kernel import Odds
from tests.simulation.cluster.schedule import Op, Plan, Shape
from tests.simulation.cluster.world import World

GEOMETRY = Geometry(64 * 4096, 4096)


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
    effects = brain.handle(ev.Persisted(zeroed=False, error="no space left on device"), 1.0)
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


CALM = Shape(
    block_bytes=1024, size_bytes=24 << 10, ring_records=400, data_bytes=32 << 10, log_slots=1024, journal_bytes=512 << 10,
    stage=True, digests=True, compress=False, odds=Odds(breath=0, slow=0), delay=0.001,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_at_whatever_moment_of_its_start_a_controller_dies_no_write_is_forgotten(seed):
    """Written untracked: after a clean stop, and while the programs are compiled, which takes a second."""
    rng = random.Random(seed)
    kinds = ["work"] * 30 + ["down_primary"] + ["flush"] * 30 + ["kill_primary"] + ["flush"] * 30
    world = World(Plan(seed, CALM, tuple(Op(kind, rng.getrandbits(32), 0.1) for kind in kinds)))
    world.primary.writes_while_compiling = 0.8
    world.play()
