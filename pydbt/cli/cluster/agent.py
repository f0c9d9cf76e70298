"""The actions of the resource agent (OCF Resource Agent API 1.1): what Pacemaker asks of a volume on this node.

Started and not promoted, a node runs `controller secondary`. Promoted, its device is a volume of its own, and `controller run`
tracks every write to it. No action returns before what it was asked for is so.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

import click

from pydbt.cli.cluster.metadata import metadata
from pydbt.cli.cluster.node import CLUSTER_FOLDER, DEFAULT_MAX_LOSS, NodeVolume, facts_of, node_volume
from pydbt.cli.cluster.process import ProgramFailed, VolumeProcess
from pydbt.cli.cluster.tools import ClusterSilent, ClusterTools
from pydbt.cli.values import DURATION
from pydbt.controller.control import call
from pydbt.core.cluster.candidate import OWNER_SCORE, Candidate, NodeContent, candidate
from pydbt.core.cluster.owner import BegunPromotion, ContentOwner, OwnerClaim
from pydbt.core.errors import BusyError, MachineError, NotRunning, PydbtError, StateError, UsageError
from pydbt.core.printable import printable
from pydbt.posix.atomic import remove_file, replace_file
from pydbt.posix.boot import boot_id
from pydbt.posix.ownership import read_own
from pydbt.store.cluster_words import ClusterWords, load_cluster_words, save_cluster_words

_ROLE_NAME = "cluster-role"
_ANSWER_S = 10.0
_WAIT_SHARE = 0.5
"""Of the time that a demotion has: the rest is for the stop, and for the start as a secondary."""
_DEFAULT_TIMEOUT_S = 60.0

_log = logging.getLogger("pydbt")


class OcfCode(IntEnum):
    """Exit codes of OCF 1.1, "Exit status codes"; DEGRADED is an addition of Pacemaker's to them."""

    SUCCESS = 0
    FAILED = 1
    WRONG_PARAMETERS = 2
    UNIMPLEMENTED = 3
    NOT_INSTALLED = 5
    NOT_RUNNING = 7
    RUNNING_PROMOTED = 8
    FAILED_PROMOTED = 9
    DEGRADED = 190
    """Of a monitor: it runs, and a person is needed. Pacemaker takes it as SUCCESS, and shows the reason with the failures."""


class ActionRefused(PydbtError):
    """An action that must not be done now, with the reason."""


