"""The Debian package under systemd: a pair that runs is upgraded without a gap, and what goes on is not removed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.images import differing_blocks
from tests.lab.patience import StepFailed, wait_until
from tests.packages.package import build, built, copy_of_the_tree, field
from tests.vm.kinds import Ability, needs
from tests.vm.machine import IDENTITY, Machine
from tests.vm.pair import MIB, Pair, pair

pytestmark = [needs(Ability.ANEW), pytest.mark.packages, pytest.mark.timeout(4 * 3600)]

SIZE_BYTES = 64 * MIB
# The load writes here and nowhere else: whatever more is compared was not written.
WRITTEN_BYTES = 4 * MIB
BLOCK_BYTES = 4096
PORT = 7790
PRIMARY, SECONDARY, HOLD = "pydbt@data.service", "pydbt-secondary@data.service", "pydbt-hold@data.service"
# Of an emulated machine: each start of the program takes seconds, and beside other work a minute.
PATIENCE_S = 1200.0
OLD_VERSION = "0.0.1"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the same program with a version before this one."""
    tree = copy_of_the_tree(tmp_path_factory.mktemp("older"))
    place = tree / "pydbt/version.py"
    text, changed = re.subn(r'^VERSION = ".*"$', f'VERSION = "{OLD_VERSION}"', place.read_text(), flags=re.MULTILINE)
    assert changed == 1
    place.write_text(text)
    return build(tree, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def installed(older: Path) -> Iterator[Pair]:
    """Two machines with the older package; a volume and its replica are configured, and their units enabled and started."""
    with pair({"data": SIZE_BYTES}, systemd=True) as machines:
        address = f"{machines.secondary.address}:{PORT}"
        for machine, table, place, peer in (
            (machines.secondary, "secondary", "target", "listen"),
            (machines.primary, "run", "source", "secondary"),
        ):
            # What scripts/guest made is an earlier installation.
            machine.run("rm -f /usr/local/bin/controller /usr/local/bin/pydbt")
            machine.put(older, "/root/older.deb")
            machine.put(built(), "/root/newer.deb")
            machine.run("dpkg -i /root/older.deb", PATIENCE_S)
            text = "\\n".join(
                (
                    f"[{table}]",
                    f'{place} = "{machine.device("data")}"',
                    f'{peer} = "{address}"',
                    f'identity = "{IDENTITY}"',
                )
            )
            machine.run(f"mkdir -p /etc/pydbt/volumes && printf '{text}\\n' >/etc/pydbt/volumes/data.toml")
        enable(machines.secondary, SECONDARY)
        enable(machines.primary, PRIMARY)
        yield machines


def enable(machine: Machine, unit: str) -> None:
    """Without a wait for the start, which would hide why it does not come."""
    machine.run(f"systemctl enable {unit} && systemctl start --no-block {unit}")
    try:
        wait_until(lambda: is_active(machine, unit), f"{unit} is ready", PATIENCE_S)
    except StepFailed as error:
        raise AssertionError(f"{error}\n{journal(machine, unit)}") from None


def is_active(machine: Machine, unit: str) -> bool:
    return machine.run(f"systemctl is-active {unit}", check=False).output.strip() == "active"


def journal(machine: Machine, unit: str) -> str:
    return machine.run(f"journalctl -o cat --no-pager -u {unit} | tail -n 80").output


def process_of(machine: Machine, unit: str) -> str:
    return machine.run(f"systemctl show --value -p MainPID {unit}").output.strip()


def status(machine: Machine) -> dict[str, Any]:
    done = machine.run("controller status data --json", PATIENCE_S, check=False)
    return json.loads(done.output) if done.code == 0 else {}


def until_in_sync(machines: Pair) -> None:
    done = machines.primary.run(f"controller wait data --timeout {PATIENCE_S}", PATIENCE_S + 60, check=False)
    assert done.code == 0, f"{done} {journal(machines.primary, PRIMARY)}"


# Says "free" when it could have the device for itself: then nobody holds it.
_TRY = """
import os, sys, time
while True:
    try:
        os.close(os.open(sys.argv[1], os.O_RDONLY | os.O_EXCL))
        print("free", flush=True)
    except OSError:
        print("held", flush=True)
    time.sleep(0.05)
"""


def upgrade(machine: Machine, unit: str) -> None:
    """Install the newer package, and be back when its controller is the one that runs."""
    before = process_of(machine, unit)
    said = machine.run("dpkg -i /root/newer.deb", PATIENCE_S).output
    assert f"{unit} is started anew" in said, said
    wait_until(lambda: process_of(machine, unit) not in ("0", before), "its controller is another one", PATIENCE_S)
    wait_until(lambda: is_active(machine, unit), "it is ready", PATIENCE_S)


def test_an_upgrade_of_both_sides_under_load_leaves_no_gap_and_compares_nothing_that_was_not_written(
    installed: Pair,
) -> None:
    primary, secondary = installed.both
    until_in_sync(installed)
    assert primary.run("controller --version").output.split()[1] == OLD_VERSION
    block = f"bs={BLOCK_BYTES} count=1 seek=$((RANDOM % {WRITTEN_BYTES // BLOCK_BYTES})) oflag=direct conv=notrunc"
    load = f"bash -c 'while :; do dd if=/dev/urandom of={primary.device('data')} {block} status=none; done'"
    writer = primary.spawn(load, "/tmp/writer.log")
    # Its record names the target now, so that there is something to hold.
    secondary.run(f"systemctl restart {SECONDARY}", PATIENCE_S)
    wait_until(lambda: is_active(secondary, HOLD), "the target is held beside it", PATIENCE_S)
    held_by = process_of(secondary, HOLD)
    tries = secondary.spawn(f"python3 -c {shlex.quote(_TRY)} {secondary.device('data')}", "/tmp/tries.log")
    upgrade(secondary, SECONDARY)
    until_in_sync(installed)
    secondary.run(f"kill {tries}")
    found = secondary.run("sort /tmp/tries.log | uniq -c").output
    assert "held" in found and "free" not in found, f"the target was let go of by the upgrade: {found}"
    assert process_of(secondary, HOLD) == held_by != "0", "it is the same hold"
    upgrade(primary, PRIMARY)
    until_in_sync(installed)
    primary.run(f"kill {writer}; while kill -0 {writer} 2>/dev/null; do sleep 0.1; done")
    until_in_sync(installed)
    version = field(built(), "Version").partition("+")[0].partition("-")[0]
    for machine in installed.both:
        assert machine.run("controller --version").output.split()[1] == version
    told = status(primary)
    assert told["tainted"] is False and told["replica_state"] == "up-to-date", told
    assert told["audit"]["verdict"] == "agrees" and told["lost_records"] == 0, told
    assert told["statistics"]["compared_bytes"] <= WRITTEN_BYTES, told["statistics"]
    assert "their programs are taken over" in journal(primary, PRIMARY)
    source, replica = (machine.disks["data"].path for machine in installed.both)
    wait_until(
        lambda: not list(differing_blocks(source, replica, SIZE_BYTES, direct=False)),
        "the target is the volume",
        PATIENCE_S,
    )


def test_a_running_unit_is_not_removed_and_a_purge_leaves_nothing_but_the_data(installed: Pair) -> None:
    for machine, unit in ((installed.primary, PRIMARY), (installed.secondary, SECONDARY)):
        refused = machine.run("dpkg --purge pydbt", PATIENCE_S, check=False)
        assert refused.code and f"unit {unit}" in refused.errors, refused
        assert is_active(machine, unit)
    primary = installed.primary
    until_in_sync(installed)
    primary.run(f"systemctl disable --now {PRIMARY}", PATIENCE_S)
    tracked = primary.run("dpkg --purge pydbt", PATIENCE_S, check=False)
    assert tracked.code and "programs in the kernel that track writes" in tracked.errors, tracked
    primary.run("controller down --all", PATIENCE_S)
    installed.secondary.run(f"systemctl disable --now {SECONDARY} && systemctl stop pydbt-hold@data", PATIENCE_S)
    installed.secondary.run(
        "controller secondary data --replay-only && sync", PATIENCE_S
    )  # what it has acknowledged is on its target
    for machine in installed.both:
        machine.run("dpkg --purge pydbt", PATIENCE_S)
        places = "/sys/fs/bpf/pydbt /run/pydbt /var/lib/pydbt /var/cache/pydbt /etc/pydbt /usr/share/pydbt /usr/bin/controller"
        assert not machine.run(f"ls -d {places} 2>/dev/null", check=False).output
        assert not machine.run("ls /etc/systemd/system/*.wants/pydbt*@* 2>/dev/null", check=False).output
        assert not machine.run("pgrep -f /usr/bin/controller", check=False).output
    source, replica = (machine.disks["data"].path for machine in installed.both)
    assert not list(differing_blocks(source, replica, SIZE_BYTES, direct=False))
