"""The real agent with the real program, on this machine: as Pacemaker calls it, and as `ocf-tester` judges it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pydbt.cli.cluster.tools import ClusterTools
from pydbt.core.cluster.candidate import OWNER_SCORE
from pydbt.core.cluster.owner import ContentOwner, OwnerClaim
from pydbt.device.sysfs import BlockDevice
from pydbt.store.volume_state import create_state, save_state
from tests.cluster.conftest import SIZE_BYTES
from tests.cluster.node import AGENT, Node

SUCCESS, FAILED, NOT_INSTALLED, NOT_RUNNING, RUNNING_PROMOTED = 0, 1, 5, 7, 8
SCHEMAS = Path("/usr/share/resource-agents")


def owned_by(name: str) -> str:
    return f"promoted {name} {(datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec='milliseconds')}"


@pytest.fixture
def volume_node(node: Node) -> Iterator[Node]:
    """Beta, whose device is a loop device with the volume on it: the first copy was made, and nothing runs."""
    image = node.state_dir.parent / "disk.img"
    loop = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()
    try:
        for role in ("run", "secondary"):
            path = node.folder / role / "data.toml"
            path.write_text(path.read_text().replace(f'"{image}"', f'"{loop}"'))
        (node.state_dir / "replica.json").unlink()
        save_state(node.state_dir, create_state(BlockDevice.identify(loop), 4096))
        assert image.stat().st_size == SIZE_BYTES
        node.pacemaker.own(owned_by("beta"))
        yield node
    finally:
        node.act("stop")
        subprocess.run(["losetup", "--detach", loop], timeout=60)


def test_a_replica_is_started_watched_and_stopped(node: Node) -> None:
    node.pacemaker.own(owned_by("beta"))
    assert (answer := node.act("start")).code == SUCCESS, answer
    assert node.pacemaker.kept("score") == str(OWNER_SCORE)
    assert node.act("monitor").code == SUCCESS
    assert node.act("stop").code == SUCCESS
    assert node.pacemaker.kept("score") == "" and node.act("monitor").code == NOT_RUNNING


def test_a_person_lets_this_node_count_only_after_the_primary_was_fenced(node: Node) -> None:
    node.pacemaker.own(owned_by("alpha"))
    refused = node.command("choose", "data")
    assert refused.code == 4 and "alpha is the primary, and was not fenced" in refused.errors
    node.pacemaker.fence("alpha")
    assert node.command("choose", "data").code == 0
    assert node.pacemaker.kept("owner").startswith("chosen beta ")


def test_a_node_without_the_program_is_told_apart(node: Node) -> None:
    answer = node.act("monitor", controller="/nowhere/controller")
    assert answer.code == NOT_INSTALLED and "/nowhere/controller is not on this node" in answer.reason


def test_the_description_of_the_agent_fits_the_document_type_of_resource_agents(node: Node) -> None:
    done = subprocess.run(
        ["xmllint", "--noout", "--valid", "-"], input=node.act("meta-data").output, cwd=SCHEMAS, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.cluster
@pytest.mark.smoke
def test_the_volume_follows_the_role(volume_node: Node) -> None:
    assert (answer := volume_node.act("start")).code == SUCCESS, answer
    assert (answer := volume_node.act("promote")).code == SUCCESS, answer
    assert volume_node.act("monitor").code == RUNNING_PROMOTED
    assert volume_node.pacemaker.kept("owner").startswith("promoted beta ")
    assert (answer := volume_node.act("demote", CRM_meta_timeout="4000")).code == SUCCESS, answer
    assert volume_node.pacemaker.kept("owner").startswith("promoted beta "), "nobody else has what was written here"
    assert volume_node.act("monitor").code == SUCCESS
    assert volume_node.act("stop").code == SUCCESS


@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_ocf_tester_has_nothing_to_object(volume_node: Node) -> None:
    # It calls the agent as nobody, too, who may not read a tree that lies in root's own folder: there as root.
    su = volume_node.pacemaker.commands / "su"
    su.write_text('#!/bin/sh\n[ "$1 $4" = "nobody -c" ] && exec /bin/sh -c "$5"\n')
    su.chmod(0o755)
    assert AGENT.stat().st_mode & 0o777 == 0o755
    done = subprocess.run(
        ["ocf-tester", "-n", "data", "-o", "volume=data", "-o", f"folder={volume_node.folder}", AGENT],
        env=volume_node.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1700,
    )  # fmt: skip
    assert done.returncode == 0 and f"{AGENT} passed all tests" in done.stdout, done.stdout + done.stderr


def test_the_real_commands_keep_the_owner_and_tell_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "cib.xml"
    database.write_text(subprocess.run(["cibadmin", "--empty"], capture_output=True, text=True, timeout=60).stdout)
    monkeypatch.setenv("CIB_file", str(database))
    tools, owner = ClusterTools("data"), ContentOwner("beta", OwnerClaim.CHOSEN, datetime(2026, 1, 2, 12, tzinfo=UTC))
    tools.set_owner(owner)
    view = tools.view()
    assert view.owner == owner and view.fencing_enabled and "no fencing device" in view.why_unfenced
