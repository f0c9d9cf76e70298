"""The commands of Pacemaker that the agent and ``controller cluster`` use."""

from __future__ import annotations

import os
import subprocess

from pydbt.core.cluster.candidate import Fencing
from pydbt.core.cluster.database import ClusterView, cluster_view, fencing_history, owner_attribute
from pydbt.core.cluster.owner import ContentOwner
from pydbt.core.errors import MachineError

_ON_NODE = "OCF_RESKEY_CRM_meta_on_node"
_LIMIT_S = 15.0
"""They ask daemons of this machine; one that does not answer must not use up the time that an action has."""


class ClusterSilent(MachineError):
    """The cluster does not answer, or not as it should: it may be asked again."""


class ClusterTools:
    """For one volume, by its name. Every method raises MachineError when a command is missing, fails or says something else."""

    def __init__(self, volume: str) -> None:
        self._volume = volume

    def this_node(self) -> str:
        """The name of this machine in the cluster."""
        given = os.environ.get(_ON_NODE, "")
        return given or _output("crm_node", "--name").strip()

    def view(self) -> ClusterView:
        """What the cluster's database says of fencing and of the volume."""
        text = _output("cibadmin", "--query")
        try:
            return cluster_view(text, self._volume)
        except ValueError as error:
            raise ClusterSilent(f"the answer of 'cibadmin --query' is not the database of a cluster: {error}") from None

    def fencings(self, node: str) -> tuple[Fencing, ...]:
        """When a node was fenced, as far as the cluster remembers it."""
        text = _output("stonith_admin", "--history", node, "--output-as=xml")
        try:
            return fencing_history(text)
        except ValueError as error:
            raise ClusterSilent(f"the answer of 'stonith_admin --history' is no history of fencing: {error}") from None

    def set_owner(self, owner: ContentOwner) -> None:
        """Every node knows it when this returns, also after all of them were off."""
        _output(
            "crm_attribute", "--type", "crm_config", "--set-name", "pydbt", "--name", owner_attribute(self._volume),
            "--update", owner.to_text(),
        )  # fmt: skip

    def set_score(self, resource: str, score: int | None) -> None:
        """How much this node is preferred as the one to be promoted; None: it is not to be promoted."""
        change = ("--delete",) if score is None else ("--update", str(score))
        _output("crm_attribute", f"--promotion={resource}", *change)

    def tell(self, words: str) -> None:
        """An attribute of this node that `crm_mon -A` shows; empty words take it away."""
        change = ("--update", words) if words else ("--delete",)
        _output("attrd_updater", "--name", owner_attribute(self._volume), *change)

    def clean_up(self, resource: str, node: str) -> None:
        """The cluster forgets the failures of a resource on a node, and tries again."""
        _output("crm_resource", "--cleanup", "--resource", resource, "--node", node)


def _output(*words: str) -> str:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
        )  # fmt: skip
    except OSError as error:
        raise MachineError(f"{words[0]} cannot be run ({error.strerror}): install Pacemaker on this machine") from None
    except subprocess.TimeoutExpired:
        raise ClusterSilent(f"{words[0]} gave no answer within {_LIMIT_S:g} s: is the cluster running here?") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:200]
        raise ClusterSilent(f"{words[0]} failed with exit code {done.returncode}: {said or 'it said nothing'}")
    return done.stdout
