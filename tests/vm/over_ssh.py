"""A machine that runs somewhere, and is lent to the tests: driven over ssh, as root or by sudo without a password."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.vm.image import PROJECT
from tests.vm.kinds import Kind
from tests.vm.machine import BOOT_TIMEOUT_S, TREE, Machine, MachineFailure
from tests.vm.qemu import ALARMS

_SETUP_TIMEOUT_S = 1800.0
# Of the machine's kernel log, what comes after this line is of the tests.
_MARK = "pydbt tests begin"
# Nobody has it (RFC 7042, 2.1): what is sent there is lost without a word, as in a cable that was cut.
_NOBODY = "02:00:5e:00:00:01"


@dataclass(frozen=True, slots=True)
class LentDisk:
    """A loop device of the machine's own."""

    size_bytes: int

    @property
    def path(self) -> Path:
        raise MachineFailure("a disk of a machine over ssh is no file of this host: use --on qemu")


@dataclass(frozen=True, slots=True)
class Address:
    """One that a machine has, and the interface that has it."""

    interface: str
    network: ipaddress.IPv4Interface


class SshMachine(Machine):
    """``host`` as ssh knows it; ``sockets`` is a folder with a short name for ssh's shared connection."""

    def __init__(self, name: str, number: int, host: str, config: str, sockets: Path) -> None:
        super().__init__(name, number)
        self.host, self._config, self._control = host, config, sockets / f"{name}.ssh"
        self.disks: Mapping[str, LentDisk] = {}
        self.peer = ""
        self._interface = ""

    @property
    def alive(self) -> bool:
        """As far as this host can tell: its connection breaks when it is gone."""
        return True

    def until_up(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            done = subprocess.run([*self._ssh(), "id -u"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode == 0:
                break
            if time.monotonic() > deadline:
                raise self.failure(f"ssh does not answer: {done.stderr.strip()}")
            time.sleep(1)
        self._sudo = () if done.stdout.strip() == "0" else ("sudo", "-n", "-H")
        asked = self.run("id -u", check=False)
        if asked.code or asked.output.strip() != "0":
            raise self.failure(f"the tests need root there, or sudo without a password: {asked.errors.strip()}")

    # --- lent and given back --------------------------------------------------------------------------------
    def take(self, disks: Mapping[str, int]) -> None:
        """The project and its environment, and empty disks; the machine does nothing else for the program meanwhile."""
        if self.run("command -v rsync >/dev/null", check=False).code:
            self.run("apt-get update -q; apt-get install -q -y rsync", _SETUP_TIMEOUT_S)
        self.run(f"mkdir -p {TREE}")
        self.put_project()
        self.run(f"bash {TREE}/scripts/setup", _SETUP_TIMEOUT_S)
        words = " ".join(f"{name}={size}" for name, size in disks.items())
        self.run(f"bash {TREE}/tests/vm/guest_lend take {words}", timeout=300)
        self.disks = {name: LentDisk(size) for name, size in disks.items()}
        self.run(f"echo '{_MARK}' >/dev/kmsg")

    def close(self) -> None:
        with contextlib.suppress(MachineFailure):
            self.mend_link()
        if self.disks:
            self.run(f"bash {TREE}/tests/vm/guest_lend give-back", timeout=300)
            self.disks = {}
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(self._ssh("-O", "exit"), capture_output=True, timeout=10)

    # --- power ----------------------------------------------------------------------------------------------
    def reboot(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        before = self._boot_id()
        # A moment later: the answer comes before its network goes away.
        self.run("systemd-run --quiet --on-active=1 --timer-property=AccuracySec=100ms systemctl --no-block reboot")
        deadline = time.monotonic() + timeout_s
        while self._boot_id() in ("", before):
            if time.monotonic() > deadline:
                raise self.failure("not in time: it has booted again")
            time.sleep(1)
        self.run(f"echo '{_MARK}' >/dev/kmsg")

    def _boot_id(self) -> str:
        """Empty while it does not answer."""
        with contextlib.suppress(MachineFailure):
            return self.run("cat /proc/sys/kernel/random/boot_id", 30).output.strip()
        return ""

    # --- the link to the other machine ----------------------------------------------------------------------
    def join(self, ours: Address, theirs: Address) -> None:
        """By these addresses each machine knows the other one."""
        self.address, self.peer, self._interface = str(ours.network.ip), str(theirs.network.ip), ours.interface

    def addresses(self) -> list[Address]:
        """Those that could be its one on the link; that by which ssh comes is the last."""
        listed = json.loads(self.run("ip -json -4 address show up scope global").output)
        came_by = subprocess.run(
            [*self._ssh(), "echo $SSH_CONNECTION"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        ).stdout.split()
        found = [
            Address(link["ifname"], ipaddress.IPv4Interface(f"{one['local']}/{one['prefixlen']}"))
            for link in listed
            for one in link["addr_info"]
        ]
        return sorted(found, key=lambda address: str(address.network.ip) in came_by[2:3])

    def cut_link(self) -> None:
        self.run(f"ip neighbour replace {self.peer} lladdr {_NOBODY} nud permanent dev {self._interface}")

    def mend_link(self) -> None:
        if self.peer:
            self.run(f"ip neighbour delete {self.peer} dev {self._interface}", check=False)

    # --- looking --------------------------------------------------------------------------------------------
    def alarms(self) -> list[str]:
        lines = self.run("dmesg").output.splitlines()
        begins = max((number for number, line in enumerate(lines) if _MARK in line), default=-1)
        return [line for line in lines[begins + 1 :] if ALARMS.search(line)]

    def failure(self, what: str) -> MachineFailure:
        return MachineFailure(f"{self.name} ({self.host}): {what}")

    def _after_a_broken_connection(self, doing: str) -> None:
        raise self.failure(f"the connection is gone, or could not be made: {doing}")

    # --- the ways in ----------------------------------------------------------------------------------------
    def _ssh_options(self) -> list[object]:
        options = (
            "BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=8", "LogLevel=ERROR",
            "ControlMaster=auto", f"ControlPath={self._control}", "ControlPersist=600",
        )  # fmt: skip
        config = ["-F", self._config] if self._config else []
        return [*config, *(word for option in options for word in ("-o", option))]

    @property
    def _destination(self) -> str:
        return self.host


def link_of(ours: list[Address], theirs: list[Address]) -> tuple[Address, Address] | None:
    """The first two different addresses in one network."""
    for one in ours:
        for other in theirs:
            if one.network.network == other.network.network and one.network.ip != other.network.ip:
                return one, other
    return None


def lent_pair(kind: Kind, sockets: Path) -> tuple[SshMachine, SshMachine]:
    """Both machines of a kind that ssh reaches, up, and with a link between them."""
    hosts, config = kind.hosts, kind.config
    if kind.name == "vagrant":
        hosts, config = ("primary", "secondary"), str(_vagrant_config(sockets))
    primary, secondary = (
        SshMachine(name, number, host, config, sockets)
        for number, (name, host) in enumerate(zip(("primary", "secondary"), hosts, strict=True), 1)
    )
    for machine in (primary, secondary):
        machine.until_up()
    link = link_of(primary.addresses(), secondary.addresses())
    if link is None:
        raise primary.failure(f"it has no IPv4 network in common with {secondary.host}, so that no link could be cut")
    primary.join(*link)
    secondary.join(*reversed(link))
    return primary, secondary


def _vagrant_config(sockets: Path) -> Path:
    """How Vagrant reaches its machines, in a file for ssh."""
    done = subprocess.run(
        ["vagrant", "ssh-config", "primary", "secondary"], cwd=PROJECT, capture_output=True, text=True, timeout=300
    )  # fmt: skip
    if done.returncode:
        raise MachineFailure(f"Vagrant's machines are not up, or there is no Vagrant: vagrant up\n{done.stderr}")
    path = sockets / "config"
    path.write_text(done.stdout)
    return path
