"""After a change of roles and a reboot of both machines each side is in the role of its state, and nothing is compared.

Real boots of systemd, with the units that were enabled before the change, and files that were written for the other roles.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.patience import wait_until
from tests.vm.machine import IDENTITY, Machine
from tests.vm.pair import MIB, Pair, pair
from tests.vm.site import Volume, blocks_that_differ
from tests.vm.units import PATIENCE_S, configure, install_units, journal, shown, start

pytestmark = pytest.mark.timeout(6 * 3600)

SIZE_BYTES = 256 * MIB
PORT = 7790
POINT, MOUNT = "/srv/data", "srv-data.mount"
ARM, GATE, HOLD = "pydbt-arm@data.service", "pydbt-gate@data.service", "pydbt-hold@data.service"
BLOCK_BYTES = 4096
UNMOUNT_BYTES = 8 * MIB


@pytest.fixture(scope="module")
def booted() -> Iterator[Pair]:
    with pair({"data": SIZE_BYTES}, systemd=True) as machines:
        for machine in machines.both:
            install_units(machine)
        yield machines


class Side:
    """A machine with its unit, which stays the same whatever its role is."""

    def __init__(self, machine: Machine, unit: str) -> None:
        self.machine, self.unit = machine, unit

    @property
    def address(self) -> str:
        return f"{self.machine.address}:{PORT}"

    def status(self) -> dict[str, Any]:
        done = self.machine.run("controller status data --json", PATIENCE_S, check=False)
        return json.loads(done.output) if done.code in (0, 9) and done.output.startswith("{") else {}

    def until_role(self, role: str) -> None:
        def is_it() -> bool:
            status = self.status()
            return bool(status.get("running")) and status.get("role") == role

        try:
            wait_until(is_it, f"{self.unit} serves as the {role}", PATIENCE_S, interval_s=2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status()}\n{journal(self.machine, self.unit)}") from None
        assert shown(self.machine, self.unit, "ActiveState") == "active", journal(self.machine, self.unit)

    def until_in_sync(self) -> None:
        """Also where it is started again meanwhile, because the other side is not ready to follow it."""

        def is_in_sync() -> bool:
            return self.machine.run("controller wait data --timeout 300", PATIENCE_S, check=False).code == 0

        try:
            wait_until(is_in_sync, "it is in sync", PATIENCE_S, interval_s=2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status()}\n{journal(self.machine, self.unit)}") from None

    def written(self) -> tuple[int, int]:
        """Writes, and bytes written, by the kernel's own count (Documentation/block/stat.rst)."""
        name = self.machine.run(f"basename $(readlink -f {self.machine.device('data')})").output.strip()
        counts = self.machine.run(f"cat /sys/class/block/{name}/stat").output.split()
        return int(counts[4]) + int(counts[11]), (int(counts[6]) + int(counts[13])) * 512

    def write(self, name: str, chance: random.Random) -> None:
        """To the mounted volume."""
        self.machine.run(
            f"findmnt {POINT} && dd if=/dev/urandom of={POINT}/{name} bs=64K count={chance.randrange(8, 40)} status=none && sync"
        )

    @property
    def is_mounted(self) -> bool:
        return self.machine.run(f"findmnt {POINT}", check=False).code == 0


