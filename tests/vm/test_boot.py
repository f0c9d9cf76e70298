"""A machine that reboots compares nothing but what was written, and each link of the chain that is broken is named.

Real boots of systemd: the generator orders the arming before check and mount, the shutdown writes the closing record after the
unmount. PYDBT_REBOOTS is the number of reboots for each kind of volume.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.patience import wait_until
from tests.vm.machine import IDENTITY, TREE, Machine
from tests.vm.pair import MIB, Pair, pair
from tests.vm.site import Volume, blocks_that_differ, make_volume, take_volume_down
from tests.vm.units import PATIENCE_S, configure, install_units, journal, shown, start

REBOOTS = int(os.environ.get("PYDBT_REBOOTS") or 3)
pytestmark = pytest.mark.timeout(4 * 3600 + 1800 * REBOOTS)

PORT = 7790
POINT, MOUNT = "/srv/data", "srv-data.mount"
RUN, ARM, SECONDARY = "pydbt@data.service", "pydbt-arm@data.service", "pydbt-secondary@data.service"
GATE = "pydbt-gate@data.service"
LABEL = "volume"
BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Line:
    """A volume and how `fstab` names it; "UUID" and "PARTUUID" stand for its own. ``gated``: its secondary is asked first."""

    kind: str
    filesystem: str
    spec: str
    gated: bool = False

    @property
    def options(self) -> str:
        return "defaults,_netdev" if self.gated else "defaults"


LINES = [
    Line("partition", "ext4", "UUID"),
    Line("lvm", "xfs", "/dev/group/volume"),
    Line("partition", "xfs", "PARTUUID"),
    Line("lvm", "ext4", f"LABEL={LABEL}", gated=True),
]


@pytest.fixture(scope="module")
def booted() -> Iterator[Pair]:
    """Two machines that systemd has booted, with the units and the generator."""
    with pair({"data": 512 * MIB}, systemd=True) as machines:
        for machine in machines.both:
            install_units(machine)
        yield machines


class Chain:
    """One volume that is in `fstab`, armed at boot, and replicated when its unit is started."""

    def __init__(self, machines: Pair, volume: Volume) -> None:
        self.machines, self.volume = machines, volume
        self.primary, self.secondary = machines.both

    def in_fstab(self, spec: str, options: str = "defaults") -> None:
        """The volume's only line."""
        kind = self.primary.run(f"blkid -s TYPE -o value {self.volume.path}").output.strip()
        if spec in ("UUID", "PARTUUID"):
            spec = f"{spec}={self.primary.run(f'blkid -s {spec} -o value {self.volume.path}').output.strip()}"
        self.primary.run(
            f"sed -i '\\,{POINT},d' /etc/fstab && echo '{spec} {POINT} {kind} {options} 0 2' >>/etc/fstab && "
            f"systemctl daemon-reload"
        )

    def replicate(self) -> None:
        """The run is started by hand, so that what was tracked before it can be looked at."""
        start(self.primary, RUN)
        done = self.primary.run(f"controller wait data --timeout {PATIENCE_S}", PATIENCE_S + 60, check=False)
        assert done.code == 0, f"{done} {journal(self.primary, RUN)}"

    def status(self) -> dict[str, Any]:
        """What the controller answers, or what was kept when none runs."""
        done = self.primary.run("controller status data --json", PATIENCE_S, check=False)
        assert done.code in (0, 9), done
        return json.loads(done.output)

    def compare(self, when: str) -> None:
        self.primary.run("sync")
        done = self.primary.run(f"controller wait data --timeout {PATIENCE_S}", PATIENCE_S + 60, check=False)
        assert done.code == 0, done
        wait_until(
            lambda: not len(blocks_that_differ(self.machines, self.volume)),
            f"the target is the volume {when}",
            PATIENCE_S,
        )

    def written(self) -> tuple[int, int]:
        """Writes, and bytes written, by the kernel's own count (Documentation/block/stat.rst)."""
        name = self.primary.run(f"basename $(readlink -f {self.volume.path})").output.strip()
        counts = self.primary.run(f"cat /sys/class/block/{name}/stat").output.split()
        return int(counts[4]) + int(counts[11]), (int(counts[6]) + int(counts[13])) * 512

    def start_load(self, chance: random.Random) -> None:
        """A unit, which the shutdown ends before it unmounts what the load writes to."""
        program = f"{TREE}/.venv/bin/python -m tests.vm.guest_load {POINT} {chance.randrange(1 << 30)} /run/progress"
        self.primary.run(
            f"rm -f /run/progress; systemd-run --quiet --unit=load -p WorkingDirectory={TREE} "
            f"-p RequiresMountsFor={POINT} {program}"
        )
        self.until_load_writes()

    def until_load_writes(self) -> None:
        def steps() -> int:
            done = self.primary.run("cat /run/progress", check=False)
            return json.loads(done.output)["steps"] if done.code == 0 else 0

        wait_until(lambda: steps() > 5, "the load writes", PATIENCE_S, interval_s=1.0)

    def until_mounted(self) -> None:
        """After a boot. What needs the network is mounted after ssh answers."""

        def is_mounted() -> bool:
            return all(shown(self.primary, unit, "ActiveState") == "active" for unit in (ARM, MOUNT))

        try:
            wait_until(is_mounted, "armed and mounted", PATIENCE_S, interval_s=1.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{orders(self.primary)}\n{journal(self.primary, ARM)}") from None

    def stop_load(self) -> None:
        self.primary.run("systemctl stop load", PATIENCE_S)

    def end_cleanly(self) -> None:
        """Run ended, unmounted, closing record written: as a shutdown does it, by hand."""
        self.primary.run(f"systemctl stop {RUN} && systemctl stop {MOUNT} && systemctl stop {ARM}", PATIENCE_S)


def orders(machine: Machine) -> str:
    return machine.run(
        f"systemctl cat {ARM}; journalctl -k -o cat --no-pager | grep pydbt-generator", check=False
    ).output


@contextlib.contextmanager
def replicated(machines: Pair, line: Line) -> Iterator[Chain]:
    """In sync, and armed once, so that a boot finds its programs compiled; at the end both machines are empty again."""
    primary, secondary = machines.both
    volume = make_volume(primary, line.kind)
    chain = Chain(machines, volume)
    address = f"{secondary.address}:{PORT}"
    try:
        quick = "-q -f" if line.filesystem == "xfs" else "-q -F -E lazy_itable_init=0,lazy_journal_init=0"
        primary.run(
            f"mkfs.{line.filesystem} {quick} -L {LABEL} {volume.path} && udevadm settle && mkdir -p {POINT}", PATIENCE_S
        )
        identity = f'identity = "{IDENTITY}"'
        gate = () if line.gated else ("no-gate = true",)
        configure(primary, "data", "[run]", f'source = "{volume.path}"', f'secondary = "{address}"', identity, *gate)
        configure(
            secondary,
            "data",
            "[secondary]",
            f'target = "{secondary.device("data")}"',
            f'listen = "{address}"',
            identity,
        )
        start(secondary, SECONDARY)
        secondary.run(f"systemctl enable {SECONDARY}")
        chain.in_fstab(line.spec, line.options)
        primary.run(f"systemctl start {MOUNT}")
        chain.replicate()
        primary.run(
            f"systemctl stop {RUN} && systemctl stop {MOUNT} && controller disarm data && controller configcheck",
            PATIENCE_S,
        )
        primary.run(f"systemctl daemon-reload && systemctl enable {ARM} && systemctl daemon-reload")
        start(primary, ARM)
        primary.run(f"systemctl start {MOUNT}")
        chain.replicate()
        yield chain
    finally:
        primary.run(
            f"systemctl stop load {RUN}; systemctl unmask {ARM}; systemctl disable {ARM}; systemctl stop {MOUNT}; "
            f"sed -i '\\,{POINT},d' /etc/fstab; controller down data; rm -rf /etc/pydbt/volumes /var/lib/pydbt/data; "
            f"systemctl stop {ARM}; systemctl reset-failed; systemctl daemon-reload",
            PATIENCE_S, check=False,
        )  # fmt: skip
        secondary.run(
            f"systemctl disable --now {SECONDARY}; rm -rf /etc/pydbt/volumes /var/lib/pydbt/data",
            PATIENCE_S,
            check=False,
        )
        take_volume_down(primary, line.kind)
        secondary.run(f"blkdiscard -f {secondary.device('data')}")


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.kind}-{line.filesystem}")
def test_reboots_under_load_compare_what_was_written_and_nothing_else(
    booted: Pair, line: Line, chance: random.Random
) -> None:
    with replicated(booted, line) as chain:
        primary = chain.primary
        for turn in range(REBOOTS):
            chain.start_load(chance)
            primary.reboot()
            chain.until_mounted()
            seen = f"reboot {turn}\n{orders(primary)}\n{journal(primary, ARM)}"
            assert int(shown(primary, ARM, "ActiveEnterTimestampMonotonic")) <= int(
                shown(primary, MOUNT, "InactiveExitTimestampMonotonic")
            ), seen
            before = chain.written()
            status = chain.status()
            assert (status["mode"], status["tainted"], status["armed"]["broken"]) == ("armed", False, ""), (
                f"{status} {seen}"
            )
            known = status["out_of_sync_bytes"]
            chain.replicate()
            after = chain.written()
            statistics = chain.status()["statistics"]
            # The mounted file system may write at any moment: each write touches its blocks, and one more at each end.
            later = after[1] - before[1] + 2 * BLOCK_BYTES * (after[0] - before[0])
            print(f"reboot {turn}: {known} bytes out of sync, {statistics}, at most {later} bytes written since")
            assert statistics["copied_bytes"] <= statistics["compared_bytes"] <= known + later, seen
            assert known < chain.volume.size_bytes // 2, "not everything"
            chain.compare(f"after reboot {turn}")


