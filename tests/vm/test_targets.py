"""A target with an array and a volume group inside of it is left alone by a machine that boots again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.lab.patience import wait_until
from tests.vm.kinds import Ability, needs
from tests.vm.machine import IDENTITY, TREE, Machine
from tests.vm.pair import MIB, pair

pytestmark = [needs(Ability.IMAGES), pytest.mark.timeout(4 * 3600)]

BOOTS = 10
PATIENCE_S = 1200.0
HOLD, SECONDARY = "pydbt-hold@data.service", "pydbt-secondary@data.service"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """One that systemd boots, with a disk that has what another machine's volume would bring."""
    with pair({"data": 64 * MIB}, systemd=True) as machines:
        machine = machines.secondary
        disk = machine.device("data")
        machine.run(
            f"printf 'label: gpt\\nsize=24MiB\\nsize=24MiB\\n' | sfdisk -q {disk} && udevadm settle && modprobe raid1 && "
            f"mdadm --quiet --create /dev/md7 --run --level=1 --raid-devices=2 {disk}-part1 missing && mdadm --stop /dev/md7 && "
            f"vgcreate -q foreign {disk}-part2 && lvcreate -q -n volume -l 1 foreign && vgchange -q -an foreign"
        )
        machine.run(f"cp {TREE}/packaging/systemd/*.service /etc/systemd/system/ && systemctl daemon-reload && sync")
        yield machine


def taken(machine: Machine) -> str:
    """What the machine has made of the disk: arrays, mapped volumes, partitions."""
    return machine.run(
        "grep ^md /proc/mdstat; ls /dev/mapper | grep foreign; "
        f"lsblk -rno NAME {machine.device('data')} | tail -n +2; true"
    ).output


def again(machine: Machine) -> str:
    """Reboot; the digest of the disk before it has booted."""
    machine.shut_down()
    digest = hashlib.sha256(machine.disks["data"].path.read_bytes()).hexdigest()
    machine.boot()
    machine.run("systemctl is-system-running --wait", PATIENCE_S, check=False)
    return digest


def test_a_machine_without_rules_takes_what_it_finds(machine: Machine) -> None:
    """Else the next test proves nothing."""
    again(machine)
    assert "foreign" in taken(machine) or "md" in taken(machine)


def test_a_target_is_not_written_and_not_taken_by_ten_boots(machine: Machine) -> None:
    machine.run("vgchange -q -an foreign; mdadm --stop --scan; udevadm settle", check=False)
    lines = (
        "[secondary]",
        f'target = "{machine.device("data")}"',
        f'listen = "{machine.address}:7790"',
        f'identity = "{IDENTITY}"',
    )
    text = "\\n".join(lines)
    machine.run(f"mkdir -p /etc/pydbt/volumes && printf '{text}\\n' >/etc/pydbt/volumes/data.toml")
    assert "first start" in machine.run("controller protect --no-initramfs", PATIENCE_S, check=False).output
    machine.run(f"systemctl enable --now {SECONDARY}", PATIENCE_S)
    assert not is_active(machine, HOLD), "before the first start of the secondary there is nothing to hold"
    said = machine.run("controller protect --no-initramfs", PATIENCE_S, check=False).output
    assert "is left alone" in said
    digests = set()
    for _ in range(BOOTS):
        digests.add(again(machine))
        wait_until(lambda: is_active(machine, SECONDARY), "the secondary listens", PATIENCE_S)
        assert is_active(machine, HOLD) and taken(machine).strip() == "", taken(machine)
        assert machine.run("vgs --noheadings -o vg_name").output.strip() == ""
    assert len(digests) == 1, "something wrote to it"


def test_a_killed_secondary_leaves_the_target_held(machine: Machine) -> None:
    hold, secondary = process_of(machine, HOLD), process_of(machine, SECONDARY)
    machine.run(f"systemctl kill -s KILL {SECONDARY}")
    wait_until(
        lambda: is_active(machine, SECONDARY) and process_of(machine, SECONDARY) != secondary,
        "systemd has started it again",
        PATIENCE_S,
    )
    assert is_active(machine, HOLD) and process_of(machine, HOLD) == hold, "it was the same hold all the time"


def test_a_disk_that_is_no_target_any_more_is_seen_again(machine: Machine) -> None:
    machine.run(f"systemctl disable --now {SECONDARY}; rm /etc/pydbt/volumes/data.toml", PATIENCE_S)
    wait_until(lambda: not is_active(machine, HOLD), "the hold ends with the secondary", PATIENCE_S)
    machine.run("controller protect --no-initramfs && partprobe && udevadm settle", PATIENCE_S)
    assert "foreign" in machine.run("vgs --noheadings -o vg_name").output
    known = machine.run(f"udevadm info {machine.device('data')}").output
    assert "DEVNAME" in known and "PYDBT_TARGET" not in known


def process_of(machine: Machine, unit: str) -> str:
    return machine.run(f"systemctl show -P MainPID {unit}").output.strip()


def is_active(machine: Machine, unit: str) -> bool:
    return machine.run(f"systemctl is-active {unit}", check=False).output.strip() == "active"