class Places:
    """*alpha* began as the primary and *beta* as the secondary."""

    def __init__(self, machines: Pair) -> None:
        self.machines = machines
        self.alpha = Side(machines.primary, "pydbt@data.service")
        self.beta = Side(machines.secondary, "pydbt-secondary@data.service")

    def same(self, when: str) -> None:
        """What was waited for is in the journal of the secondary, and comes to its target soon."""
        wait_until(
            lambda: not len(blocks_that_differ(self.machines, Volume("", ((0, SIZE_BYTES),)))),
            f"both disks are the same {when}",
            PATIENCE_S,
        )

    def switch(self, primary: Side) -> None:
        """The volume changes places with its replica, and is mounted on the other machine."""
        primary.until_in_sync()
        primary.machine.run(f"systemctl stop {MOUNT}", PATIENCE_S)
        done = primary.machine.run("controller switchover data --timeout 600", PATIENCE_S, check=False)
        assert done.code == 0, f"{done} {journal(primary.machine, primary.unit)}"

    def reboot_both(self) -> None:
        for side in (self.alpha, self.beta):
            side.machine.reboot()

    def check_after_a_boot(self, primary: Side, secondary: Side, chance: random.Random, when: str) -> None:
        """Each is in its role, the volume is armed, mounted and untainted, and what is compared is what was written."""
        secondary.until_role("secondary")
        primary.until_role("primary")
        wait_until(lambda: primary.is_mounted, f"it is mounted {when}", PATIENCE_S, interval_s=2)
        seen = f"{when}\n{journal(primary.machine, ARM)}\n{journal(primary.machine, primary.unit)}"
        assert shown(primary.machine, ARM, "ActiveState") == shown(secondary.machine, ARM, "ActiveState") == "active", (
            seen
        )
        assert not secondary.is_mounted, "the replica's disk is kept from its own fstab"
        assert shown(secondary.machine, HOLD, "ActiveState") == "active", journal(secondary.machine, HOLD)
        primary.until_in_sync()
        status = primary.status()
        assert (status["tainted"], status["mode"]) == (False, "normal"), f"{status} {seen}"
        requests, size_bytes = primary.written()
        compared = status["statistics"]["compared_bytes"]
        print(f"{when}: {status['statistics']}, {size_bytes} bytes in {requests} writes since the boot")
        # Each write touches its blocks, and one more at each end; the mount and what came before it are among them. The unmount
        # at the shutdown came before the boot: it wrote the superblock and a part of the log.
        assert compared <= size_bytes + 2 * BLOCK_BYTES * requests + UNMOUNT_BYTES, seen
        assert compared < SIZE_BYTES // 4, f"not everything {seen}"
        primary.write("after", chance)
        primary.until_in_sync()
        self.same(when)


@contextmanager
def places(machines: Pair, *, with_tables: bool) -> Iterator[Places]:
    """In sync and armed, with a line of `fstab` on each machine; at the end both machines are empty again.

    ``with_tables``: each file has a table for the other role.
    """
    found = Places(machines)
    alpha, beta = found.alpha, found.beta
    identity = f'identity = "{IDENTITY}"'
    run_too = ("[run]", f'secondary = "{alpha.address}"') if with_tables else ()
    secondary_too = ("[secondary]", f'listen = "{alpha.address}"') if with_tables else ()
    try:
        device = alpha.machine.device("data")
        alpha.machine.run(
            f"mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {device} && udevadm settle", PATIENCE_S
        )
        configure(
            alpha.machine,
            "data",
            "[run]",
            f'source = "{device}"',
            f'secondary = "{beta.address}"',
            identity,
            *secondary_too,
        )
        configure(
            beta.machine, "data", "[secondary]", f'target = "{beta.machine.device("data")}"', f'listen = "{beta.address}"',
            identity, *run_too,
        )  # fmt: skip
        for side in (beta, alpha):
            line = f"{side.machine.device('data')} {POINT} ext4 defaults,_netdev,nofail 0 2"
            side.machine.run(
                f"mkdir -p {POINT} && sed -i '\\,{POINT},d' /etc/fstab && echo '{line}' >>/etc/fstab && "
                f"systemctl daemon-reload && controller configcheck data",
                PATIENCE_S,
            )
            start(side.machine, side.unit)
            side.machine.run(f"systemctl enable {side.unit} {ARM} && systemctl daemon-reload")
            start(side.machine, ARM)
        beta.machine.run("controller protect --no-initramfs", PATIENCE_S)
        alpha.machine.run(f"systemctl start {MOUNT}", PATIENCE_S)
        alpha.until_in_sync()
        yield found
    finally:
        for side in (alpha, beta):
            side.machine.run(
                f"systemctl disable --now {side.unit} {ARM}; systemctl stop {MOUNT} {HOLD}; sed -i '\\,{POINT},d' /etc/fstab; "
                f"controller down data; rm -rf /etc/pydbt/volumes/data.* /var/lib/pydbt/data; "
                f"controller protect --no-initramfs; systemctl reset-failed; systemctl daemon-reload",
                PATIENCE_S, check=False,
            )  # fmt: skip
            side.machine.run(f"udevadm trigger --settle; blkdiscard -f {side.machine.device('data')}", check=False)


