"""The work and the answer of the agent for each action, over a cluster and a controller that a test makes up."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from pydbt.cli.cluster import agent, node, process
from pydbt.cli.cluster.agent import OcfCode, act
from pydbt.cli.cluster.process import ProgramFailed
from pydbt.cli.cluster.tools import ClusterSilent
from pydbt.cli.commands import cluster
from pydbt.cli.locate import last_known
from pydbt.core.cluster.candidate import COMPLETE_SCORE, FOLLOWER_SCORE, OWNER_SCORE, Fencing
from pydbt.core.cluster.database import ClusterView
from pydbt.core.cluster.owner import ContentOwner, OwnerClaim
from pydbt.core.errors import BusyError, NotRunning, UsageError
from pydbt.core.protocol.divergence import Divergence
from pydbt.core.secondary.primary_watch import PrimaryReport
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.store.replica_state import load_record, save_record
from pydbt.store.volume_state import VolumeState, save_state

EPOCH = 0xA1
VOLUME = "6f0d2a34-7c9f-4a5e-9a54-1f4b8f4f2f10"


class KilledError(BaseException):
    """Nothing that the agent has to say comes after it."""


@dataclass
class Machines:
    """The cluster as beta sees it, and what runs on beta. ``done`` is what the agent did, in its order."""

    state_dir: Path
    view: ClusterView = field(default_factory=lambda: ClusterView(True, ("power",), None))
    fenced: tuple[Fencing, ...] = ()
    status: dict[str, Any] | None = None
    complete: bool = True
    cut_at: str = ""
    """What ends the agent: before the promotion, after it, or in the middle of telling the cluster, as too slow or killed."""
    answers: bool = True
    own_bytes: int = 0
    score: int | None = None
    words: str = ""
    done: list[str] = field(default_factory=list)

    def owned_by(self, name: str, claim: OwnerClaim = OwnerClaim.PROMOTED) -> None:
        self.view = replace(self.view, owner=ContentOwner(name, claim, datetime.now(UTC) - timedelta(hours=1)))

    @property
    def owner(self) -> str:
        owner = self.view.owner
        return "nobody" if owner is None else f"{owner.claim} {owner.node}"

    def cut(self, moment: str) -> None:
        """The agent is killed at this moment, if the test wants that."""
        if self.cut_at == moment:
            raise KilledError

    def replica(self) -> None:
        """Beta's state directory is that of a replica."""
        record = ReplicaRecord(
            replica=secrets.token_hex(16), target="t", segment_bytes=1 << 20, volume=VOLUME.replace("-", ""), consistent=True,
            divergence=Divergence("beta", "/dev/x", "", "", "", self.own_bytes),
        )  # fmt: skip
        save_record(self.state_dir, record)
        (self.state_dir / "volume.json").unlink(missing_ok=True)

    def primary_state(self) -> None:
        """It is that of a volume."""
        record = load_record(self.state_dir)
        if record is not None:
            save_record(self.state_dir, replace(record, promoted="2026-01-02T12:00:00+00:00"))
        save_state(self.state_dir, VolumeState(VOLUME, 1 << 20, 4096, "/dev/x", {}))

    def follow(self, *, silent_s: float = 1, behind_s: float = 0, ended: bool = False) -> None:
        """The secondary runs, and heard its primary this long ago."""
        told = datetime.now(UTC) - timedelta(seconds=silent_s)
        as_of = told - timedelta(seconds=behind_s)
        primary = PrimaryReport(
            "alpha", "/dev/x", silent_s, ended, told.isoformat(), 0, as_of.isoformat(), f"{EPOCH:016x}", 7
        )
        self.status = {
            "role": "secondary", "replica_state": "consistent", "epoch": f"{EPOCH:016x}", "sequence": 7,
            "primary": primary.to_values(), "target_problem": "", "problem": "",
        }  # fmt: skip


class Tools:
    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def this_node(self) -> str:
        return "beta"

    def view(self) -> ClusterView:
        if not self._machines.answers:
            raise ClusterSilent("cibadmin failed with exit code 102: it said nothing")
        return self._machines.view

    def fencings(self, name: str) -> tuple[Fencing, ...]:
        return tuple(one for one in self._machines.fenced if one.node == name)

    def set_owner(self, owner: ContentOwner) -> None:
        if self._machines.cut_at == "too slow":
            raise ClusterSilent("crm_attribute gave no answer within 15 s: is the cluster running here?")
        self._machines.cut("before the cluster is told")
        self._machines.view = replace(self._machines.view, owner=owner)
        self._machines.done.append(f"owner {owner.claim} {owner.node}")
        self._machines.cut("after the cluster is told")

    def set_score(self, resource: str, score: int | None) -> None:
        assert resource == "data"
        self._machines.score = score

    def tell(self, words: str) -> None:
        self._machines.words = words

    def clean_up(self, resource: str, name: str) -> None:
        self._machines.done.append(f"clean up {resource} on {name}")


