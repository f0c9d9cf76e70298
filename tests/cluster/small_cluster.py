"""A running cluster of two nodes on this machine: Pacemaker's and corosync's own daemons, each node in namespaces of its own.

A node has its own network, processes, mounts, pinned programs and boot. Its /etc, /usr and /var are overlays whose changes
outlive a power cut. Both share this machine's kernel, and run as fast as it does. They share its /tmp and /dev too: no init
system may be started in one, because it would clear them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.patience import until, wait_until
from tests.lab.programs import ROOT

NAMES = ("alpha", "beta")
PORT = 7790
STATE = "/var/lib/pydbt/data"
PATIENCE_S = 900.0
ACTION_S = 600
# What a busy machine takes to notice and to fence is part of it; a test makes it shorter.
MAX_LOSS_S = 900
_WRITABLE = ("etc", "usr", "var")
# The first process of a node: it takes in what others leave behind.
_FIRST = (
    "import os, time\nwhile True:\n    try:\n        os.wait()\n    except ChildProcessError:\n        time.sleep(0.1)"
)
_BOOT = """set -e
hostname {name}
ip link set lo up
for folder in {writable}; do
    mkdir -p {home}/$folder {home}/work-$folder
    mount -t overlay overlay -o lowerdir=/$folder,upperdir={home}/$folder,workdir={home}/work-$folder /$folder
done
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/resource-agents /run/user
mount -t tmpfs tmpfs /dev/shm
mount -t bpf -o mode=0700 bpf /sys/fs/bpf
# A node that is to end itself at once (Pacemaker's panic) must not end this machine, nor change its settings.
[ ! -e /proc/sysrq-trigger ] || mount --bind /dev/null /proc/sysrq-trigger
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind {home}/boot_id /proc/sys/kernel/random/boot_id
exec {python} -S -c '{first}'
"""
_COROSYNC = """totem {{
    version: 2
    cluster_name: test
    transport: udpu
    token: 20000
    secauth: off
}}
system {{
    sched_rr: no
    move_to_root_cgroup: no
}}
nodelist {{
{nodes}}}
quorum {{
    provider: corosync_votequorum
    two_node: 1
    wait_for_all: 0
}}
logging {{
    to_syslog: no
    to_logfile: yes
    logfile: /var/log/corosync/corosync.log
}}
"""
_FENCE = '''#!{python}
# A fencing agent (Fence Agent API) that asks the test to cut a node's power.
import socket, sys
given = dict(line.strip().split("=", 1) for line in sys.stdin if "=" in line)
action = given.get("action", given.get("option", "off"))
if action == "metadata":
    print("""<?xml version="1.0" ?><resource-agent name="fence_test" shortdesc="The plugs of the test"><longdesc>Plugs</longdesc>
<parameters>
<parameter name="action" required="1"><content type="string" default="off"/><shortdesc lang="en">Action</shortdesc></parameter>
<parameter name="port" required="0"><content type="string"/><shortdesc lang="en">Node</shortdesc></parameter>
</parameters>
<actions><action name="off"/><action name="status"/><action name="monitor"/><action name="metadata"/></actions>
</resource-agent>""")
    sys.exit(0)
if action in ("monitor", "list"):
    sys.exit(0)
with socket.socket(socket.AF_UNIX) as line:
    line.connect("{plugs}")
    line.sendall(f"{{action}} {{given.get('port', given.get('plug', given.get('nodename', '')))}}\\n".encode())
    answer = line.recv(64)
sys.exit({{b"ok": 0, b"on": 0, b"off": 2}}.get(answer.strip(), 1))
'''
_OPERATIONS = "".join(
    f'<op id="data-op-{name}" name="{name}" interval="0" timeout="{ACTION_S}s"/>'
    for name in ("start", "stop", "promote", "demote", "notify")
)
_RESOURCES = f"""<resources>
<primitive id="power" class="stonith" type="fence_test">
  <instance_attributes id="power-attributes">
    <nvpair id="power-hosts" name="pcmk_host_list" value="{" ".join(NAMES)}"/>
    <nvpair id="power-check" name="pcmk_host_check" value="static-list"/>
  </instance_attributes>
</primitive>
<clone id="data-clone">
  <meta_attributes id="data-meta">
    <nvpair id="data-promotable" name="promotable" value="true"/>
    <nvpair id="data-notify" name="notify" value="true"/>
  </meta_attributes>
  <primitive id="data" class="ocf" provider="pydbt" type="volume">
    <instance_attributes id="data-attributes">
      <nvpair id="data-volume" name="volume" value="data"/>
      <nvpair id="data-loss" name="max_loss" value="{MAX_LOSS_S}s"/>
    </instance_attributes>
    <operations>{_OPERATIONS}
      <op id="data-monitor-promoted" name="monitor" interval="10s" role="Promoted" timeout="{ACTION_S}s"/>
      <op id="data-monitor" name="monitor" interval="11s" role="Unpromoted" timeout="{ACTION_S}s"/>
    </operations>
  </primitive>
