"""``scripts/vm``: the machines by hand, and the tests that need them"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.vm import box, kinds
from tests.vm.image import OURS, PROJECT, SUITE, SUITES, Image, cache, image
from tests.vm.machine import IDENTITY, TREE, MachineFailure
from tests.vm.pair import DISKS, boot_both, make_machines, run_folders
from tests.vm.qemu import QemuMachine

SOCKETS = Path(f"/tmp/pydbt-vm-{OURS}")
_PACKAGE = "/root/pydbt.deb"
TESTS = ("tests/kernel", "tests/device", "tests/store")
_THEIR_PACKAGES = ("postgresql",)


def folder() -> Path:
    return cache() / f"up-{OURS}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/vm", description="Two virtual machines without a network.")
    commands = parser.add_subparsers(dest="command", required=True)
    of_suite = argparse.ArgumentParser(add_help=False)
    of_suite.add_argument("--suite", choices=SUITES, help=f"of Debian; {SUITES[0]} by default")
    commands.add_parser("build", parents=[of_suite], help="the machines' image, if it is not there yet")
    commands.add_parser("up", parents=[of_suite], help="boot primary and secondary; they stay until down")
    commands.add_parser("down", help="take them away")
    ssh = commands.add_parser("ssh", help="a command, or a shell, in one of them")
    ssh.add_argument("name", choices=("primary", "secondary"))
    ssh.add_argument("words", nargs=argparse.REMAINDER)
    commands.add_parser("ssh-config", help="how ssh reaches them: for ssh -F, and for pytest --ssh-config")
    inside = commands.add_parser("run", parents=[of_suite], help="this project's own tests inside a fresh machine")
    inside.add_argument("arguments", nargs=argparse.REMAINDER, help=f"pytest's; {' '.join(TESTS)} when there are none")
    commands.add_parser("box", parents=[of_suite], help="the image as a box for Vagrant with libvirt")
    place = commands.add_parser(
        "lab",
        parents=[of_suite],
        help="a command, or a shell, with libvirt and Vagrant for that box, cut off from the network",
    )
    place.add_argument("words", nargs=argparse.REMAINDER)
    tests = commands.add_parser("test", parents=[of_suite], help="the tests that need machines")
    tests.add_argument("--on", metavar="KIND", help="qemu (default), vagrant, or ssh:HOST,HOST")
    tests.add_argument("--ssh-config", metavar="FILE", help="how ssh reaches these hosts")
    tests.add_argument("--full", action="store_true", help="the long ones as well")
    tests.add_argument("arguments", nargs=argparse.REMAINDER, help="pytest's")
    chosen = parser.parse_args()
    for option, name in (("suite", SUITE), ("on", kinds.ON), ("ssh_config", kinds.SSH_CONFIG)):
        if value := getattr(chosen, option, None):
            os.environ[name] = value
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
            case "ssh-config":
                return tell_ssh_config()
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
    machines = make_machines(built, folder(), SOCKETS, DISKS, systemd=True)
    package = box.package()
    try:
        print("booting", flush=True)
        boot_both(machines, outlive=True)
        _remember(machines)
        for machine in reversed(machines):  # the primary's first run wants to find the secondary
            print(f"setting up {machine.name}", flush=True)
            machine.put(package, _PACKAGE)
            words = f"{machine.name} {machines[1].address} {IDENTITY} {_PACKAGE}"
            machine.run(f"bash {TREE}/scripts/guest {words}", timeout=900)
    except BaseException:
        for machine in machines:
            machine.close()
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


def _remember(machines: Sequence[QemuMachine]) -> None:
    known = {machine.name: machine.pid for machine in machines}
    (folder() / "up.json").write_text(json.dumps({"image": str(machines[0].image.folder), "pids": known}))


def _machines_up() -> list[QemuMachine]:
    try:
        known = json.loads((folder() / "up.json").read_text())
    except FileNotFoundError:
        return []
    # Without disks: those belong to the QEMU that runs.
    machines = make_machines(Image(Path(known["image"])), folder(), SOCKETS, {}, systemd=True)
    return [machine.adopt(known["pids"][machine.name]) for machine in machines]


def enter(name: str, command: str) -> int:
    for machine in _machines_up():
        if machine.name == name and machine.alive:
            return subprocess.run(machine.ssh_command(command, terminal=sys.stdin.isatty())).returncode
    print("scripts/vm: they are not up: use scripts/vm up", file=sys.stderr)
    return 9


def tell_ssh_config() -> int:
    machines = [machine for machine in _machines_up() if machine.alive]
    for machine in machines:
        print(machine.ssh_config())
    if not machines:
        print("scripts/vm: they are not up: use scripts/vm up", file=sys.stderr)
        return 9
    return 0


def run_inside(arguments: list[str]) -> int:
    """One machine for one run. What it prints comes out here as it comes."""
    built = image(_THEIR_PACKAGES)
    with run_folders() as (place, sockets):
        machine = QemuMachine("primary", 1, built, place, sockets)
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
