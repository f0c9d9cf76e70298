"""Two machines as nodes of a Pacemaker cluster: PostgreSQL on a replicated volume, as in docs/operating/pacemaker.md."""

from __future__ import annotations

import json
import random
import re
import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.lab.patience import wait_until
from tests.vm.image import chosen_suite
from tests.vm.machine import IDENTITY, TREE, Machine
from tests.vm.pair import Pair

_POSTGRES = {"bookworm": "15", "trixie": "17"}[chosen_suite()]
PACKAGES = ("pacemaker", "corosync", "pacemaker-cli-utils", "resource-agents", f"postgresql-{_POSTGRES}", "psmisc")
# Everything is emulated: an action of the agent starts the program several times.
PATIENCE_S = 1800.0
ACTION_S = 1000
# What an emulated cluster takes to notice and to fence is part of it; a test makes it shorter.
MAX_LOSS_S = 900
PORT = 7790
POINT = "/srv/data"
DATABASE = f"{POINT}/pg"
STATE = "/var/lib/pydbt/data"
_PG = f"/usr/lib/postgresql/{_POSTGRES}/bin"

_COROSYNC = """totem {{
    version: 2
    cluster_name: test
    transport: udpu
    token: 15000
}}
nodelist {{
    node {{
        ring0_addr: {0}
        name: primary
        nodeid: 1
    }}
    node {{
        ring0_addr: {1}
        name: secondary
        nodeid: 2
    }}
}}
quorum {{
    provider: corosync_votequorum
    two_node: 1
    wait_for_all: 0
}}
logging {{
    to_syslog: yes
}}
"""