class VolumeAgent:
    """``settings``: the environment in which Pacemaker calls. UsageError when the parameters or the files are wrong."""

    def __init__(self, settings: dict[str, str]) -> None:
        def given(name: str, otherwise: str) -> str:
            return settings.get(f"OCF_RESKEY_{name}") or otherwise

        name = given("volume", "")
        if not name:
            raise UsageError("the parameter volume is missing: give it the name of the volume")
        try:
            self._max_loss_s = float(DURATION.convert(given("max_loss", DEFAULT_MAX_LOSS), None, None))
        except click.UsageError as error:
            raise UsageError(f"the parameter max_loss: {error.message}") from None
        self._volume: NodeVolume = node_volume(name, Path(given("folder", str(CLUSTER_FOLDER))))
        self._process = VolumeProcess(self._volume)
        self._tools = ClusterTools(name)
        self._resource = settings.get("OCF_RESOURCE_INSTANCE", name).partition(":")[0]
        self._is_probe = given("CRM_meta_interval", "0") == "0"
        milliseconds = given("CRM_meta_timeout", "")
        self._timeout_s = int(milliseconds) / 1000 if milliseconds.isdecimal() else _DEFAULT_TIMEOUT_S

    # Actions. Each raises PydbtError when it fails.

    def start(self) -> OcfCode:
        if self._status() is None:
            content = self._volume.content
            if content is NodeContent.NOTHING:
                raise ActionRefused(
                    f"{self._volume.state_dir} has neither the volume nor a replica of it: make the first copy by hand"
                )
            if content is NodeContent.VOLUME:
                self._require_own()
                self._process.command("run", "demote", self._volume.name)
            self._become("secondary")
        self._refresh()
        return OcfCode.SUCCESS

    def stop(self) -> OcfCode:
        self._process.stop()
        remove_file(self._volume.state_dir / _ROLE_NAME)
        # After a start that was refused: its reason is that of this node as long as it is not started.
        self._tell_cluster(None, self._refusal())
        return OcfCode.SUCCESS

    def monitor(self) -> OcfCode:
        status = self._status()
        if status is None:
            if self._noted_role() != "run":
                return OcfCode.NOT_RUNNING
            _tell_reason("the primary of this volume has ended, and nothing was stopped: its log says why")
            return OcfCode.FAILED_PROMOTED
        found = None if self._is_probe else self._refresh(status)
        if status.get("role") == "primary":
            return OcfCode.RUNNING_PROMOTED
        if found is None or not found.stands_still:
            return OcfCode.SUCCESS
        _tell_reason(found.why_not)
        return OcfCode.DEGRADED

    def promote(self) -> OcfCode:
        view = self._tools.view()
        if view.why_unfenced:
            self._tell_cluster(None, view.why_unfenced)
            raise ActionRefused(view.why_unfenced)
        status = self._status()
        if status is not None and status.get("role") == "primary":
            return OcfCode.SUCCESS
        facts = facts_of(self._volume, self._tools, view.owner, status, self._max_loss_s)
        found = candidate(facts)
        if found.why_not:
            self._tell_cluster(None, found.why_not)
            raise ActionRefused(found.why_not)
        if facts.content is NodeContent.REPLICA:
            # First, so that whatever cuts this off, the next action knows whose promotion it finds.
            if facts.owner is not None and facts.owner.node != facts.node:
                self._volume.begin_promotion(BegunPromotion(facts.owner, datetime.now(UTC)))
            if found.lost_s is not None:
                _log.warning("writes of the primary in the last %.1f s before it was fenced may be lost", found.lost_s)
            forced = ("--force",) if found.fenced else ()
            self._process.command("secondary", "promote", self._volume.name, *forced)
        self._tools.set_owner(ContentOwner(facts.node, OwnerClaim.PROMOTED, datetime.now(UTC)))
        self._volume.end_promotion()
        self._become("run")
        self._tell_cluster(OWNER_SCORE, "")
        return OcfCode.SUCCESS

    def demote(self) -> OcfCode:
        status = self._status()
        if status is not None and status.get("role") != "primary":
            return OcfCode.SUCCESS
        content = self._volume.content
        if status is None and content is not NodeContent.VOLUME and self._noted_role() == "":
            return OcfCode.NOT_RUNNING
        complete = status is not None and self._wait_until_complete()
        if content is NodeContent.VOLUME:
            self._process.command("run", "demote", self._volume.name)
        if complete:
            self._release()
        self._become("secondary")
        self._refresh()
        return OcfCode.SUCCESS

    def notify(self) -> OcfCode:
        if (status := self._status()) is not None:
            self._refresh(status)
        return OcfCode.SUCCESS

    def reload_agent(self) -> OcfCode:
        return self.notify()

    def validate_all(self) -> OcfCode:
        for role in ("run", "secondary"):
            self._process.command(role, "configcheck", self._volume.name)
        return OcfCode.SUCCESS

    # What they have in common.

    def _status(self) -> dict[str, Any] | None:
        """What the running controller answers; None when none runs."""
        try:
            return call(self._volume.state_dir, {"command": "status"}, _ANSWER_S)
        except NotRunning:
            return None
        except BusyError:  # too many ask it at the same time: it runs, in the role that it had
            if not (noted := self._noted_role()):
                raise
            return {"role": {"run": "primary"}.get(noted, noted)}

    def _become(self, role: str) -> None:
        """Start the controller in a role, and note it, so that an end that nobody asked for is known from a stop."""
        if role == "secondary":
            remove_file(self._volume.state_dir / _ROLE_NAME)
        self._process.start(role)
        replace_file(self._volume.state_dir / _ROLE_NAME, f"{role} {boot_id()}\n".encode(), durable=False)

    def _noted_role(self) -> str:
        """The role in which this agent has started the controller since the boot; empty when it has not, or has stopped it."""
        try:
            words = read_own(self._volume.state_dir / _ROLE_NAME).decode().split()
        except (OSError, ValueError):
            return ""
        return words[0] if len(words) == 2 and words[1] == boot_id() else ""

    def _require_own(self) -> None:
        """This node was the primary: it stays out when another one was promoted since, or when nobody knows."""
        facts = facts_of(self._volume, self._tools, self._tools.view().owner, None, self._max_loss_s)
        if why_not := candidate(facts).why_not:
            self._tell_cluster(None, why_not)
            raise ActionRefused(why_not)

    def _refusal(self) -> str:
        """Why the last start was refused, of a node that was the primary; empty for any other."""
        try:
            found = load_cluster_words(self._volume.state_dir)
            return found.words if found is not None and self._volume.content is NodeContent.VOLUME else ""
        except PydbtError:  # a stop goes on all the same
            return ""

    def _wait_until_complete(self) -> bool:
        try:
            limit = f"{self._timeout_s * _WAIT_SHARE:g}"
            self._process.command("run", "wait", self._volume.name, "--timeout", limit)
        except ProgramFailed as error:
            _log.warning("the replica does not have everything that was written here: %s", error)
            return False
        return True

    def _release(self) -> None:
        """Tell the cluster that another node may take over. When it cannot be told, only this node has the volume."""
        try:
            owner, node = self._tools.view().owner, self._tools.this_node()
            if owner is not None and owner.node == node:
                self._tools.set_owner(ContentOwner(node, OwnerClaim.RELEASED, datetime.now(UTC)))
        except MachineError as error:
            _log.warning("the cluster could not be told that another node may take over: %s", error)

    def _refresh(self, status: dict[str, Any] | None = None) -> Candidate | None:
        """Bring up to date how much this node is preferred. Where that cannot be found out, None, and nothing is changed."""
        status = status or self._status()
        if status is not None and len(status) == 1:
            return None  # it runs, and has no time to tell more
        try:
            if status is not None and status.get("role") == "primary":
                found = Candidate(OWNER_SCORE, "")
            else:
                found = candidate(
                    facts_of(self._volume, self._tools, self._tools.view().owner, status, self._max_loss_s)
                )
        except MachineError as error:
            _log.warning("the cluster gave no answer, and the score for promotion stays as it is: %s", error)
            return None
        self._tell_cluster(found.score, found.why_not if found.score is None else "")
        return found

    def _tell_cluster(self, score: int | None, words: str) -> None:
        """To the cluster and, for `controller status`, to the state directory."""
        try:
            if words or load_cluster_words(self._volume.state_dir) is not None:
                told = datetime.now(UTC).isoformat(timespec="seconds")
                save_cluster_words(self._volume.state_dir, ClusterWords(words, told))
        except StateError as error:
            _log.warning("the status does not tell why the cluster leaves this volume out: %s", error)
        try:
            self._tools.set_score(self._resource, score)
            self._tools.tell(words)
        except MachineError as error:
            _log.warning("the score for promotion could not be set: %s", error)


