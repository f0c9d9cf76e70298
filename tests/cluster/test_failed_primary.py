"""A primary that fails under a real stream of writes: the facts that its replica knows decide whether the agent promotes it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pydbt.controller.control import call
from tests.cluster.conftest import SIZE_BYTES
from tests.cluster.node import Node
from tests.lab.patience import until
from tests.lab.programs import PROGRAM, Controller, command

pytestmark = pytest.mark.cluster
SUCCESS, FAILED, RUNNING_PROMOTED = 0, 1, 8


def loop_over(image: Path) -> str:
    done = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.fixture
def alpha(node: Node, tmp_path: Path) -> Iterator[Controller]:
    """The primary of a volume whose first copy is on beta; beta's secondary was started by the agent."""
    image = tmp_path / "alpha.img"
    image.write_bytes(bytes(SIZE_BYTES))
    source, target = loop_over(image), loop_over(tmp_path / "disk.img")
    primary = None
    try:
        for role in ("run", "secondary"):
            path = node.folder / role / "data.toml"
            path.write_text(path.read_text().replace(f'"{tmp_path}/disk.img"', f'"{target}"'))
        (node.state_dir / "replica.json").unlink()
        listen = f"unix:{tmp_path}/beta.sock"
        first = Controller(
            tmp_path / "first.log", ("secondary", target, "--listen", listen, "--insecure"), node.state_dir
        )
        until(first.answers, "the secondary listens")
        primary = Controller(
            tmp_path / "alpha.log", ("run", source, "--secondary", listen, "--insecure", "--whole-device"), tmp_path / "alpha"
        )  # fmt: skip
        until(lambda: primary.answers() and primary.is_normal(), "the first copy is done")
        assert first.terminate() == 0
        node.pacemaker.own(f"promoted alpha {(datetime.now(UTC) - timedelta(hours=1)).isoformat()}")
        assert (answer := node.act("start")).code == SUCCESS, answer
        until(lambda: primary.is_normal() and knows_everything(node), "beta follows, and knows that it does")
        yield primary
    finally:
        if primary is not None:
            primary.end()
        node.act("stop")
        command("down", "--state", tmp_path / "alpha")
        for device in (source, target):
            subprocess.run(["losetup", "--detach", device], timeout=60)


def knows_everything(node: Node) -> bool:
    primary = call(node.state_dir, {"command": "status"})["primary"]
    return bool(primary["as_of"]) and primary["behind_bytes"] == 0


def write(source: str, data: bytes) -> None:
    descriptor = os.open(source, os.O_WRONLY | os.O_DSYNC)
    try:
        os.pwrite(descriptor, data, 4096)
    finally:
        os.close(descriptor)


@pytest.mark.smoke
def test_data_that_was_waited_for_before_a_power_cut_is_on_the_promoted_replica(alpha: Controller, node: Node) -> None:
    source, target = str(alpha.status()["source"]), str(call(node.state_dir, {"command": "status"})["target"])
    written = os.urandom(65536)
    write(source, written)
    subprocess.run([*PROGRAM, "wait", "--state", alpha.state_dir, "--no-sync"], check=True, timeout=300)
    assert node.act("monitor").code == SUCCESS and node.pacemaker.kept("score") == "100"
    assert (answer := node.act("promote")).code == FAILED and "was not fenced" in answer.reason
    alpha.kill()
    node.pacemaker.fence("alpha")
    answer = node.act("promote", max_loss="0s")
    assert answer.code == FAILED and "may be only on" in answer.reason, answer
    assert (answer := node.act("promote", max_loss="1h")).code == SUCCESS, answer
    assert node.act("monitor").code == RUNNING_PROMOTED
    with open(target, "rb") as device:
        device.seek(4096)
        assert device.read(len(written)) == written


def test_a_promotion_whose_agent_is_killed_before_the_cluster_knows_of_it_is_finished(
    alpha: Controller, node: Node
) -> None:
    alpha.kill()
    node.pacemaker.fence("alpha")
    node.pacemaker.kill_who_owns(True)
    assert node.act("promote", max_loss="1h").code == -signal.SIGKILL
    assert node.pacemaker.kept("owner").startswith("promoted alpha ")
    node.pacemaker.kill_who_owns(False)
    assert (answer := node.act("start")).code == SUCCESS, answer
    assert node.pacemaker.kept("score") == "100"
    assert (answer := node.act("promote")).code == SUCCESS, answer
    assert node.act("monitor").code == RUNNING_PROMOTED
    assert node.pacemaker.kept("owner").startswith("promoted beta ")


def test_a_planned_move_needs_no_fencing_and_loses_nothing(alpha: Controller, node: Node) -> None:
    source, target = str(alpha.status()["source"]), str(call(node.state_dir, {"command": "status"})["target"])
    written = os.urandom(65536)
    write(source, written)
    subprocess.run([*PROGRAM, "wait", "--state", alpha.state_dir, "--no-sync"], check=True, timeout=300)
    assert command("down", "--state", alpha.state_dir).code == 0
    node.pacemaker.own(f"released alpha {datetime.now(UTC).isoformat()}")
    assert node.act("monitor").code == SUCCESS and node.pacemaker.kept("score") == "500"
    assert (answer := node.act("promote", max_loss="0s")).code == SUCCESS, answer
    with open(target, "rb") as device:
        device.seek(4096)
        assert device.read(len(written)) == written
