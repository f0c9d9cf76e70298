"""The machines themselves: they take commands, reach each other, and fail loudly instead of waiting"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.patience import PATIENCE_S, wait_until
from tests.vm.image import PROJECT, chosen_suite
from tests.vm.kinds import Ability, needs
from tests.vm.machine import MachineFailure
from tests.vm.pair import run_folders

pytestmark = pytest.mark.timeout(2 * 3600)  # the first of all builds the image


def test_two_machines_with_an_empty_disk_each_reach_each_other(machines):
    for ours, other in (machines.both, machines.both[::-1]):
        assert ours.run("id -u").output.strip() == "0"
        assert ours.run(f"blockdev --getsize64 {ours.device('data')}").output.strip() == str(512 << 20)
        assert not ours.run(f"blkid -p {ours.device('data')}", check=False).output
        ours.run(f"ping -c 1 -W 20 {other.address}")


@needs(Ability.EMULATOR)
def test_the_machines_have_the_kernel_of_the_suite_and_reach_nothing_else(machines):
    for ours in machines.both:
        assert ours.run("uname -r").output.startswith({"bookworm": "6.1.", "trixie": "6.12."}[chosen_suite()])
        assert ours.run("hostname").output.strip() == ours.name
        with socket.create_server(("127.0.0.1", 0)) as host:
            through = f"exec 3<>/dev/tcp/10.0.2.2/{host.getsockname()[1]}"
            assert ours.run(f"timeout 5 bash -c '{through}'", check=False).code


def test_a_cut_cable_lets_nothing_through_until_it_is_connected_again(machines):
    machines.cut_link()
    assert machines.primary.run(f"ping -c 1 -W 2 {machines.secondary.address}", check=False).code
    machines.mend_link()
    reached = f"ping -c 1 -W 2 {machines.secondary.address}"
    wait_until(lambda: not machines.primary.run(reached, check=False).code, "the cable is connected again", 60)


def test_a_file_that_is_put_into_a_machine_comes_back_the_same(machines, tmp_path):
    (tmp_path / "here").write_bytes(bytes(range(256)) * 1000)
    machines.primary.put(tmp_path / "here", "/root/there")
    machines.primary.get("/root/there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "here").read_bytes()


@needs(Ability.EMULATOR)
def test_a_hanging_machine_is_a_failure_in_time_and_not_a_wait(machines):
    machines.secondary.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(MachineFailure, match="not within 3 s"):
            machines.secondary.run("true", timeout=3)
        assert time.monotonic() - began < PATIENCE_S / 2
    finally:
        machines.secondary.thaw()
    machines.secondary.run("true")


@needs(Ability.EMULATOR)
@pytest.mark.variant  # of what a machine that hangs shows; behind it one boots anew
def test_a_panic_is_a_failure_at_once_that_shows_the_console(machines):
    began = time.monotonic()
    with pytest.raises(MachineFailure, match="sysrq triggered crash"):
        machines.secondary.run("echo c >/proc/sysrq-trigger; sleep 100", timeout=100)
    assert time.monotonic() - began < 90  # of the hundred seconds that the command takes
    machines.secondary.console_log.unlink()
    machines.secondary.power_cut()
    machines.secondary.boot()
    machines.secondary.run("test -e /vagrant/README.md")


def machines_of(process):
    """Command lines of the machines that a process has started."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, status = (path / "cmdline").read_bytes().decode(), (path / "status").read_text()
        except OSError:
            continue
        if "qemu-system" in words and f"PPid:\t{process.pid}\n" in status:
            found[path] = words
    return found


@needs(Ability.EMULATOR)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_is_left_of_a_run_that_is_interrupted_or_killed(how):
    program = "from tests.vm.pair import pair\nwith pair(): pass"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: len(machines_of(process)) == 2 or process.poll() is not None, "both machines run", 120)
        started = machines_of(process)
        folder = Path(re.search(r"path=([^,\0]*/run-[^/]*)/", next(iter(started.values())))[1])
        assert folder.is_dir()
        process.send_signal(how)
        process.wait(PATIENCE_S)
        wait_until(lambda: not any(path.exists() for path in started), "no machine runs any more", PATIENCE_S)
        if how is signal.SIGKILL:  # nobody was left to remove its files: the next run does
            assert folder.is_dir()
            with run_folders():
                pass
        assert not folder.exists()
    finally:
        process.kill()
        process.wait()
