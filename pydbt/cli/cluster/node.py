"""The volume as one node of a cluster has it: its two files, its state directory, and what is known of it there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydbt.cli.cluster.tools import ClusterTools
from pydbt.cli.volume_files import ROLES, VolumeFile, read_volume
from pydbt.controller.control import read_saved_status
from pydbt.core.cluster.candidate import NodeContent, NodeFacts, ReplicaFacts
from pydbt.core.cluster.owner import BegunPromotion, ContentOwner
from pydbt.core.configured.problems import why_no_name
from pydbt.core.errors import MachineError, UsageError
from pydbt.core.secondary.primary_watch import PrimaryReport
from pydbt.core.secondary.promotion import Position
from pydbt.core.secondary.replica import ReplicaState
from pydbt.posix.atomic import remove_file, replace_file
from pydbt.posix.ownership import read_own
from pydbt.store.replica_state import load_record
from pydbt.store.volume_state import load_state

CLUSTER_FOLDER = Path("/etc/pydbt/cluster")
DEFAULT_MAX_LOSS = "30s"
_PROMOTION_NAME = "cluster-promotion"


@dataclass(frozen=True, slots=True)
class NodeVolume:
    """``folder`` has a folder for each role, with a file of this name in both."""

    name: str
    folder: Path
    place: Path
    state_dir: Path

    @property
    def content(self) -> NodeContent:
        """What the state directory says that the device is. StateError."""
        record = load_record(self.state_dir)
        if record is not None and not record.promoted:
            return NodeContent.REPLICA
        return NodeContent.NOTHING if load_state(self.state_dir) is None else NodeContent.VOLUME

    @property
    def begun(self) -> BegunPromotion | None:
        """A promotion that may not be finished: the last one that was begun, as long as the cluster was not told its end."""
        try:
            text = read_own(self.state_dir / _PROMOTION_NAME).decode()
        except (OSError, ValueError):
            return None
        return BegunPromotion.from_text(text)

    def begin_promotion(self, begun: BegunPromotion) -> None:
        """Write it down, durably. StateError."""
        replace_file(self.state_dir / _PROMOTION_NAME, f"{begun.to_text()}\n".encode())

    def end_promotion(self) -> None:
        """The cluster knows of it. StateError."""
        remove_file(self.state_dir / _PROMOTION_NAME)


def node_volume(name: str, folder: Path = CLUSTER_FOLDER) -> NodeVolume:
    """Of the files of both roles. UsageError when one is missing or wrong, or they do not speak of one volume."""
    if words := why_no_name(name):
        raise UsageError(f"volume {name!r}: {words}")
    run, secondary = (_file(folder, role, name) for role in ("run", "secondary"))
    for key, one, other in (
        ("the device", run.place, secondary.place),
        ("the state directory", run.state_dir, secondary.state_dir),
    ):
        if one != other:
            raise UsageError(
                f"{run.path} and {secondary.path} must name the same for {key}, and name {one} and {other}"
            )
    assert run.place is not None
    return NodeVolume(name, folder, run.place, run.state_dir)


def _file(folder: Path, role: str, name: str) -> VolumeFile:
    path = folder / role / f"{name}.toml"
    found = read_volume(path)
    for problem in found.problems:
        raise UsageError(str(problem))
    if found.role != role or found.place is None:
        raise UsageError(f"{path} must have one table, [{role}], with a key {ROLES[role]}")
    return found


def facts_of(
    volume: NodeVolume,
    tools: ClusterTools,
    owner: ContentOwner | None,
    status: dict[str, Any] | None,
    max_loss_s: float,
) -> NodeFacts:
    """Everything that a decision needs. ``status``: what a running controller has just answered, None without one."""
    now, node = datetime.now(UTC), tools.this_node()
    fencings = None
    if owner is not None and owner.node != node:
        try:
            fencings = tools.fencings(owner.node)
        except MachineError:
            fencings = None
    replica = _replica_facts(volume, status, now)
    return NodeFacts(volume.name, node, volume.content, owner, replica, fencings, now, max_loss_s, volume.begun)


def _replica_facts(volume: NodeVolume, status: dict[str, Any] | None, now: datetime) -> ReplicaFacts | None:
    """None when it cannot be told without doubt."""
    told = status or read_saved_status(volume.state_dir)
    if told is None or told.get("role") != "secondary":
        return None
    try:
        told_at = now if status is not None else datetime.fromisoformat(str(told.get("saved_at")))
        state = ReplicaState(str(told.get("replica_state")))
        image = Position(int(str(told.get("epoch")), 16), int(str(told.get("sequence"))))
    except ValueError:
        return None
    if told_at.tzinfo is None:
        return None
    primary = PrimaryReport.from_values(told.get("primary"))
    return ReplicaFacts(state, image, primary, told_at, str(told.get("target_problem") or told.get("problem") or ""))