def masked(chain: Chain) -> None:
    chain.primary.run(f"systemctl mask {ARM}")
    chain.primary.reboot()


def mounted_by_hand(chain: Chain) -> None:
    chain.end_cleanly()
    chain.in_fstab("UUID", "noauto")
    chain.primary.run(f"systemctl disable {ARM}")
    chain.primary.reboot()
    chain.primary.run(f"mount {POINT}")
    chain.primary.run(f"systemctl enable {ARM}")
    start(chain.primary, ARM)


def booted_between(chain: Chain) -> None:
    chain.end_cleanly()
    chain.primary.run(f"systemctl disable {ARM}")
    chain.primary.reboot()
    chain.primary.run(f"systemctl enable {ARM}")
    chain.primary.reboot()


def by_an_unknown_name(chain: Chain) -> None:
    chain.end_cleanly()
    chain.primary.run("rm /etc/pydbt/volumes/data.names")
    chain.in_fstab(f"LABEL={LABEL}")
    chain.primary.reboot()


LINKS: dict[Callable[[Chain], None], str] = {
    masked: f"{ARM} is masked",
    mounted_by_hand: "the device was in use already",
    booted_between: "the file system was written after the closing record",
    by_an_unknown_name: f"{POINT} in /etc/fstab names LABEL={LABEL}, by which the volume was not known",
}