</clone>
</resources>"""


@dataclass(frozen=True)
class Done:
    code: int
    output: str
    errors: str


class SmallNode:
    """``home`` has what outlives a power cut; ``device`` is its disk."""

    def __init__(self, name: str, number: int, home: Path, device: str, switch: int) -> None:
        self.name, self.address, self.home, self.device, self._switch = name, f"10.78.0.{number}", home, device, switch
        self._holder: subprocess.Popen[bytes] | None = None
        self._first = 0

    @property
    def alive(self) -> bool:
        return self._holder is not None and self._holder.poll() is None

    def boot(self) -> None:
        """As after power on: nothing runs, and it is another boot."""
        assert not self.alive
        self.home.mkdir(exist_ok=True)
        (self.home / "boot_id").write_text(f"{uuid.uuid4()}\n")
        script = _BOOT.format(
            name=self.name, home=self.home, writable=" ".join(_WRITABLE), python=sys.executable, first=_FIRST
        )
        log = (self.home / "boot.log").open("ab")
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
             "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        until(self._is_up, f"{self.name} has booted: {self.home / 'boot.log'}", PATIENCE_S)
        card = f"pn{self.name[:4]}{os.getpid()}"[:15]
        _run(
            *_at(self._switch),
            "ip",
            "link",
            "add",
            card,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            str(self._first),
        )
        _run(*_at(self._switch), "ip", "link", "set", card, "master", "switch", "up")
        self.shell(f"ip address add {self.address}/24 dev eth0 && ip link set eth0 up")

    def _is_up(self) -> bool:
        assert self._holder is not None and self._holder.poll() is None, (self.home / "boot.log").read_text()
        place = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        for number in place.read_text().split():
            with contextlib.suppress(OSError):
                # The shell before it has the same words; until it is replaced, not every place is the node's own.
                words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
                if words[0] == os.fsencode(sys.executable) and any(b"os.wait" in word for word in words):
                    self._first = int(number)
                    return True
        return False

    def power_cut(self) -> None:
        """Everything that runs there is killed at once."""
        if self._holder is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._first or self._holder.pid, signal.SIGKILL)
            self._holder.kill()
            self._holder.wait()
            self._first = 0

    def run(self, *words: object, check: bool = True, timeout_s: float = PATIENCE_S) -> Done:
        assert self._first, f"{self.name} is off"
        done = subprocess.run(
            [*_at(self._first), *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=timeout_s, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return Done(done.returncode, done.stdout, done.stderr)

    def shell(self, text: str, check: bool = True) -> Done:
        return self.run("sh", "-c", text, check=check)

    def start(self, command: str, log: str) -> None:
        """In the background, until its end or the node's."""
        self.shell(f"setsid -f {command} >{self.home}/{log} 2>&1 </dev/null")

    def join(self) -> None:
        """The cluster's daemons."""
        self.shell("mkdir -p /var/log/corosync /run/crm && chown hacluster:haclient /run/crm")
        self.start("corosync -f", "corosync.log")
        until(
            lambda: self.run("corosync-cmapctl", "runtime.members", check=False).code == 0, "corosync runs", PATIENCE_S
        )
        self.start("env PCMK_logfacility=none pacemakerd -f", "pacemaker.log")

    def seen(self) -> str:
        """What a person sees first."""
        done = self.run("crm_mon", "-1", check=False)
        return done.output + done.errors

    def status(self) -> str:
        """`controller status`, whatever its exit code."""
        done = self.run("controller", "status", check=False)
        return done.output + done.errors


