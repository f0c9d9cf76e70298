"""``controller cluster``: a volume under Pacemaker."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from pydbt.cli.cluster.node import CLUSTER_FOLDER, NodeVolume, node_volume
from pydbt.cli.cluster.tools import ClusterTools
from pydbt.cli.once import OnceOption
from pydbt.cli.values import PATH
from pydbt.core.cluster.candidate import NodeContent
from pydbt.core.cluster.owner import ContentOwner, OwnerClaim
from pydbt.core.errors import BusyError, UsageError
from pydbt.device.checks import require_root
from pydbt.store.replica_state import load_record

_FOLDER = click.option(
    "--folder", type=PATH, default=CLUSTER_FOLDER, show_default=True, metavar="DIR", help="The folder of the settings."
)


@click.group()
def cluster() -> None:
    """Use a volume under Pacemaker.

    The cluster promotes a node without a person only if its replica was complete a moment before the primary was fenced.
    """


@cluster.command()
@click.argument("name")
@click.option("--force", cls=OnceOption, is_flag=True, help="Also while another node may be the primary.")
@_FOLDER
def choose(name: str, force: bool, folder: Path) -> int:
    """Let the content of this node count.

    Run it once before the volume becomes a resource, on the node that has the data. After a failover that was refused, run it on
    the node whose content is to be used: changes that only the other node has are given up. It is refused (exit code 4) while
    another node is the primary and was not fenced. From then on the cluster promotes this node alone.
    """
    require_root("controller cluster choose")
    volume, tools = node_volume(name, folder), ClusterTools(name)
    if volume.content is NodeContent.NOTHING:
        raise UsageError(f"{volume.state_dir} has neither the volume nor a replica of it: make the first copy by hand")
    view, node = tools.view(), tools.this_node()
    owner = view.owner
    if owner is not None and owner.node != node:
        begun = volume.begun
        unfinished = begun is not None and begun.is_under(owner)
        if volume.content is NodeContent.VOLUME and not unfinished and not force:
            raise BusyError(
                f"this node was the primary, and {owner.node} was promoted since: 'controller cluster rejoin {name}' makes "
                "this node its replica"
            )
        if owner.claim is OwnerClaim.PROMOTED and not force and not _was_fenced(owner, tools):
            raise BusyError(
                f"{owner.node} is the primary, and was not fenced since {owner.since:%Y-%m-%d %H:%M:%S %Z}: fence it, or "
                "add --force if you know that it writes nothing any more"
            )
    tools.set_owner(ContentOwner(node, OwnerClaim.CHOSEN, datetime.now(UTC)))
    for resource in view.resources:
        tools.clean_up(resource, node)  # what was refused here before may be tried again
    click.echo(f"the content of {node} counts: the cluster may promote {name} there, and on no other node before")
    return 0


@cluster.command()
@click.argument("name")
@_FOLDER
def rejoin(name: str, folder: Path) -> int:
    """Make this old primary a replica again.

    For a node that was fenced as the primary, and came back after another one was promoted. Changes that only this node has are
    given up, and the command prints how much that is. The volume must not be mounted here. The cluster is told to start it again.
    """
    require_root("controller cluster rejoin")
    volume, tools = node_volume(name, folder), ClusterTools(name)
    view, node = tools.view(), tools.this_node()
    if view.owner is None or view.owner.node == node:
        raise UsageError(f"no other node was promoted since this one was: nothing of {name} has to be given up here")
    _make_replica(volume)
    for resource in view.resources:
        tools.clean_up(resource, node)
    click.echo(f"this node is a replica of {view.owner.node} now; the cluster starts it")
    return 0


@cluster.command()
@click.argument("action")
def agent(action: str) -> int:
    """Carry out an ACTION of the resource agent.

    Pacemaker calls this by the agent ocf:pydbt:volume. Parameters come from the environment, and exit codes are those of OCF.
    """
    from pydbt.cli.cluster.agent import act

    return int(act(action, dict(os.environ)))


def _was_fenced(owner: ContentOwner, tools: ClusterTools) -> bool:
    return any(one.node == owner.node and one.completed >= owner.since for one in tools.fencings(owner.node))


def _make_replica(volume: NodeVolume) -> None:
    from pydbt.cli.cluster.process import VolumeProcess

    process = VolumeProcess(volume)
    if volume.content is NodeContent.VOLUME:
        click.echo(process.command("run", "demote", volume.name), nl=False)
    record = load_record(volume.state_dir)
    if record is not None and record.divergence is not None and record.divergence.differing_bytes != 0:
        click.echo(process.command("secondary", "invalidate", volume.name), nl=False)