class Process:
    """The commands of the program, as far as what runs and what the state directory says depends on them."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def command(self, role: str, *words: str) -> str:
        machines = self._machines
        machines.done.append(" ".join((words[0], *words[2:])))
        match words[0]:
            case "wait" if not machines.complete:
                raise ProgramFailed("controller wait data: not everything arrived", 8)
            case "promote":
                machines.cut("before the promotion")
                machines.status = None
                machines.primary_state()
            case "demote":
                machines.status = None
                machines.replica()
        return ""

    def start(self, role: str) -> None:
        self._machines.done.append(f"start {role}")
        if role == "run":
            self._machines.status = {"role": "primary", "mode": "normal"}
        else:
            self._machines.follow()

    def stop(self) -> None:
        self._machines.done.append("stop")
        self._machines.status = None


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    state_dir, folder = tmp_path / "state", tmp_path / "cluster"
    state_dir.mkdir()
    for role, key, more in (("run", "source", 'secondary = "h:1"'), ("secondary", "target", 'listen = "h:1"')):
        (folder / role).mkdir(parents=True)
        (folder / role / "data.toml").write_text(f'[{role}]\n{key} = "/dev/x"\n{more}\nstate = "{state_dir}"\n')
    made = Machines(state_dir)
    made.replica()

    def call(place: Path, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        assert place == state_dir and request == {"command": "status"}
        if made.status is None:
            raise NotRunning("no controller is running")
        return made.status

    monkeypatch.setattr(agent, "call", call)
    monkeypatch.setattr(agent, "ClusterTools", lambda volume: Tools(made))
    monkeypatch.setattr(agent, "VolumeProcess", lambda volume: Process(made))
    monkeypatch.setattr(node, "CLUSTER_FOLDER", folder)
    monkeypatch.setattr(agent, "CLUSTER_FOLDER", folder)
    yield made


def ask(action: str, **parameters: str) -> OcfCode:
    given = {"volume": "data", "CRM_meta_interval": "10000"} | parameters
    return act(
        action, {"OCF_RESOURCE_INSTANCE": "data:0"} | {f"OCF_RESKEY_{name}": value for name, value in given.items()}
    )


def reason(capsys: pytest.CaptureFixture[str]) -> str:
    """What Pacemaker keeps with the result: one line."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ocf-exit-reason:")]
    assert len(lines) == 1, lines
    return lines[0].removeprefix("ocf-exit-reason:")


def test_a_replica_is_started_and_stopped_and_each_twice(machines: Machines) -> None:
    machines.owned_by("alpha")
    assert ask("monitor", CRM_meta_interval="0") is OcfCode.NOT_RUNNING
    assert [ask("start"), ask("start"), ask("monitor")] == [OcfCode.SUCCESS] * 3
    assert [ask("stop"), ask("stop")] == [OcfCode.SUCCESS] * 2
    assert ask("monitor") is OcfCode.NOT_RUNNING
    assert machines.done == ["start secondary", "stop", "stop"] and machines.score is None


def test_a_follower_is_promoted_after_its_primary_was_fenced_although_it_was_heard_a_moment_ago(
    machines: Machines,
) -> None:
    machines.owned_by("alpha")
    assert ask("start") is OcfCode.SUCCESS
    assert machines.score == FOLLOWER_SCORE, "so that the cluster may choose it when alpha fails"
    machines.fenced = (Fencing("alpha", datetime.now(UTC)),)
    machines.done.clear()
    assert ask("promote") is OcfCode.SUCCESS
    assert machines.done == ["promote --force", "owner promoted beta", "start run"]
    assert machines.score == OWNER_SCORE and ask("monitor") is OcfCode.RUNNING_PROMOTED
    assert ask("promote") is OcfCode.SUCCESS and len(machines.done) == 3, "once more"


MOMENTS = ["before the promotion", "too slow", "before the cluster is told", "after the cluster is told"]


