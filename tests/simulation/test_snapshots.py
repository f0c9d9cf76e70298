"""Snapshots in a simulated world: the replica is the primary at one moment, whatever holds, snapshots and links do."""

from __future__ import annotations

import random

import pytest

from pydbt.core.primary import events as ev
from pydbt.core.primary import snapshot_landing
from pydbt.core.primary.modes import Mode
from tests.lab.rounds import short
from tests.simulation.snapshots_world import Holding, SnapshotCluster
from tests.simulation.world import Faults

CALM = Faults()
ROUGH = Faults(cut=0.02, freeze=0.005, delay=0.05)
ODD_DISK = Faults(overlap=0.5, unstable=0.2, failed=0.05, cut=0.01)
TINY_RING = Faults(ring_records=12, cut=0.01)
BAD_READS = Faults(read_error=0.03)

HOLDINGS = {
    "freeze": Holding("freeze"),
    "freeze-poor": Holding("freeze", refused=0.3, thaws_early=0.4, slow=0.2),
    "snapshot": Holding("snapshot"),
    "snapshot-poor": Holding("thin", refused=0.2, overflow=0.4, reads_on=0.5, slow=0.2),
    "quiescent": Holding("quiescent"),
}


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes of 64 blocks have little and much to copy, too."""
    monkeypatch.setattr(snapshot_landing, "GENTLE_BLOCKS", 3)


def run(cluster: SnapshotCluster, steps: int, rate: float) -> None:
    rng: random.Random = cluster.rng
    for _ in range(steps):
        for _ in range(int(rng.random() * rate)):
            identifier = cluster.submit(rng.randrange(cluster.kernel.blocks))
            if identifier is not None:
                cluster.at(rng.random() * 0.03, lambda i=identifier: cluster.complete(i))
        if rng.random() < cluster.faults.cut:
            cluster.lose()
        if rng.random() < cluster.faults.freeze:
            cluster.frozen_until = cluster.now + rng.random() * 30
        cluster.step(rng.random() * 0.02)


def in_sync_at(cluster: SnapshotCluster) -> float | None:
    return cluster.brain.status(cluster.now).snapshots.in_sync_at


def settle(cluster: SnapshotCluster) -> None:
    for _ in range(6000):
        cluster.step(0.05)
        if in_sync_at(cluster) == cluster.now and not cluster.kernel.flying and not cluster.kernel.ring:
            return
    raise AssertionError("never came to rest:\n" + "\n".join(cluster.log[-20:]))


@pytest.mark.parametrize("holding", HOLDINGS.values(), ids=HOLDINGS)
@pytest.mark.parametrize(
    "faults", [CALM, ROUGH, TINY_RING, ODD_DISK, BAD_READS], ids=["calm", "rough", "ring", "odd", "reads"]
)
@pytest.mark.parametrize("seed", short(1, *range(3)))
def test_every_committed_snapshot_is_an_image_of_the_source_and_no_block_is_forgotten(seed, faults, holding):
    cluster = SnapshotCluster(seed, faults, holding, digests=seed % 2 == 0)
    run(cluster, 500, rate=2)
    settle(cluster)
    assert cluster.committed
    assert cluster.kernel.disk == cluster.secondary.content
    assert cluster.hold == 0, "something is held still"
    assert not cluster.frozen


@pytest.mark.parametrize("kind", ["freeze", "snapshot"])
def test_snapshots_go_on_under_a_load_that_never_rests(kind):
    cluster = SnapshotCluster(3, CALM, Holding(kind), interval_s=0.5)
    run(cluster, 1500, rate=4)
    assert len(set(cluster.committed)) >= 5


def test_a_device_that_never_rests_and_cannot_be_held_gets_no_image_and_the_operator_is_told():
    cluster = SnapshotCluster(4, CALM, Holding("quiescent"), interval_s=0.2)
    for _ in range(200):
        cluster.write_soon()
    run(cluster, 3000, rate=12)
    assert cluster.brain.mode is not Mode.NORMAL
    assert any("no image yet after" in line and " warning " in line for line in cluster.log)
    assert cluster.brain.status(cluster.now).snapshots.problem
    settle(cluster)
    assert cluster.kernel.disk == cluster.secondary.content


@pytest.mark.parametrize("holding", HOLDINGS.values(), ids=HOLDINGS)
@pytest.mark.parametrize("seed", range(2))
def test_a_wait_ends_with_a_snapshot_that_began_after_it(seed, holding):
    cluster = SnapshotCluster(seed, ROUGH, holding, interval_s=1000)
    run(cluster, 100, rate=2)
    for token in range(1, 4):
        run(cluster, 30, rate=2)
        before = list(cluster.kernel.disk)
        later = {block for block, _ in cluster.kernel.flying.values()}
        epochs = len(cluster.committed)
        cluster.feed(ev.WaitAsked(token, cluster.kernel.produced))
        for _ in range(6000):
            if token in cluster.answered:
                break
            cluster.step(0.05)
        assert token in cluster.answered, cluster.log[-10:]
        assert len(cluster.committed) > epochs
        # Later writes have higher numbers.
        assert all(cluster.image[b] >= value for b, value in enumerate(before) if b not in later)


def test_snapshots_that_always_overflow_give_no_image_and_the_status_says_why():
    cluster = SnapshotCluster(5, CALM, Holding("snapshot", overflow=1.0, reads_on=0.5))
    run(cluster, 600, rate=3)
    assert not cluster.committed
    assert cluster.brain.status(cluster.now).snapshots.problem == "the snapshot's store was full"
    assert cluster.brain.mode is Mode.INITIAL_SYNC


@pytest.mark.parametrize("seed", short(3, *range(6)))
def test_the_replica_is_not_called_in_sync_while_a_write_is_not_in_an_image(seed):
    cluster = SnapshotCluster(seed, CALM, Holding("snapshot" if seed % 2 else "freeze"), interval_s=0.3)
    for _ in range(400):
        run(cluster, 1, rate=1.5)
        if in_sync_at(cluster) == cluster.now and not cluster.kernel.ring and not cluster.kernel.flying:
            assert list(cluster.image) == cluster.kernel.disk
    assert len(cluster.committed) > 3