@pytest.mark.parametrize("with_tables", [False, True], ids=["by the state alone", "by two tables"])
def test_machines_that_changed_places_boot_in_their_new_roles_and_compare_nothing(
    booted: Pair, with_tables: bool, chance: random.Random
) -> None:
    with places(booted, with_tables=with_tables) as both:
        alpha, beta = both.alpha, both.beta
        alpha.write("one", chance)
        both.switch(alpha)
        beta.until_role("primary")
        alpha.until_role("secondary")
        start(beta.machine, MOUNT)
        beta.write("two", chance)
        beta.until_in_sync()
        for side, role in ((alpha, "secondary"), (beta, "run")):
            told = side.machine.run("controller configcheck data", PATIENCE_S).output
            assert f"it starts as [{role}]" in told, told
            assert side.status()["role_differs"]["words"], side.status()
        both.reboot_both()
        both.check_after_a_boot(beta, alpha, chance, "after the boot in the new roles")
        # And back: the files fit again.
        both.switch(beta)
        alpha.until_role("primary")
        start(alpha.machine, MOUNT)
        alpha.write("three", chance)
        both.reboot_both()
        both.check_after_a_boot(alpha, beta, chance, "after the boot in the roles of the beginning")
        assert "role_differs" not in alpha.status() and "role_differs" not in beta.status()
        listed = alpha.machine.run(f"ls {POINT}").output.split()
        assert {"one", "two", "three", "after"} <= set(listed), listed


def test_after_a_failover_one_command_on_the_old_primary_is_enough_and_a_boot_changes_nothing(
    booted: Pair, chance: random.Random
) -> None:
    """The secondary's unit is the primary's by its second table, at once and after a boot."""
    with places(booted, with_tables=True) as both:
        alpha, beta = both.alpha, both.beta
        alpha.write("one", chance)
        alpha.until_in_sync()
        alpha.machine.power_cut(chance)
        # Refused at first: a moment ago the primary was heard.
        beta.machine.run(
            "for again in 1 2 3 4 5 6 7 8 9; do controller promote data && break; sleep 5; done", PATIENCE_S
        )
        beta.until_role("primary")
        start(beta.machine, MOUNT)
        beta.write("two", chance)
        beta.machine.reboot()
        beta.until_role("primary")
        wait_until(lambda: beta.is_mounted, "it is mounted, since no secondary was promoted", PATIENCE_S, interval_s=2)
        alpha.machine.boot()
        wait_until(
            lambda: shown(alpha.machine, GATE, "ActiveState") == "failed", "the gate is shut", PATIENCE_S, interval_s=2
        )
        assert not alpha.is_mounted and alpha.status().get("role") != "secondary", (
            "a person chooses the side that is kept"
        )
        alpha.machine.run("controller demote data && controller invalidate data", PATIENCE_S)
        start(alpha.machine, alpha.unit)
        alpha.until_role("secondary")
        beta.until_in_sync()
        both.same("after the old primary has become the replica")
        both.reboot_both()
        both.check_after_a_boot(beta, alpha, chance, "after the boot that followed")


def test_a_demoted_side_that_knows_no_address_is_refused_in_one_sentence_that_says_what_to_write(booted: Pair) -> None:
    with places(booted, with_tables=False) as both:
        alpha = both.alpha
        alpha.machine.run(
            f"systemctl stop {MOUNT} && systemctl stop {alpha.unit} && controller demote data", PATIENCE_S
        )
        assert alpha.machine.run(f"systemctl start {alpha.unit}", PATIENCE_S, check=False).code
        words = journal(alpha.machine, alpha.unit)
        assert "data is not started" in words and "add a table [secondary] with listen" in words, words
        assert shown(alpha.machine, alpha.unit, "NRestarts") == "0", "nothing changes by trying again"
        checked = alpha.machine.run("controller configcheck data", PATIENCE_S, check=False)
        assert checked.code == 2 and "add a table [secondary]" in checked.output, checked
        told = alpha.machine.run("controller status data", PATIENCE_S, check=False)
        assert "add a table [secondary]" in told.output + told.errors, told
        lines = f'[secondary]\\nlisten = "{alpha.address}"\\n'
        alpha.machine.run(
            f"printf '{lines}' >>/etc/pydbt/volumes/data.toml && controller configcheck data",
            PATIENCE_S,
        )
        start(alpha.machine, alpha.unit)
        alpha.until_role("secondary")
