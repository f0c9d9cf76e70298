"""The lines of docs/operating/first-disk.md, run by a program on two bare machines: they are what they promise."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.lab.patience import wait_until
from tests.packages.package import built
from tests.vm.image import PROJECT
from tests.vm.kinds import Ability, needs
from tests.vm.machine import Machine
from tests.vm.pair import MIB, Pair, pair
from tests.vm.site import Volume, blocks_that_differ
from tests.vm.units import PATIENCE_S, journal

pytestmark = [needs(Ability.ANEW), pytest.mark.packages, pytest.mark.timeout(3600)]

DOCUMENT = PROJECT / "docs/operating/first-disk.md"
SIZE_BYTES = 64 * MIB
ADDRESS = "10.0.0.2"
HEADING = re.compile(r"^## (\d)\. On (both|alpha|beta): (.*)$", re.MULTILINE)
COPY = re.compile(r"^scp (\S+) root@10\.0\.0\.2:(\S+)$", re.MULTILINE)


def steps() -> list[tuple[str, str, str]]:
    """Of each step: which machine, what it is about, and its lines as one script."""
    parts = HEADING.split(DOCUMENT.read_text())[1:]
    found = []
    for _, who, what, body in zip(*[iter(parts)] * 4, strict=True):
        lines = re.findall(r"^    (.*)$", body.partition("\n## ")[0], re.MULTILINE)
        found.append((who, what, "\n".join(line.removeprefix("sudo ") for line in lines)))
    return found


@pytest.fixture(scope="module")
def bare() -> Iterator[Pair]:
    """Two machines with the package in root's folder, and not installed."""
    with pair({"data": SIZE_BYTES}, systemd=True, compile_there=True) as machines:
        for machine in machines.both:
            machine.run("rm -f /usr/local/bin/controller /usr/local/bin/pydbt")
            machine.put(built(), f"/root/{built().name}")
            machine.run(f"mkdir -p /dev/vg && ln -sfn $(readlink -f {machine.device('data')}) /dev/vg/data")
        yield machines


def carry_out(machines: Pair, machine: Machine, script: str) -> None:
    """One step. What scp copies goes by way of this host: the machines do not know each other."""
    for line in COPY.findall(script):
        said = machine.run(f"base64 -w0 {line[0]}").output
        machines.secondary.run(f"umask 077; echo {said} | base64 -d >{line[1]}/$(basename {line[0]})")
    script = COPY.sub("", script).replace(ADDRESS, machines.secondary.address)
    machine.run(f"set -e; cd /root; {script.replace('apt install', 'apt-get install -y')}", 2 * PATIENCE_S)


def test_the_lines_make_a_replica_that_is_in_sync(bare: Pair) -> None:
    found = steps()
    assert [who for who, _, _ in found] == ["both", "alpha", "beta", "alpha", "alpha"], "a new step is tried as well"
    sides = {"both": bare.both, "alpha": (bare.primary,), "beta": (bare.secondary,)}
    began = time.monotonic()
    for who, what, script in found:
        for machine in sides[who]:
            before = time.monotonic()
            carry_out(bare, machine, script)
            print(f"{machine.name}: {what}: {time.monotonic() - before:.0f} s")
    print(f"from the package in a folder to two machines in sync: {time.monotonic() - began:.0f} s")
    told = bare.primary.run("controller status data", PATIENCE_S).output
    assert "up to date" in told, f"{told}\n{journal(bare.primary, 'pydbt@data.service')}"
    block = "bs=4096 count=16 oflag=direct status=none"
    bare.primary.run(f"dd if=/dev/urandom of=/dev/vg/data {block} && controller wait data", PATIENCE_S)
    wait_until(
        lambda: not len(blocks_that_differ(bare, Volume("", ((0, SIZE_BYTES),)))),
        "the target is the volume",
        PATIENCE_S,
    )
    for unit in ("pydbt@data", "pydbt-arm@data"):
        assert (
            bare.primary.run(f"systemctl is-enabled {unit} && systemctl is-active {unit}").output.split()[0]
            == "enabled"
        )
    rules = bare.secondary.run("cat /etc/udev/rules.d/62-pydbt-targets.rules").output
    assert "SYSTEMD_READY" in rules