class SmallCluster:
    """``fenced``: the names of nodes whose power was cut by fencing, in that order."""

    def __init__(self, folder: Path, devices: tuple[str, str], switch: int) -> None:
        self.nodes = tuple(
            SmallNode(name, number, folder / name, device, switch)
            for number, (name, device) in enumerate(zip(NAMES, devices, strict=True), 1)
        )
        self.fenced: list[str] = []
        self._folder, self._plugs = folder, socket.socket(socket.AF_UNIX)
        self._plugs.bind(str(folder / "plugs.sock"))
        self._plugs.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def both(self) -> tuple[SmallNode, SmallNode]:
        return self.nodes[0], self.nodes[1]

    def close(self) -> None:
        for node in self.nodes:
            node.power_cut()
        self._plugs.close()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._plugs.accept()
            except OSError:
                return
            with line:
                action, _, name = line.recv(256).decode(errors="replace").strip().partition(" ")
                node = next((one for one in self.nodes if one.name == name), None)
                if action in ("off", "reboot") and node is not None:
                    node.power_cut()
                    self.fenced.append(name)
                    line.sendall(b"ok")
                elif action == "status" and node is not None:
                    line.sendall(b"on" if node.alive else b"off")

    # --- as docs/operating/pacemaker.md has it --------------------------------------------------------------
    def set_up(self) -> None:
        """Both files, the first copy by hand, whose content counts, and the cluster."""
        alpha, beta = self.both
        nodes = "".join(
            f"    node {{\n        ring0_addr: {one.address}\n        name: {one.name}\n        nodeid: {number}\n    }}\n"
            for number, one in enumerate(self.nodes, 1)
        )
        for node, other in ((alpha, beta), (beta, alpha)):
            node.boot()
            self._put(node, "/etc/corosync/corosync.conf", _COROSYNC.format(nodes=nodes))
            self._put(
                node,
                "/usr/sbin/fence_test",
                _FENCE.format(python=sys.executable, plugs=self._folder / "plugs.sock"),
                0o755,
            )
            program = f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m pydbt.cli.main "$@"\n'
            self._put(node, "/usr/bin/controller", program, 0o755)
            agent = (ROOT / "packaging/pacemaker/volume").read_text()
            self._put(node, "/usr/lib/ocf/resource.d/pydbt/volume", agent, 0o755)
            for role, text in (
                ("run", f'source = "{node.device}"\nsecondary = "{other.address}:{PORT}"\nno-gate = true\n'),
                ("secondary", f'target = "{node.device}"\nlisten = "{node.address}:{PORT}"\n'),
            ):
                self._put(node, f"/etc/pydbt/cluster/{role}/data.toml", f"[{role}]\n{text}insecure = true\n")
        words = f"--state {STATE} --insecure"
        beta.shell(f"mkdir -p {STATE}")
        alpha.shell(f"mkdir -p {STATE}")
        beta.start(f"controller secondary {beta.device} --listen {beta.address}:{PORT} {words}", "first.log")
        alpha.start(
            f"controller run {alpha.device} --secondary {beta.address}:{PORT} {words} --whole-device --no-gate",
            "first.log",
        )
        until(
            lambda: alpha.run("controller", "status", "--state", STATE, check=False).code == 0, "alpha runs", PATIENCE_S
        )
        self.until_in_sync(alpha)
        assert '"mode": "normal"' in alpha.run("controller", "status", "--state", STATE, "--json").output
        for node in (alpha, beta):
            node.run("controller", "down", "--state", STATE)
            node.join()
        self.until(lambda: self.online() == set(NAMES), "both are online")
        alpha.run("controller", "cluster", "choose", "data")
        for name, value in (("stonith-enabled", "true"), ("stonith-action", "off"), ("stonith-timeout", "600s")):
            alpha.run("crm_attribute", "-n", name, "-v", value)
        alpha.run("cibadmin", "--replace", "--scope", "resources", "--xml-text", _RESOURCES)
        self.until(lambda: self.promoted() == "alpha", "alpha is promoted")

    @staticmethod
    def _put(node: SmallNode, place: str, text: str, mode: int = 0o644) -> None:
        node.shell(
            f"mkdir -p {shlex.quote(os.path.dirname(place))} && printf %s {shlex.quote(text)} >{place} && chmod {mode:o} {place}"
        )

    def until_in_sync(self, node: SmallNode) -> None:
        node.run("controller", "wait", "--state", STATE, "--timeout", f"{PATIENCE_S:.0f}", timeout_s=PATIENCE_S + 60)

    # --- looking --------------------------------------------------------------------------------------------
    def _looker(self) -> SmallNode:
        return next(one for one in self.nodes if one.alive)

    def online(self) -> set[str]:
        match = re.search(r"Online: \[ (.*?) \]", self._looker().seen())
        return set(match[1].split()) if match else set()

    def promoted(self) -> str:
        match = re.search(r"(?:Promoted|Masters): \[ (\w+) \]", self._looker().seen())
        return match[1] if match else ""

    def until(self, condition: object, what: str) -> None:
        assert callable(condition)
        try:
            wait_until(condition, what, PATIENCE_S, interval_s=1)
        except AssertionError as error:
            told = [
                f"{node.name}:\n{node.run('crm_mon', '-1', '-A', '-f', check=False).output}"
                for node in self.nodes
                if node.alive
            ]
            raise AssertionError("\n".join([str(error), *told])) from None


@contextlib.contextmanager
def small_cluster(folder: Path, size_bytes: int) -> Iterator[SmallCluster]:
    """Set up, with alpha promoted; nothing of it is left at the end."""
    devices: list[str] = []
    switch = subprocess.Popen(
        [
            "unshare",
            "--net",
            "sh",
            "-c",
            "ip link add switch type bridge && ip link set switch up && exec sleep infinity",
        ],
        stdin=subprocess.DEVNULL,
    )
    made = None
    try:
        for name in NAMES:
            image = folder / f"{name}.img"
            image.write_bytes(b"")
            os.truncate(image, size_bytes)
            devices.append(_run("losetup", "--find", "--show", str(image)).strip())
        until(
            lambda: Path(f"/proc/{switch.pid}/comm").read_text().strip() == "sleep", "the switch is there", PATIENCE_S
        )
        made = SmallCluster(folder, (devices[0], devices[1]), switch.pid)
        made.set_up()
        yield made
    finally:
        if made is not None:
            made.close()
        switch.kill()
        switch.wait()
        for device in devices:
            subprocess.run(["losetup", "--detach", device], timeout=60, check=False)


def _at(process: int) -> list[str]:
    words = ["nsenter", "-t", str(process), "--net"]
    pid = Path(f"/proc/{process}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
    return [*words, "--mount", "--uts", "--ipc", "--pid"] if pid else words


def _run(*words: str) -> str:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout
