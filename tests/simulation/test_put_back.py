"""A secondary that is put back, with all that it remembers, to a moment of the very copy under way: it lacks what it had
acknowledged since, and where it stands says nothing of that."""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest

from pydbt.core.primary import recognition
from pydbt.core.primary.modes import SYNCING_MODES
from tests.lab.rounds import short
from tests.simulation.cluster.checkers import Violation
from tests.simulation.cluster.kernel import Odds
from tests.simulation.cluster.mutants import MUTANTS
from tests.simulation.cluster.schedule import Op, Plan, Shape
from tests.simulation.cluster.world import World

ALL_SEEDS = range(12)
SEEDS = short(6, *ALL_SEEDS)
BLIND = "a secondary that went back behind what it had acknowledged is trusted"


class Midway(World):
    """What it does to its one secondary happens in the middle of a copy, and once."""

    kept = 0
    cuts = 0
    doubts: list[str]

    @property
    def copying(self) -> bool:
        """Whether the secondary has acknowledged a part of what is being copied."""
        return any(
            peer.brain.mode in SYNCING_MODES and peer.brain.state.replica.unfinished for _, peer in self.primary.peers()
        )

    def do_outage(self) -> None:
        (node,) = self.secondaries
        node.link.cut("both")
        node.link.held_until = [self.clock.now + 2.0] * 2

    def do_back_up(self) -> None:
        (node,) = self.secondaries
        if self.copying and node.backup is None and node.up:
            self.back_up(node)
            self.kept = node.progress

    def do_reconnect(self) -> None:
        (node,) = self.secondaries
        if node.backup is not None and not self.cuts:
            self.cuts += 1
            node.link.cut("both")

    def do_put_back(self) -> None:
        (node,) = self.secondaries
        more = any(peer.brain.state.replica.progress > self.kept for _, peer in self.primary.peers())
        if self.copying and more and not node.put_backs:
            self.put_back(node)


def midway(seed: int, stage: bool, digests: bool, reconnect: bool) -> Midway:
    shape = Shape(
        block_bytes=1024, size_bytes=40 << 10, ring_records=400, data_bytes=32 << 10, log_slots=1024, journal_bytes=512 << 10,
        stage=stage, digests=digests, compress=False, odds=Odds(breath=0, slow=0), delay=0.001, rate_limit=20_000,
        secondary={"stage_margin_bytes": 4096}, limits={"READING_BYTES": 2048, "WINDOW_BYTES": 4096},
    )  # fmt: skip
    rng = random.Random(seed)
    kinds = ["work"] * 60 + ["outage", "burst", "burst"] + ["flush"] * 30
    kinds += ["flush", "flush", "back_up", *(["reconnect"] if reconnect else []), "flush", "flush", "put_back"] * 12
    return Midway(Plan(seed, shape, tuple(Op(kind, rng.getrandbits(32), 0.1) for kind in kinds)))


def play(world: Midway) -> None:
    """With ``doubts``: what the primary found to say of the secondary."""
    asked, world.doubts = recognition.doubt_about, []

    def noted(*given: object) -> str:
        world.doubts += filter(None, [said := asked(*given)])
        return said

    with patch.object(recognition, "doubt_about", noted):
        world.play()


@pytest.mark.parametrize("reconnect", [False, True], ids=["one connection", "another connection in between"])
@pytest.mark.parametrize("digests", [False, True], ids=["copied", "compared first"])
@pytest.mark.parametrize("stage", [False, True], ids=["in place", "staged"])
def test_a_secondary_that_was_put_back_is_noticed_and_compared_and_no_difference_is_called_in_sync(
    stage, digests, reconnect
):
    happened = 0
    for seed in SEEDS:
        world = midway(seed, stage, digests, reconnect)
        play(world)
        happened += world.secondaries[0].put_backs and world.cuts == reconnect
        assert len(world.doubts) == world.secondaries[0].put_backs, f"seed {seed}: {world.doubts}"
        assert all("went back" in doubt for doubt in world.doubts)
    assert happened >= len(SEEDS) // 2, "the story has to take place"


@pytest.mark.parametrize("stage", [False, True], ids=["in place", "staged"])
def test_without_the_number_that_only_grows_blocks_would_differ_and_nobody_would_know(stage):
    with MUTANTS[BLIND](), pytest.raises(Violation):
        for seed in ALL_SEEDS:
            midway(seed, stage, digests=True, reconnect=False).play()