@pytest.mark.parametrize("break_it", LINKS, ids=lambda link: link.__name__)
def test_each_broken_link_taints_the_volume_and_the_status_names_it(
    booted: Pair, break_it: Callable[[Chain], None]
) -> None:
    with replicated(booted, LINES[0]) as chain:
        break_it(chain)
        chain.secondary.run(
            f"systemctl stop {SECONDARY}", PATIENCE_S
        )  # so that the comparison does not end before the look
        if break_it is not masked:
            assert LINKS[break_it] in chain.status()["armed"]["broken"], (
                f"{chain.status()}\n{journal(chain.primary, ARM)}"
            )
        start(chain.primary, RUN)
        status = chain.status()
        assert status["tainted"] and LINKS[break_it] in json.dumps(status["taints"]), status
        start(chain.secondary, SECONDARY)
        # Only what is active writes a closing record at the shutdown; for the others this changes nothing.
        chain.primary.run(f"systemctl unmask {ARM}; systemctl enable --now {ARM}", PATIENCE_S)
        chain.replicate()
        assert chain.status()["statistics"]["compared_bytes"] > chain.volume.size_bytes // 2
        chain.compare(f"after {break_it.__name__}")
        chain.primary.reboot()
        assert chain.status()["armed"]["broken"] == "", f"the next chain is whole\n{journal(chain.primary, ARM)}"


def test_an_old_primary_that_boots_after_a_failover_writes_no_byte_there_and_says_what_to_do(
    booted: Pair, chance: random.Random
) -> None:
    """Its power is cut while its file system is written, so that check and mount would replay a journal."""
    with replicated(booted, LINES[-1]) as chain:
        primary, secondary = booted.both
        chain.start_load(chance)
        primary.run("sync")
        primary.power_cut(chance)
        # Refused at first: a moment ago the primary was heard.
        secondary.run("for again in 1 2 3 4 5 6 7 8 9; do controller promote data && break; sleep 5; done", PATIENCE_S)
        assert shown(secondary, SECONDARY, "ActiveState") == "active", "it goes on, and answers the old primary"
        before = content(primary)
        primary.boot()
        wait_until(
            lambda: shown(primary, GATE, "ActiveState") == "failed", "the gate is shut", PATIENCE_S, interval_s=2
        )
        primary.run("systemctl is-system-running --wait", PATIENCE_S, check=False)
        assert shown(primary, GATE, "ExecMainStatus") == "12", journal(primary, GATE)
        assert primary.run(f"systemctl start {MOUNT}", PATIENCE_S, check=False).code, "nor does a later start mount it"
        assert primary.run(f"findmnt {POINT}", check=False).code
        said = primary.run("controller status data", PATIENCE_S, check=False)
        words = said.output + said.errors
        assert "MUST NOT BE MOUNTED HERE" in words and "controller demote" in words, said
        primary.run("sync")
        assert content(primary) == before, "something was written on the old primary"


def content(machine: Machine) -> str:
    """A digest of its disk ``data``."""
    return hashlib.sha256(machine.disks["data"].path.read_bytes()).hexdigest()
