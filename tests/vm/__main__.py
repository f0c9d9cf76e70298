"""``scripts/vm``: the machines by hand, and the tests that need them"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.vm import box
from tests.vm.image import PROJECT, cache, image
from tests.vm.machine import IDENTITY, TREE, Machine, MachineFailure
from tests.vm.pair import DISKS, Pair, make_pair, run_folders

# Each copy of the project has machines of its own.
_OURS = hashlib.sha256(str(PROJECT).encode()).hexdigest()[:10]
SOCKETS = Path(f"/tmp/pydbt-vm-{_OURS}")
TESTS = ("tests/kernel", "tests/device", "tests/store")


def folder() -> Path:
    return cache() / f"up-{_OURS}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/vm", description="Two virtual machines without a network.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="the machines' image, if it is not there yet")
    commands.add_parser("up", help="boot primary and secondary; they stay until down")
    commands.add_parser("down", help="take them away")
    ssh = commands.add_parser("ssh", help="a command, or a shell, in one of them")
    ssh.add_argument("name", choices=("primary", "secondary"))
    ssh.add_argument("words", nargs=argparse.REMAINDER)
    inside = commands.add_parser("run", help="this project's own tests inside a fresh machine")
    inside.add_argument("arguments", nargs=argparse.REMAINDER, help=f"pytest's; {' '.join(TESTS)} when there are none")
    commands.add_parser("box", help="the image as a box for Vagrant with libvirt")
    place = commands.add_parser(
        "lab", help="a command, or a shell, with libvirt and Vagrant for that box, cut off from the network"
    )
    place.add_argument("words", nargs=argparse.REMAINDER)
    tests = commands.add_parser("test", help="the tests that need machines")
    tests.add_argument("--full", action="store_true", help="the long ones as well")
    tests.add_argument("arguments", nargs=argparse.REMAINDER, help="pytest's")
    chosen = parser.parse_args()
    try:
        match chosen.command:
            case "build":
                print(image().folder)
                return 0
            case "up":
                return up()
            case "down":
                return down()
            case "ssh":
                return enter(chosen.name, " ".join(chosen.words))
            case "box":
                print(box.box())
                return 0
            case "lab":
                return box.lab(chosen.words)
            case "run":
                return run_inside(chosen.arguments)
            case _:
                return run_tests(chosen.full, chosen.arguments)
    except (MachineFailure, RuntimeError) as error:
        print(f"scripts/vm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def up() -> int:
    if any(machine.alive for machine in _machines_up()):
        print("scripts/vm: they are up already: use ssh, or down", file=sys.stderr)
        return 4
    down()
    built = image()
    SOCKETS.mkdir(mode=0o700)
    machines = make_pair(built, folder(), SOCKETS, DISKS, systemd=True)
    try:
        print("booting", flush=True)
        machines.boot(outlive=True)
        _remember(machines)
        for machine in reversed(machines.both):  # the primary's first run wants to find the secondary
            print(f"setting up {machine.name}", flush=True)
            machine.run(
                f"bash {TREE}/scripts/guest {machine.name} {machines.secondary.address} {IDENTITY}", timeout=600
            )
    except BaseException:
        machines.close()
        down()
        raise
    print('both are up; try: scripts/vm ssh primary "controller run"')
    return 0


def down() -> int:
    for machine in _machines_up():
        machine.close()
    for path in (folder(), SOCKETS):
        shutil.rmtree(path, ignore_errors=True)
    return 0


def _remember(machines: Pair) -> None:
    known = {machine.name: machine.pid for machine in machines.both}
    (folder() / "up.json").write_text(json.dumps({"image": str(machines.primary.image.folder), "pids": known}))


def _machines_up() -> list[Machine]:
    try:
        known = json.loads((folder() / "up.json").read_text())
    except FileNotFoundError:
        return []
    # Without disks: those belong to the QEMU that runs.
    pair = make_pair(image(), folder(), SOCKETS, {}, systemd=True)
    return [machine.adopt(known["pids"][machine.name]) for machine in pair.both]


def enter(name: str, command: str) -> int:
    for machine in _machines_up():
        if machine.name == name and machine.alive:
            return subprocess.run(machine.ssh_command(command, terminal=sys.stdin.isatty())).returncode
    print("scripts/vm: they are not up: use scripts/vm up", file=sys.stderr)
    return 9


def run_inside(arguments: list[str]) -> int:
    """One machine for one run. What it prints comes out here as it comes."""
    built = image()
    with run_folders() as (place, sockets):
        machine = Machine("primary", 1, built, place, sockets)
        try:
            machine.boot()
            machine.put_project()
            machine.run("modprobe -a loop zram")
            words = " ".join(arguments or TESTS)
            pytest = f".venv/bin/python -m pytest -p no:cacheprovider --basetemp=/var/tmp/tests {words}"
            done = subprocess.run(machine.ssh_command(f"cd {TREE} && {pytest}"))
            if not machine.alive or machine.alarms():
                raise machine.failure(f"the machine did not stay well: {machine.alarms()[:5]}")
            return done.returncode
        finally:
            machine.close()


def run_tests(full: bool, arguments: list[str]) -> int:
    env = {**os.environ, **({"PYDBT_VM_FULL": "1"} if full else {})}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *(arguments or ["tests/vm"])], cwd=PROJECT, env=env
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