def cut_off(machines: Machines, moment: str, claim: OwnerClaim = OwnerClaim.PROMOTED) -> None:
    """A promotion of beta that ended at this moment, with what is so after it."""
    machines.owned_by("alpha", claim)
    machines.fenced = (Fencing("alpha", datetime.now(UTC)),) if claim is OwnerClaim.PROMOTED else ()
    machines.follow(ended=claim is OwnerClaim.RELEASED)
    machines.cut_at = moment
    if moment == "too slow":
        assert ask("promote") is OcfCode.FAILED
    else:
        with pytest.raises(KilledError):
            ask("promote")
    assert (machines.owner == "promoted beta") == (moment == "after the cluster is told")
    machines.cut_at = ""
    machines.done.clear()


@pytest.mark.parametrize("claim", [OwnerClaim.PROMOTED, OwnerClaim.RELEASED])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_promotion_that_is_cut_off_is_finished_by_the_next_one(
    machines: Machines, moment: str, claim: OwnerClaim
) -> None:
    cut_off(machines, moment, claim)
    machines.fenced = () if moment != MOMENTS[0] else machines.fenced  # a history that was cleaned up meanwhile
    assert ask("promote") is OcfCode.SUCCESS
    assert machines.done[-2:] == ["owner promoted beta", "start run"] and ask("monitor") is OcfCode.RUNNING_PROMOTED
    assert list(machines.state_dir.glob("cluster-promotion")) == [], "the cluster knows everything"


@pytest.mark.parametrize("moment", MOMENTS[1:])
@pytest.mark.parametrize("action", ["start", "demote"])
def test_after_a_promotion_that_was_cut_off_the_node_starts_and_is_promoted(
    machines: Machines, moment: str, action: str
) -> None:
    cut_off(machines, moment)
    assert ask("monitor") is OcfCode.NOT_RUNNING
    assert ask(action) in (OcfCode.SUCCESS, OcfCode.NOT_RUNNING)
    assert machines.done == ["demote", "start secondary"]
    machines.status = (machines.status or {}) | {"primary": PrimaryReport.from_values(None).to_values()}
    assert (
        ask("monitor") is OcfCode.SUCCESS and machines.score in (FOLLOWER_SCORE, OWNER_SCORE) and machines.words == ""
    )
    assert ask("promote") is OcfCode.SUCCESS and machines.owner == "promoted beta"


