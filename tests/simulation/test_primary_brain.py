"""The primary's brain in a simulated world: whatever happens, no differing block is ever forgotten."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import Mode
from tests.lab.rounds import short
from tests.simulation.world import Cluster, Faults

CALM = Faults()
ROUGH = Faults(cut=0.02, freeze=0.005, delay=0.05)
ODD_DISK = Faults(overlap=0.5, unstable=0.2, failed=0.05, unseen=0.02, cut=0.01)
TINY_RING = Faults(ring_records=12, cut=0.01)


def run(cluster: Cluster, steps: int, rate: float) -> None:
    """Work on the volume for a while under the world's faults, then let everything settle."""
    rng: random.Random = cluster.rng
    for _ in range(steps):
        for _ in range(int(rng.random() * rate)):
            identifier = cluster.kernel.submit(rng.randrange(cluster.kernel.blocks))
            if identifier is not None:
                cluster.at(rng.random() * 0.03, lambda i=identifier: cluster.kernel.complete(i))
        if rng.random() < cluster.faults.cut:
            cluster.lose()
        if rng.random() < cluster.faults.freeze:
            cluster.frozen_until = cluster.now + rng.random() * 30
        cluster.step(rng.random() * 0.02)


def settle(cluster: Cluster) -> None:
    for _ in range(4000):
        cluster.step(0.05)
        brain = cluster.brain
        done = brain.mode is Mode.NORMAL and not len(brain.state.unsettled) and brain.state.in_flight.empty
        if done and cluster.brain.state.acknowledged == cluster.brain.state.sequence and not cluster.kernel.flying:
            return
    raise AssertionError("never came to rest:\n" + "\n".join(cluster.log[-20:]))


@pytest.mark.parametrize("seed", short(3, 1105, *range(12)))
@pytest.mark.parametrize("faults", [CALM, ROUGH, TINY_RING, ODD_DISK], ids=["calm", "rough", "tiny-ring", "odd-disk"])
@pytest.mark.parametrize("digests", [True, False], ids=["compare", "copy"])
def test_the_replica_becomes_the_primary_and_no_block_is_forgotten_on_the_way(seed, faults, digests):
    cluster = Cluster(seed, faults, digests=digests)
    if faults is ODD_DISK:
        cluster.odd = set(range(cluster.kernel.blocks))
    run(cluster, 300, rate=3)
    settle(cluster)
    assert cluster.kernel.disk == cluster.secondary.content


@pytest.mark.parametrize("seed", short(5, *range(10)))
def test_a_wait_ends_only_when_everything_written_before_it_is_on_the_secondary(seed):
    cluster = Cluster(seed, ROUGH)
    run(cluster, 100, rate=3)
    before = list(cluster.kernel.disk)
    written_later: set[int] = {block for block, _ in cluster.kernel.flying.values()}
    cluster.feed(ev.WaitAsked(1, cluster.kernel.produced))
    for _ in range(4000):
        if 1 in cluster.answered:
            break
        cluster.step(0.05)
    assert 1 in cluster.answered
    for block, value in enumerate(before):
        if block not in written_later:
            assert cluster.secondary.content[block] == value


@pytest.mark.parametrize("seed", short(5, *range(10)))
@pytest.mark.parametrize(
    "odd", [Faults(), Faults(unstable=1.0), Faults(unstable=0.3)], ids=["soundly", "always-unstable", "now-and-then"]
)
def test_a_wait_ends_although_its_block_is_rewritten_faster_than_it_could_be_read(seed, odd):
    cluster = Cluster(seed, CALM)
    settle(cluster)
    kernel, block = cluster.kernel, 5
    cluster.odd = {block}
    kernel.faults = replace(CALM, unstable=1.0)
    kernel.complete(kernel.submit(block))
    kernel.faults = odd
    cluster.feed(ev.WaitAsked(1, kernel.produced))
    cluster.pump()
    assert len(cluster.brain.state.unsettled) == 1 and not cluster.answered
    flying: list[int] = []
    for _ in range(100):
        if (identifier := kernel.submit(block)) is not None:  # there is always one in flight
            flying.append(identifier)
        cluster.step(0.02)
        kernel.complete(flying.pop(0))
    assert cluster.answered == {1}
    for identifier in flying:
        kernel.complete(identifier)
    settle(cluster)
    assert kernel.disk == cluster.secondary.content