_OPERATIONS = "".join(
    f'<op id="{{id}}-op-{name}" name="{name}" interval="0" timeout="{ACTION_S}s"/>'
    for name in ("start", "stop", "promote", "demote", "notify")
)
_RESOURCES = f"""<resources>
<primitive id="power" class="stonith" type="fence_power">
  <instance_attributes id="power-attributes">
    <nvpair id="power-hosts" name="pcmk_host_list" value="primary secondary"/>
    <nvpair id="power-check" name="pcmk_host_check" value="static-list"/>
  </instance_attributes>
  <operations><op id="power-monitor" name="monitor" interval="120s" timeout="{ACTION_S}s"/>
    <op id="power-start" name="start" interval="0" timeout="{ACTION_S}s"/></operations>
</primitive>
<clone id="data-clone">
  <meta_attributes id="data-meta">
    <nvpair id="data-promotable" name="promotable" value="true"/>
    <nvpair id="data-promoted" name="promoted-max" value="1"/>
    <nvpair id="data-clones" name="clone-max" value="2"/>
    <nvpair id="data-notify" name="notify" value="true"/>
  </meta_attributes>
  <primitive id="data" class="ocf" provider="pydbt" type="volume">
    <instance_attributes id="data-attributes">
      <nvpair id="data-volume" name="volume" value="data"/>
      <nvpair id="data-loss" name="max_loss" value="{MAX_LOSS_S}s"/>
      <nvpair id="data-program" name="controller" value="/usr/local/bin/controller"/>
    </instance_attributes>
    <operations>{_OPERATIONS.format(id="data")}
      <op id="data-monitor-promoted" name="monitor" interval="30s" role="Promoted" timeout="{ACTION_S}s"/>
      <op id="data-monitor" name="monitor" interval="31s" role="Unpromoted" timeout="{ACTION_S}s"/>
    </operations>
  </primitive>
</clone>
<group id="database">
  <primitive id="files" class="ocf" provider="heartbeat" type="Filesystem">
    <instance_attributes id="files-attributes">
      <nvpair id="files-device" name="device" value="{{device}}"/>
      <nvpair id="files-directory" name="directory" value="{POINT}"/>
      <nvpair id="files-type" name="fstype" value="ext4"/>
    </instance_attributes>
    <operations><op id="files-start" name="start" interval="0" timeout="{ACTION_S}s"/>
      <op id="files-stop" name="stop" interval="0" timeout="{ACTION_S}s"/></operations>
  </primitive>
  <primitive id="postgres" class="ocf" provider="heartbeat" type="pgsql">
    <instance_attributes id="postgres-attributes">
      <nvpair id="postgres-ctl" name="pgctl" value="{_PG}/pg_ctl"/>
      <nvpair id="postgres-psql" name="psql" value="/usr/bin/psql"/>
      <nvpair id="postgres-data" name="pgdata" value="{DATABASE}"/>
    </instance_attributes>
    <operations><op id="postgres-start" name="start" interval="0" timeout="{ACTION_S}s"/>
      <op id="postgres-stop" name="stop" interval="0" timeout="{ACTION_S}s"/></operations>
  </primitive>
</group>
</resources>"""
_CONSTRAINTS = """<constraints>
<rsc_colocation id="database-with-data" rsc="database" with-rsc="data-clone" with-rsc-role="Promoted" score="INFINITY"/>
<rsc_order id="data-then-database" first="data-clone" first-action="promote" then="database" then-action="start"
  kind="Mandatory"/>
</constraints>"""
_OPTIONS = """<crm_config><cluster_property_set id="cib-bootstrap-options">
<nvpair id="option-stonith" name="stonith-enabled" value="true"/>
<nvpair id="option-action" name="stonith-action" value="off"/>
<nvpair id="option-stonith-timeout" name="stonith-timeout" value="180s"/>
</cluster_property_set></crm_config>"""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the cluster. ``address`` is that of the cluster and of the database, ``own`` that of replication."""

    machine: Machine
    own: str

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def address(self) -> str:
        return self.machine.address

    @property
    def device(self) -> str:
        return self.machine.device("data")

    def run(self, command: str, timeout: float = PATIENCE_S, *, check: bool = True) -> str:
        done = self.machine.run(command, timeout, check=check)
        return done.output + ("" if check else done.errors)

    def prepare(self) -> None:
        """After each boot: its address for replication, and what an installation puts in its places."""
        self.run(
            f"ip address add {self.own}/24 dev $(ip -o address show to {self.address} | awk '{{print $2}}'); "
            "systemctl unmask corosync pacemaker; "
            f"mkdir -p /usr/lib/ocf/resource.d/pydbt {POINT} {STATE} && "
            f"ln -sfn {TREE}/packaging/pacemaker/volume /usr/lib/ocf/resource.d/pydbt/volume && "
            f"ln -sfn {TREE}/tests/vm/fence_power /usr/sbin/fence_power"
        )

    def join(self) -> None:
        self.run("systemctl start corosync && systemctl start pacemaker")

    def files(self, other: Node) -> None:
        """The settings of both roles."""
        for role, words in (
            ("run", (f'source = "{self.device}"', f'secondary = "{other.own}:{PORT}"', "no-gate = true")),
            ("secondary", (f'target = "{self.device}"', f'listen = "{self.own}:{PORT}"')),
        ):
            text = "\\n".join((f"[{role}]", *words, f'identity = "{IDENTITY}"'))
            self.run(f"mkdir -p /etc/pydbt/cluster/{role} && printf '{text}\\n' >/etc/pydbt/cluster/{role}/data.toml")

    def status(self) -> dict[str, Any]:
        """What the controller of the volume answers; empty when none runs."""
        done = self.machine.run(f"controller status --state {STATE} --json", PATIENCE_S, check=False)
        return dict(json.loads(done.output)) if done.code == 0 else {}

    def why_not(self) -> str:
        """Why a node is not to be promoted, as the cluster has it."""
        return self.run("attrd_updater -n pydbt-data -Q -A", check=False)

    def count(self, of: Node) -> int:
        """How many rows the database on a node has, asked from here; -1 while it does not answer."""
        done = self.machine.run(
            f"psql -h {of.address} -U postgres -tAc 'select count(*) from promised'", 60, check=False
        )
        return int(done.output) if done.code == 0 and done.output.strip() else -1


class Nodes:
    """The cluster. Both machines have booted with ``PACKAGES``."""

    def __init__(self, machines: Pair) -> None:
        self.alpha, self.beta = Node(machines.primary, "10.77.1.11"), Node(machines.secondary, "10.77.1.12")
        self._key = secrets.token_hex(128)

    @property
    def both(self) -> tuple[Node, Node]:
        return self.alpha, self.beta

    def other(self, node: Node) -> Node:
        return self.beta if node is self.alpha else self.alpha

    def set_up(self) -> None:
        """By the document's own steps: a database, both files, the first copy by hand, the cluster, whose content counts."""
        alpha, beta = self.both
        corosync = shlex.quote(_COROSYNC.format(alpha.address, beta.address))
        for node in self.both:
            node.prepare()
            node.files(self.other(node))
            node.run(
                f"printf %s {corosync} >/etc/corosync/corosync.conf && printf %s {self._key} >/etc/corosync/authkey && "
                "chmod 400 /etc/corosync/authkey"
            )
        alpha.run(
            f"mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {alpha.device} && mount {alpha.device} {POINT} && "
            f"install -d -o postgres {DATABASE} && su postgres -c '{_PG}/initdb -N -D {DATABASE}' && "
            f"printf \"listen_addresses = '*'\\nshared_buffers = 16MB\\nmax_connections = 20\\n\" "
            f">>{DATABASE}/postgresql.conf && "
            f"echo 'host all all 10.77.0.0/24 trust' >>{DATABASE}/pg_hba.conf && umount {POINT}"
        )
        beta.machine.spawn(
            f"controller secondary {beta.device} --listen {beta.own}:{PORT} --state {STATE} --identity {IDENTITY}",
            "/root/secondary.log",
        )
        alpha.machine.spawn(
            f"controller run {alpha.device} --secondary {beta.own}:{PORT} --state {STATE} --identity {IDENTITY} --no-gate",
            "/root/run.log",
        )
        wait_until(lambda: bool(alpha.status()), "the primary answers", PATIENCE_S, interval_s=5)
        alpha.run(f"controller wait --state {STATE} --timeout {PATIENCE_S:.0f}")
        alpha.run(f"controller down {alpha.device}")
        beta.run(f"controller down {beta.device}")
        for node in self.both:
            node.join()
        wait_until(lambda: self.online(alpha) == {"primary", "secondary"}, "both are online", PATIENCE_S, interval_s=5)
        alpha.run("controller cluster choose data")
        self._configure(alpha)
        self.until_promoted(alpha)

    def _configure(self, node: Node) -> None:
        resources = _RESOURCES.replace("{device}", node.device)
        for scope, text in (("resources", resources), ("constraints", _CONSTRAINTS)):
            node.run(f"cibadmin --replace --scope {scope} --xml-text {shlex.quote(text)}")
        options = ElementTree.fromstring(_OPTIONS)
        for option in options.iter("nvpair"):
            node.run(f"crm_attribute -n {option.get('name')} -v {option.get('value')}")

    # --- looking -------------------------------------------------------------------------------------------
    def monitor(self, node: Node) -> ElementTree.Element | None:
        done = node.machine.run("crm_mon -1 --output-as=xml", 120, check=False)
        return ElementTree.fromstring(done.output) if done.code == 0 else None

    def online(self, node: Node) -> set[str]:
        found = self.monitor(node)
        return (
            set()
            if found is None
            else {str(one.get("name")) for one in found.iter("node") if one.get("online") == "true"}
        )

    def promoted(self, node: Node) -> str:
        """The name of the promoted node, as a node sees it; empty when there is none."""
        found = self.monitor(node)
        for one in () if found is None else found.iter("resource"):
            if one.get("id") == "data" and one.get("role") == "Promoted":
                return str(next(one.iter("node")).get("name"))
        return ""

    def until_promoted(self, node: Node) -> None:
        """It is promoted, and its database answers from the other node, or from itself when that is off."""
        asking = other if (other := self.other(node)).machine.alive else node
        self._until(lambda: self.promoted(node) == node.name, f"{node.name} is promoted", node)
        self._until(lambda: self._answers(asking, node), f"the database on {node.name} answers", node)

    def until_seen(self, node: Node, words: str) -> None:
        """Words are in what a person sees first, `crm_mon` without options, which `pcs status` shows as well."""
        self._until(lambda: re.search(words, node.run("crm_mon -1", check=False)) is not None, f"seen: {words}", node)

    def until_in_sync(self, node: Node) -> None:
        node.run(f"controller wait --state {STATE} --timeout {PATIENCE_S:.0f}", PATIENCE_S + 60)

    def _answers(self, asking: Node, node: Node) -> bool:
        return asking.machine.run(f"psql -h {node.address} -U postgres -tAc 'select 1'", 60, check=False).code == 0

    def _until(self, condition: Callable[[], bool], what: str, node: Node) -> None:
        try:
            wait_until(condition, what, PATIENCE_S, interval_s=5)
        except AssertionError as error:
            seen = node.run(
                "crm_mon -1 -A -f; journalctl -o short --no-pager -t pydbt-data -t pacemaker-controld | tail -40",
                check=False,
            )
            raise AssertionError(f"{error}\n{seen}") from None

    # --- what happens to it -------------------------------------------------------------------------------
    def allow_loss(self, seconds: int) -> None:
        """Change the longest loss without a person; the resource is not restarted for it."""
        self.alpha.run(f"crm_resource -r data --set-parameter max_loss --parameter-value {seconds}s")

    def cut_replication(self, node: Node) -> None:
        """Nothing of the other node reaches the secondary on this one; the cluster's own messages go on."""
        node.run(f"ip route add blackhole {self.other(node).own}/32")

    def boot(self, node: Node) -> None:
        """A node whose power was cut comes back, and joins the cluster."""
        node.machine.boot()
        node.prepare()
        node.join()


class Promises:
    """A client on one node inserts rows into the database on the other, one transaction each, and notes what was answered."""

    def __init__(self, at: Node, database: Node, chance: random.Random) -> None:
        self._at = at
        self._folder = Path(f"/root/promises-{chance.randrange(1 << 30)}")
        psql = f"psql -q -h {database.address} -U postgres"
        at.run(f"{psql} -c 'create table if not exists promised (n bigserial, t timestamptz default now())'")
        self._before = at.count(database)
        insert = f"{psql} -c 'insert into promised default values'"
        script = f"n=0; while {insert}; do n=$((n+1)); echo $n >{self._folder}; sleep 0.2; done"
        self._process = at.machine.spawn(f"sh -c {shlex.quote(script)}", f"{self._folder}.log")
        wait_until(lambda: self.answered > self._before + 3, "rows are written", PATIENCE_S, interval_s=2)

    @property
    def answered(self) -> int:
        """Rows whose commit was answered, with those that were there before."""
        return self._before + int(self._at.run(f"cat {self._folder} 2>/dev/null || echo 0") or 0)

    def end(self) -> None:
        self._at.run(f"kill -- -{self._process}", check=False)
