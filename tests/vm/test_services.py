"""The units under systemd: ready when every write is tracked, restarted by the watchdog without a gap, apart when they fail."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.patience import wait_until
from tests.vm.machine import IDENTITY, Machine
from tests.vm.pair import MIB, Pair, pair
from tests.vm.site import Volume, blocks_that_differ
from tests.vm.units import PATIENCE_S, configure, install_units, journal, shown, start

pytestmark = pytest.mark.timeout(4 * 3600)

SIZE_BYTES = 64 * MIB
PORT = 7790
PRIMARY, SECONDARY = "pydbt@data.service", "pydbt-secondary@data.service"
WATCHDOG_S = 30


@pytest.fixture(scope="module")
def booted() -> Iterator[Pair]:
    """Two machines that systemd has booted, with the units and a file each."""
    with pair({"data": SIZE_BYTES}, systemd=True) as machines:
        address = f"{machines.secondary.address}:{PORT}"
        for machine, table, place, peer in (
            (machines.primary, "run", "source", "secondary"),
            (machines.secondary, "secondary", "target", "listen"),
        ):
            lines = (
                f"[{table}]",
                f'{place} = "{machine.device("data")}"',
                f'{peer} = "{address}"',
                f'identity = "{IDENTITY}"',
            )
            configure(machine, "data", *lines)
            install_units(machine)
        yield machines


def status(machine: Machine) -> dict[str, Any]:
    done = machine.run("controller status data --json", PATIENCE_S, check=False)
    return json.loads(done.output) if done.code == 0 else {}


def until_in_sync(machines: Pair) -> None:
    done = machines.primary.run(f"controller wait data --timeout {PATIENCE_S}", PATIENCE_S + 60, check=False)
    assert done.code == 0, f"{done} {journal(machines.primary, PRIMARY)}"


def differing(machines: Pair) -> list[int]:
    return blocks_that_differ(machines, Volume("", ((0, SIZE_BYTES),))).tolist()


def until_applied(machines: Pair) -> None:
    """What was waited for is durable in the journal of the secondary, and comes to the target soon."""
    wait_until(lambda: not differing(machines), "the target is the volume", PATIENCE_S)


def write(machine: Machine, block: int) -> None:
    machine.run(f"dd if=/dev/urandom of={machine.device('data')} bs=4096 count=1 seek={block} oflag=direct status=none")


def test_a_start_returns_when_every_write_is_tracked_and_the_journal_knows_the_volume(booted: Pair) -> None:
    start(booted.secondary, SECONDARY)
    start(booted.primary, PRIMARY)
    assert re.search(
        r"^/sys/fs/bpf/pydbt/\S+/meta$", booted.primary.run("ls /sys/fs/bpf/pydbt/*/meta").output, re.MULTILINE
    )
    until_in_sync(booted)
    for machine, unit in ((booted.primary, PRIMARY), (booted.secondary, SECONDARY)):
        number = shown(machine, unit, "MainPID")
        mounts = machine.run(f"readlink /proc/{number}/ns/mnt /proc/1/ns/mnt").output.split()
        assert mounts[0] == mounts[1], "it sees at once what is mounted on the machine"
        assert "controller status" in shown(machine, unit, "StatusText")
        entries = machine.run("journalctl -o json --no-pager PYDBT_VOLUME=data").output.splitlines()
        found = [json.loads(entry) for entry in entries]
        names = {"PYDBT_EVENT" in entry: entry["SYSLOG_IDENTIFIER"] for entry in found}
        assert names == {False: unit.removesuffix(".service"), True: "pydbt"}, "lines of the log, and events"
        assert any(entry["PRIORITY"] == "6" for entry in found)
    until_applied(booted)


def test_a_controller_that_hangs_is_ended_by_the_watchdog_and_the_next_copies_only_what_was_written(
    booted: Pair,
) -> None:
    primary = booted.primary
    primary.run(
        f"mkdir -p /run/systemd/system/{PRIMARY}.d && printf '[Service]\\nWatchdogSec={WATCHDOG_S}\\n' "
        f">/run/systemd/system/{PRIMARY}.d/soon.conf && systemctl daemon-reload && systemctl restart {PRIMARY}",
        PATIENCE_S,
    )
    until_in_sync(booted)
    before = shown(primary, PRIMARY, "MainPID")
    primary.run(f"kill -STOP {before}")
    write(primary, 77)
    wait_until(lambda: shown(primary, PRIMARY, "NRestarts") == "1", "systemd has started another one", PATIENCE_S)
    wait_until(lambda: shown(primary, PRIMARY, "ActiveState") == "active", "it is ready", PATIENCE_S)
    assert shown(primary, PRIMARY, "MainPID") != before
    until_in_sync(booted)
    words = journal(primary, PRIMARY)
    assert "their programs are taken over" in words and "compared" not in words.split("taken over")[-1], words
    until_applied(booted)


def test_a_stop_leaves_the_programs_and_the_next_start_copies_what_was_written_meanwhile(booted: Pair) -> None:
    primary = booted.primary
    primary.run(f"systemctl stop {PRIMARY}", PATIENCE_S)
    assert shown(primary, PRIMARY, "Result") == "success" and shown(primary, PRIMARY, "ActiveState") == "inactive"
    write(primary, 123)
    start(primary, PRIMARY)
    until_in_sync(booted)
    until_applied(booted)
    assert status(primary)["tainted"] is False


def test_what_a_start_cannot_mend_is_not_tried_again_and_the_reason_is_in_the_journal(booted: Pair) -> None:
    primary = booted.primary
    configure(
        primary, "wrong", "[run]", 'source = "/dev/nowhere"', 'secondary = "192.0.2.1:7790"', f'identity = "{IDENTITY}"'
    )
    unit = "pydbt@wrong.service"
    assert primary.run(f"systemctl start {unit}", PATIENCE_S, check=False).code
    assert shown(primary, unit, "ActiveState") == "failed" and shown(primary, unit, "NRestarts") == "0"
    assert "/dev/nowhere" in journal(primary, unit) and "Traceback" not in journal(primary, unit)
    assert shown(primary, PRIMARY, "ActiveState") == "active", "another volume's unit is untouched"


def test_a_volume_whose_unit_is_enabled_is_left_to_it(booted: Pair) -> None:
    primary = booted.primary
    primary.run(f"rm -f /etc/pydbt/volumes/wrong.toml; systemctl enable {PRIMARY}")
    said = primary.run("timeout -s INT 60 controller run", PATIENCE_S, check=False)
    assert PRIMARY in said.output + said.errors, said
    assert shown(primary, PRIMARY, "ActiveState") == "active"
    score = primary.run(f"systemd-analyze security {PRIMARY} | tail -1", check=False).output
    print(score)
    primary.run(f"systemctl disable {PRIMARY} && controller down data", PATIENCE_S)
    booted.secondary.run(f"systemctl stop {SECONDARY}", PATIENCE_S)
