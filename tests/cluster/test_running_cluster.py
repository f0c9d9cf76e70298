"""The resource agent under Pacemaker's own daemons: who is promoted, what is not, and what a person sees and types.

Each test begins with both nodes in the cluster, and leaves them so; which of them is promoted changes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.small_cluster import NAMES, SmallCluster, SmallNode, small_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2 * 3600)]
SIZE_BYTES = 8 << 20
BLOCK_BYTES = 4096
SHORT_LOSS_S = 5
REJOIN = "run 'controller cluster rejoin data' on this node"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCluster]:
    with small_cluster(tmp_path_factory.mktemp("cluster"), SIZE_BYTES) as made:
        yield made


def roles(cluster: SmallCluster) -> tuple[SmallNode, SmallNode]:
    """The promoted node and the other one."""
    name = cluster.promoted()
    old = next(node for node in cluster.nodes if node.name == name)
    return old, next(node for node in cluster.nodes if node is not old)


def write(node: SmallNode, block: int) -> bytes:
    data = os.urandom(BLOCK_BYTES)
    (node.home / "written").write_bytes(data)
    node.shell(
        f"dd if={node.home}/written of={node.device} bs={BLOCK_BYTES} seek={block} oflag=direct conv=notrunc status=none"
    )
    return data


def read(node: SmallNode, block: int) -> bytes:
    with open(node.device, "rb") as disk:
        disk.seek(block * BLOCK_BYTES)
        return disk.read(BLOCK_BYTES)


def content(node: SmallNode) -> str:
    return hashlib.sha256(Path(node.device).read_bytes()).hexdigest()


def until_follows(cluster: SmallCluster, new: SmallNode, old: SmallNode) -> None:
    cluster.until(lambda: "up to date" in old.status() or "consistent" in old.status(), f"{old.name} is the secondary")
    cluster.until_in_sync(new)


def test_a_standby_moves_the_volume_and_loses_nothing(cluster: SmallCluster) -> None:
    (old, new), fenced = roles(cluster), len(cluster.fenced)
    data = write(old, 3)
    old.run("crm_standby", "-v", "on", "-N", old.name)
    cluster.until(lambda: cluster.promoted() == new.name, f"{new.name} is promoted")
    assert read(new, 3) == data and len(cluster.fenced) == fenced
    old.run("crm_standby", "-D", "-N", old.name)
    cluster.until(lambda: cluster.online() == set(NAMES), "both are online")
    until_follows(cluster, new, old)


def test_a_fenced_primary_that_comes_back_writes_nothing_and_says_what_to_type(cluster: SmallCluster) -> None:
    old, new = roles(cluster)
    data = write(old, 5)
    cluster.until_in_sync(old)
    old.power_cut()
    cluster.until(lambda: cluster.promoted() == new.name, f"{new.name} is promoted")
    assert cluster.fenced[-1:] == [old.name] and read(new, 5) == data
    write(new, 7)
    before = content(old)
    old.boot()
    old.join()
    cluster.until(lambda: REJOIN in new.seen(), "the other node says why it is not started")
    assert REJOIN in old.seen() and REJOIN in old.status(), old.status()
    assert REJOIN in old.run("attrd_updater", "-n", "pydbt-data", "-Q").output, "after the stop that follows"
    assert cluster.promoted() == new.name and content(old) == before, "it wrote to its disk before a person decided"
    old.run("controller", "cluster", "rejoin", "data")
    until_follows(cluster, new, old)
    assert REJOIN not in old.seen() and REJOIN not in old.status()


def test_a_replica_that_lacks_too_much_is_not_promoted_the_loss_is_named_and_a_person_may_give_it_up(
    cluster: SmallCluster,
) -> None:
    old, new = roles(cluster)
    old.run("crm_resource", "-r", "data", "--set-parameter", "max_loss", "--parameter-value", f"{SHORT_LOSS_S}s")
    cluster.until_in_sync(old)
    # Until the cluster has noticed and fenced it, nobody knows whether it writes.
    old.power_cut()
    cluster.until(lambda: cluster.fenced[-1:] == [old.name], "it is fenced")
    named = re.compile(
        rf"the last \d+ s may be only on {old.name}, fenced \(max_loss {SHORT_LOSS_S} s\): start it, or run "
        "'controller cluster choose data'"
    )
    cluster.until(lambda: named.search(new.seen()) is not None, "the loss is named")
    assert named.search(new.status()), new.status()
    assert cluster.promoted() == ""
    new.run("controller", "cluster", "choose", "data")
    cluster.until(lambda: cluster.promoted() == new.name, "a person has chosen")
    assert "may be only on" not in new.seen() + new.status()
    old.boot()
    old.join()
    cluster.until(lambda: REJOIN in old.seen(), "it stays out")
    old.run("controller", "cluster", "rejoin", "data")
    until_follows(cluster, new, old)
