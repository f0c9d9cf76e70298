"""A controller that dies while it starts, at whatever moment, forgets no write."""

from __future__ import annotations

import random

import pytest

from tests.lab.rounds import short
from tests.simulation.cluster.kernel import Odds
from tests.simulation.cluster.schedule import Op, Plan, Shape
from tests.simulation.cluster.world import World

CALM = Shape(
    block_bytes=1024, size_bytes=24 << 10, ring_records=400, data_bytes=32 << 10, log_slots=1024, journal_bytes=512 << 10,
    stage=True, digests=True, compress=False, odds=Odds(breath=0, slow=0), delay=0.001,
)  # fmt: skip


@pytest.mark.parametrize("seed", short(15, *range(60)))
def test_at_whatever_moment_of_its_start_a_controller_dies_no_write_is_forgotten(seed):
    """Written untracked: after a clean stop, and while the programs are compiled, which takes a second."""
    rng = random.Random(seed)
    kinds = ["work"] * 30 + ["down_primary"] + ["flush"] * 30 + ["kill_primary"] + ["flush"] * 30
    world = World(Plan(seed, CALM, tuple(Op(kind, rng.getrandbits(32), 0.1) for kind in kinds)))
    world.primary.writes_while_compiling = 0.8
    world.play()
