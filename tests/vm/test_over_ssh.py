"""A machine that is lent, without one: `ssh` and `sudo` are little programs here, and a host is a network namespace."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.lab.cable import laid_cable
from tests.vm.machine import MachineFailure
from tests.vm.over_ssh import LentDisk, SshMachine, link_of

# The last option is followed by the host and one command. `near` is here, `far` at the other end of the cable, `user` has sudo.
SSH = """#!/bin/bash
while [[ ${1:-} == -* ]]; do
    case $1 in -F | -i | -p | -o | -O) shift ;; esac
    shift
done
host=$1
shift
export SSH_CONNECTION="192.0.2.1 2 CAME_BY 22" PATH
case $host in
near) exec bash -c "$*" ;;
user) AS_USER=1 exec bash -c "$*" ;;
far) exec nsenter --net=NAMESPACE bash -c "$*" ;;
gone) echo "ssh: connect to host gone port 22: No route to host" >&2 && exit 255 ;;
esac
"""
SUDO = """#!/bin/bash
echo "$*" >>LOG
while [[ ${1:-} == -* ]]; do shift; done
unset AS_USER
exec "$@"
"""
ID = """#!/bin/bash
if [ -n "${AS_USER:-}" ]; then echo 1000; else exec /usr/bin/id "$@"; fi
"""


@pytest.fixture
def cable():
    with laid_cable() as laid:
        yield laid


@pytest.fixture
def machine(cable, tmp_path, monkeypatch):
    """Makes one by the name of its host."""
    programs = tmp_path / "bin"
    programs.mkdir()
    ssh = SSH.replace("NAMESPACE", str(cable.namespace_file)).replace("CAME_BY", cable.near_address)
    for name, text in (("ssh", ssh), ("sudo", SUDO.replace("LOG", str(tmp_path / "sudo.log"))), ("id", ID)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return lambda host: SshMachine("primary", 1, host, "", tmp_path)


def test_a_command_runs_there_and_its_end_is_told(machine, tmp_path):
    near = machine("near")
    near.until_up()
    done = near.run("echo out; echo err >&2; exit 3", check=False)
    assert (done.code, done.output, done.errors) == (3, "out\n", "err\n")
    assert not (tmp_path / "sudo.log").exists(), "root needs no sudo"
    with pytest.raises(MachineFailure, match=r"primary \(near\): false ended with 1"):
        near.run("false")
    with pytest.raises(MachineFailure, match="not within 1 s: sleep 60"):
        near.run("sleep 60", timeout=1)


def test_a_user_other_than_root_runs_the_same_words_through_sudo(machine, tmp_path):
    user = machine("user")
    user.until_up()
    assert user.run("""printf '%s|' "a b" '$HOME'; id -u""").output == "a b|$HOME|0\n"
    number = user.spawn("sleep 300", str(tmp_path / "log"))
    try:
        assert Path(f"/proc/{number}/cmdline").read_bytes() == b"sleep\x00300\x00"
    finally:
        user.run(f"kill {number}")
    (tmp_path / "here").write_bytes(bytes(range(256)) * 100)
    user.put(tmp_path / "here", str(tmp_path / "there"))
    user.get(str(tmp_path / "there"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "here").read_bytes()
    assert "rsync --server" in (tmp_path / "sudo.log").read_text()


def test_a_host_that_does_not_answer_is_a_failure_in_time_with_ssh_s_words(machine):
    gone = machine("gone")
    with pytest.raises(MachineFailure, match=r"ssh does not answer: .*No route to host"):
        gone.until_up(timeout_s=0)
    with pytest.raises(MachineFailure, match="the connection is gone, or could not be made: true"):
        gone.run("true")


def reaches(cable) -> bool:
    """Whether a connection from the far end to this one is answered."""
    with socket.create_server((cable.near_address, 0)) as listener:
        words = ("timeout", "2", "bash", "-c", f"exec 3<>/dev/tcp/{cable.near_address}/{listener.getsockname()[1]}")
        return subprocess.run([*cable.enter, *words], capture_output=True).returncode == 0


@pytest.mark.parametrize("which", ["near", "far"])
def test_a_cut_link_lets_nothing_through_until_it_is_connected_again(machine, cable, which):
    near, far = machine("near"), machine("far")
    link = link_of(near.addresses(), far.addresses())
    assert [str(one.network.ip) for one in link] == [cable.near_address, cable.far_address]
    near.join(*link)
    far.join(*reversed(link))
    assert (near.address, far.address) == (cable.near_address, cable.far_address)
    assert reaches(cable)
    cut = {"near": near, "far": far}[which]
    cut.cut_link()
    assert not reaches(cable)
    cut.mend_link()
    assert reaches(cable)
    cut.mend_link()  # of a link that is whole: nothing


def test_the_address_by_which_ssh_comes_is_taken_last(machine, cable):
    assert str(machine("near").addresses()[-1].network.ip) == cable.near_address


def test_a_lent_disk_has_no_file_here():
    with pytest.raises(MachineFailure, match="use --on qemu"):
        _ = LentDisk(1 << 20).path