def test_a_promotion_that_was_cut_off_is_over_when_another_node_was_promoted_or_chosen_since(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for claim in (OwnerClaim.PROMOTED, OwnerClaim.RELEASED, OwnerClaim.CHOSEN):
        machines.replica()
        cut_off(machines, "too slow")
        capsys.readouterr()
        machines.view = replace(machines.view, owner=ContentOwner("alpha", claim, datetime.now(UTC)))
        assert ask("start") is OcfCode.FAILED and "alpha was promoted since" in reason(capsys)
        assert ask("promote") is OcfCode.FAILED and machines.done == []
        assert isinstance(typed(monkeypatch, machines, "choose", "data").exception, BusyError)


def test_a_person_may_let_a_promotion_that_was_cut_off_count(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(machines, "too slow")
    assert typed(monkeypatch, machines, "choose", "data").exception is None and machines.owner == "chosen beta"


def test_ten_minutes_behind_nothing_is_promoted_and_the_loss_is_named(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.owned_by("alpha")
    machines.follow(silent_s=605)
    machines.fenced = (Fencing("alpha", datetime.now(UTC) - timedelta(seconds=5)),)
    assert ask("monitor") is OcfCode.DEGRADED and machines.score is None
    assert "600 s may be only on alpha" in machines.words and machines.words == reason(capsys)
    assert machines.words in last_known(machines.state_dir), "controller status has it too"
    assert ask("promote") is OcfCode.FAILED and machines.done == []
    assert "600 s may be only on alpha" in reason(capsys) and machines.owner == "promoted alpha"
    assert ask("promote", max_loss="20m") is OcfCode.SUCCESS, "the administrator allows it"
    assert "cluster leaves it out" not in last_known(machines.state_dir)


def test_a_monitor_asks_for_a_person_only_while_nobody_is_the_primary_and_this_node_may_not_be(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.follow(silent_s=605)
    machines.owned_by("alpha")
    assert ask("monitor") is OcfCode.SUCCESS and "not fenced" in machines.words, "it may be the primary"
    machines.owned_by("alpha", OwnerClaim.CHOSEN)
    assert ask("monitor") is OcfCode.SUCCESS, "it is to be promoted next"
    machines.owned_by("alpha", OwnerClaim.RELEASED)
    assert ask("monitor") is OcfCode.DEGRADED and "'controller cluster choose data'" in reason(capsys)
    assert ask("monitor", CRM_meta_interval="0") is OcfCode.SUCCESS, "a probe asks only what runs"
    machines.view = replace(machines.view, owner=None)
    assert ask("monitor") is OcfCode.DEGRADED and "'controller cluster choose data'" in reason(capsys)
    machines.owned_by("alpha")
    machines.fenced = (Fencing("alpha", datetime.now(UTC)),)
    machines.follow()
    assert ask("monitor") is OcfCode.SUCCESS and machines.score == FOLLOWER_SCORE, "it is to be promoted next"
    assert machines.status is not None
    machines.status["replica_state"] = "inconsistent"
    assert ask("monitor") is OcfCode.DEGRADED and "inconsistent" in reason(capsys)


def test_nothing_is_promoted_without_fencing(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    machines.owned_by("beta")
    machines.follow()
    for view, words in (
        (replace(machines.view, fencing_enabled=False), "stonith-enabled is false"),
        (replace(machines.view, fencing_devices=()), "no fencing device"),
    ):
        machines.view = view
        assert ask("promote") is OcfCode.FAILED and machines.done == [] and machines.score is None
        assert words in reason(capsys)


def test_a_planned_move_releases_the_volume_only_when_the_replica_has_everything(machines: Machines) -> None:
    for complete, owner in ((False, "promoted beta"), (True, "released beta")):
        machines.owned_by("beta")
        machines.complete = complete
        machines.follow()
        assert ask("promote") is OcfCode.SUCCESS
        machines.done.clear()
        assert ask("demote", CRM_meta_timeout="240000") is OcfCode.SUCCESS
        assert machines.done[:2] == ["wait --timeout 120", "demote"] and machines.done[-1] == "start secondary"
        assert machines.owner == owner
        assert ask("demote") is OcfCode.SUCCESS, "once more"
        assert machines.score == OWNER_SCORE


def test_a_replica_that_has_everything_of_a_demoted_primary_takes_over_without_fencing(machines: Machines) -> None:
    machines.owned_by("alpha", OwnerClaim.RELEASED)
    machines.follow(ended=True)
    assert ask("monitor") is OcfCode.SUCCESS and machines.score == COMPLETE_SCORE
    assert ask("promote") is OcfCode.SUCCESS
    assert machines.done == ["promote", "owner promoted beta", "start run"], "and nothing is forced"


def test_an_old_primary_that_comes_back_touches_nothing(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    machines.primary_state()
    for owner, words in ((None, "whose content counts"), ("alpha", "cluster rejoin")):
        if owner:
            machines.owned_by(owner)
        assert ask("start") is OcfCode.FAILED and words in reason(capsys)
        assert ask("promote") is OcfCode.FAILED and words in reason(capsys)
    assert machines.done == []


def test_the_reason_why_an_old_primary_is_not_started_stays_in_the_status_until_it_is(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.primary_state()
    machines.owned_by("alpha")
    command = "'controller cluster rejoin data' on this node"
    assert ask("start") is OcfCode.FAILED and command in reason(capsys)[:127]
    assert command in machines.words and command in last_known(machines.state_dir)
    assert ask("stop") is OcfCode.SUCCESS, "Pacemaker does so after a start that failed"
    assert command in machines.words and command in last_known(machines.state_dir)
    assert typed(monkeypatch, machines, "rejoin", "data").exception is None
    assert ask("start") is OcfCode.SUCCESS
    assert command not in machines.words and command not in last_known(machines.state_dir)


def test_a_primary_that_comes_back_and_nobody_was_promoted_starts_as_a_replica_and_may_be_promoted(
    machines: Machines,
) -> None:
    machines.primary_state()
    machines.owned_by("beta")
    assert ask("start") is OcfCode.SUCCESS and machines.done == ["demote", "start secondary"]
    assert machines.score == OWNER_SCORE and ask("promote") is OcfCode.SUCCESS


def test_a_primary_that_ends_by_itself_is_a_failed_promoted_one_and_is_recovered(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.owned_by("beta")
    machines.follow()
    assert ask("promote") is OcfCode.SUCCESS
    machines.status = None
    assert ask("monitor") is OcfCode.FAILED_PROMOTED and "has ended" in reason(capsys)
    assert ask("demote") is OcfCode.SUCCESS and machines.owner == "promoted beta"
    assert ask("monitor") is OcfCode.SUCCESS


def test_a_cluster_that_does_not_answer_changes_no_score_and_promotes_nothing(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.owned_by("alpha")
    assert ask("start") is OcfCode.SUCCESS
    machines.answers = False
    assert ask("monitor") is OcfCode.SUCCESS and machines.score == FOLLOWER_SCORE
    assert ask("promote") is OcfCode.FAILED and "cibadmin" in reason(capsys)
    assert machines.done == ["start secondary"]


def test_without_a_first_copy_nothing_is_started(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    (machines.state_dir / "replica.json").unlink()
    assert ask("start") is OcfCode.FAILED and "first copy by hand" in reason(capsys)
    assert ask("demote") is OcfCode.NOT_RUNNING


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"volume": ""}, "volume is missing"),
        ({"volume": "Data"}, "lower-case"),
        ({"volume": "other"}, "other.toml"),
        ({"max_loss": "soon"}, "max_loss"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(
    machines: Machines, capsys: pytest.CaptureFixture[str], parameters: dict[str, str], words: str
) -> None:
    assert ask("validate-all", **parameters) is OcfCode.WRONG_PARAMETERS and words in reason(capsys)


def test_two_files_that_speak_of_different_devices_are_refused(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    path = node.CLUSTER_FOLDER / "run/data.toml"
    path.write_text(path.read_text().replace("/dev/x", "/dev/y"))
    assert ask("start") is OcfCode.WRONG_PARAMETERS and "must name the same for the device" in reason(capsys)


def test_an_action_that_is_not_known_is_not_implemented() -> None:
    assert ask("migrate_to") is OcfCode.UNIMPLEMENTED and ask("reload") is OcfCode.UNIMPLEMENTED


def test_the_agent_describes_itself_as_ocf_1_1_requires(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("meta-data") is OcfCode.SUCCESS
    root = ElementTree.fromstring(capsys.readouterr().out)
    assert root.tag == "resource-agent" and root.findtext("version") == "1.1"
    parameters = {one.get("name"): one for one in root.iterfind("parameters/parameter")}
    assert parameters["volume"].get("required") == "1" and parameters["max_loss"].get("reloadable") == "1"
    actions = {(one.get("name"), one.get("role")) for one in root.iterfind("actions/action")}
    assert {("monitor", "Promoted"), ("monitor", "Unpromoted"), ("reload-agent", None), ("notify", None)} <= actions


def typed(monkeypatch: pytest.MonkeyPatch, machines: Machines, *words: str) -> Result:
    """`controller cluster WORDS`, on beta."""
    monkeypatch.setattr(cluster, "ClusterTools", lambda volume: Tools(machines))
    monkeypatch.setattr(process, "VolumeProcess", lambda volume: Process(machines))
    return CliRunner().invoke(cluster.cluster, [*words, "--folder", str(node.CLUSTER_FOLDER)])


def test_an_old_primary_rejoins_by_one_command_which_gives_up_what_only_it_has(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.primary_state()
    machines.owned_by("alpha")
    machines.view = replace(machines.view, resources=("data",))
    machines.own_bytes = 4096
    assert typed(monkeypatch, machines, "rejoin", "data").exception is None
    assert machines.done == ["demote", "invalidate", "clean up data on beta"]
    assert ask("start") is OcfCode.SUCCESS and machines.owner == "promoted alpha"


@pytest.mark.parametrize("owner", ["", "beta"])
def test_nothing_is_given_up_on_a_node_whose_content_counts(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    machines.primary_state()
    if owner:
        machines.owned_by(owner)
    assert isinstance(typed(monkeypatch, machines, "rejoin", "data").exception, UsageError) and machines.done == []


def test_a_follower_keeps_what_it_has_when_it_is_told_to_rejoin(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.owned_by("alpha")
    assert typed(monkeypatch, machines, "rejoin", "data").exception is None and machines.done == []


def test_a_person_s_choice_needs_fencing_or_force(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.owned_by("alpha")
    machines.follow(silent_s=605)
    assert isinstance(typed(monkeypatch, machines, "choose", "data").exception, BusyError)
    machines.fenced = (Fencing("alpha", datetime.now(UTC)),)
    machines.view, machines.done = replace(machines.view, resources=("data",)), []
    assert typed(monkeypatch, machines, "choose", "data").exception is None and machines.owner == "chosen beta"
    assert machines.done == ["owner chosen beta", "clean up data on beta"], "what was refused before may be tried again"
    assert ask("promote") is OcfCode.SUCCESS
    machines.owned_by("alpha")
    assert isinstance(typed(monkeypatch, machines, "choose", "data").exception, BusyError), "it was the primary itself"
    assert typed(monkeypatch, machines, "choose", "data", "--force").exception is None
