"""Two nodes under Pacemaker and fencing: every promised write is there after a failover, and no old primary writes again.

Each test begins with both nodes in the cluster, and leaves them so; which of them is promoted changes.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator

import pytest

from tests.lab.patience import wait_until
from tests.vm.disks import VolatileDisk
from tests.vm.kinds import Ability, needs
from tests.vm.nodes import PACKAGES, PATIENCE_S, STATE, Node, Nodes, Promises
from tests.vm.pair import MIB, pair
from tests.vm.plugs import Plugs, held_plugs

pytestmark = [needs(Ability.PLUG), pytest.mark.cluster, pytest.mark.timeout(4 * 3600)]
SIZE_BYTES = 160 * MIB
SHORT_LOSS_S = 30
REJOIN = "run 'controller cluster rejoin data' on this node"


@pytest.fixture(scope="module")
def clustered() -> Iterator[tuple[Nodes, Plugs]]:
    with (
        pair({"data": SIZE_BYTES}, volatile=True, systemd=True, packages=PACKAGES) as machines,
        held_plugs(machines, random.Random(815)) as plugs,
    ):
        nodes = Nodes(machines)
        nodes.set_up()
        yield nodes, plugs


@pytest.fixture
def nodes(clustered: tuple[Nodes, Plugs]) -> Nodes:
    return clustered[0]


@pytest.fixture
def plugs(clustered: tuple[Nodes, Plugs]) -> Plugs:
    return clustered[1]


def promoted(nodes: Nodes) -> Node:
    """The node that is the primary now."""
    name = nodes.promoted(nodes.alpha)
    return next(node for node in nodes.both if node.name == name)


def content(node: Node) -> bytes:
    disk = node.machine.disks["data"]
    assert isinstance(disk, VolatileDisk)
    return disk.path.read_bytes()


def rejoin(nodes: Nodes, old: Node, new: Node) -> None:
    """The fenced node comes back: nothing is written on its disk before a person decides, and it is the secondary then."""
    before = content(old)
    nodes.boot(old)
    wait_until(lambda: nodes.online(new) == {"primary", "secondary"}, "both are online", PATIENCE_S, interval_s=5)
    nodes.until_seen(old, REJOIN)
    told = old.run("controller status", check=False)
    assert REJOIN in told, told
    assert REJOIN in old.why_not(), "it stays to be seen after the start that was refused"
    assert content(old) == before, "it wrote to its disk before a person decided"
    assert nodes.promoted(new) == new.name
    old.run("controller cluster rejoin data")
    wait_until(lambda: old.status().get("role") == "secondary", "it is the secondary", PATIENCE_S, interval_s=5)
    nodes.until_in_sync(new)


def test_a_standby_moves_the_database_and_loses_nothing(nodes: Nodes, chance: random.Random) -> None:
    old = promoted(nodes)
    new = nodes.other(old)
    nodes.until_in_sync(old)
    promises = Promises(new, old, chance)
    old.run(f"crm_standby -v on -N {old.name}")
    nodes.until_promoted(new)
    answered = promises.answered
    promises.end()
    assert new.count(new) >= answered
    old.run(f"crm_standby -D -N {old.name}")
    wait_until(
        lambda: old.status().get("role") == "secondary", "the other one is the secondary", PATIENCE_S, interval_s=5
    )
    nodes.until_in_sync(new)


def test_after_a_power_cut_the_replica_is_promoted_and_has_what_was_promised_and_the_fenced_node_writes_nothing(
    nodes: Nodes, plugs: Plugs, chance: random.Random
) -> None:
    old = promoted(nodes)
    new = nodes.other(old)
    nodes.until_in_sync(old)
    promises = Promises(new, old, chance)
    promised = promises.answered
    old.run(f"controller wait --state {STATE} --timeout {PATIENCE_S:.0f}", PATIENCE_S + 60)
    cut_at = time.monotonic()
    old.machine.power_cut(chance)
    nodes.until_promoted(new)
    print(f"from the power cut to an answer of the database: {time.monotonic() - cut_at:.0f} s in an emulated machine")
    promises.end()
    assert new.count(new) >= promised, "what a wait had promised is not there"
    assert plugs.cut and plugs.cut[-1] == old.name, "it was fenced"
    rejoin(nodes, old, new)


def test_a_replica_that_lacks_more_than_the_longest_loss_is_not_promoted_and_the_loss_is_named(
    nodes: Nodes, plugs: Plugs, chance: random.Random
) -> None:
    old = promoted(nodes)
    new = nodes.other(old)
    nodes.allow_loss(SHORT_LOSS_S)
    nodes.until_in_sync(old)
    nodes.cut_replication(new)
    promises = Promises(new, old, chance)
    time.sleep(SHORT_LOSS_S * 2)
    old.machine.power_cut(chance)
    wait_until(lambda: plugs.cut[-1:] == [old.name], "it is fenced", PATIENCE_S, interval_s=5)
    nodes.until_seen(new, r"the last \d+ s may be only on \w+, fenced .* or run 'controller cluster choose data'")
    assert re.search(r"the last \d+ s may be only", new.run("controller status", check=False)), "the status has it too"
    time.sleep(SHORT_LOSS_S)
    promises.end()
    assert nodes.promoted(new) == "" and new.status().get("role") == "secondary", new.why_not()
    assert new.machine.run(f"findmnt {new.device}", check=False).code != 0
    # A person chooses: here the old primary is started again, and has everything.
    new.run(f"ip route del blackhole {old.own}/32")
    nodes.boot(old)
    nodes.until_promoted(old)
    assert new.count(old) >= promises.answered
    nodes.until_in_sync(old)