_ACTIONS: dict[str, Callable[[VolumeAgent], OcfCode]] = {
    "start": VolumeAgent.start, "stop": VolumeAgent.stop, "monitor": VolumeAgent.monitor, "promote": VolumeAgent.promote,
    "demote": VolumeAgent.demote, "notify": VolumeAgent.notify, "reload-agent": VolumeAgent.reload_agent,
    "validate-all": VolumeAgent.validate_all,
}  # fmt: skip


def act(action: str, settings: dict[str, str]) -> OcfCode:
    """Carry out one action; its exit code, with the reason of a failure on stderr as Pacemaker takes it."""
    if action == "meta-data":
        click.echo(metadata())
        return OcfCode.SUCCESS
    if action not in _ACTIONS:
        click.echo(f"unknown action {action}: expected meta-data, {', '.join(_ACTIONS)}", err=True)
        return OcfCode.UNIMPLEMENTED
    try:
        return _ACTIONS[action](VolumeAgent(settings))
    except PydbtError as error:
        _tell_reason(str(error))
        return _code_of(error)


def _code_of(error: PydbtError) -> OcfCode:
    """A wrong parameter or a missing program keeps the resource off this node; anything else may be tried again."""
    match error:
        case UsageError():
            return OcfCode.WRONG_PARAMETERS
        case MachineError() if not isinstance(error, ClusterSilent):
            return OcfCode.NOT_INSTALLED
        case _:
            return OcfCode.FAILED


def _tell_reason(words: str) -> None:
    """On stderr, in the form that ocf_exit_reason() of resource-agents has, which Pacemaker keeps with the result."""
    sys.stderr.write(f"ocf-exit-reason:{printable(' '.join(words.split()))}\n")
