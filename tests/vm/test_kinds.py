"""Which machines a run of tests takes: what `--on` says, what is left out for it, and the link between two that are lent"""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys

import pytest

from tests.vm import kinds
from tests.vm.image import PROJECT
from tests.vm.kinds import Ability, Kind, parse
from tests.vm.machine import MachineFailure
from tests.vm.over_ssh import Address, SshMachine, link_of


def test_each_kind_is_known_by_its_word():
    assert parse("qemu") == Kind("qemu")
    assert parse("vagrant") == Kind("vagrant")
    assert parse("ssh:alpha,root@10.0.0.2") == Kind("ssh", ("alpha", "root@10.0.0.2"))
    assert parse("ssh:alpha,beta", "/tmp/config").config == "/tmp/config"


@pytest.mark.parametrize(
    ("text", "config", "said"),
    [
        ("qmeu", "", "qmeu is no kind of machines: expected qemu, vagrant, or ssh:HOST,HOST"),
        ("ssh", "", "expected"),
        ("ssh:alpha", "", "does not name two machines"),
        ("ssh:alpha,", "", "does not name two machines"),
        ("ssh:alpha,beta,gamma", "", "does not name two machines"),
        ("ssh:alpha,-oProxyCommand=true", "", "does not name two machines"),
        ("ssh:alpha,alpha", "", "names one machine twice"),
        ("qemu", "/tmp/config", "qemu has its own"),
    ],
)
def test_a_text_that_names_no_pair_of_machines_is_refused_with_what_was_expected(text, config, said):
    with pytest.raises(ValueError, match=said):
        parse(text, config)


def test_the_machines_are_those_of_qemu_without_an_option(monkeypatch):
    monkeypatch.delenv(kinds.ON, raising=False)
    monkeypatch.delenv(kinds.SSH_CONFIG, raising=False)
    assert kinds.chosen() == Kind("qemu")
    monkeypatch.setenv(kinds.ON, "ssh:a,b")
    assert kinds.chosen().hosts == ("a", "b")


TESTS = """
from tests.vm.image import PROJECT
from tests.vm.kinds import Ability, needs

@needs(Ability.PLUG)
def test_with_a_plug(): pass

def test_without(): pass
"""


@pytest.fixture
def run_of_tests(tmp_path):
    """What pytest says of these two tests on a kind of machines."""
    (tmp_path / "test_some.py").write_text(TESTS)

    def run(kind):
        words = (
            "-p",
            "tests.vm.conftest",
            "-c",
            PROJECT / "pyproject.toml",
            "--rootdir",
            tmp_path,
            "-p",
            "no:cacheprovider",
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *map(str, words), str(tmp_path), "--on", kind], cwd=PROJECT,
            env={name: value for name, value in os.environ.items() if name not in (kinds.ON, kinds.SSH_CONFIG)},
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        return done.stdout + done.stderr

    return run


def test_a_test_is_left_out_where_its_machines_lack_what_it_needs_and_the_end_names_both(run_of_tests):
    passed = run_of_tests("qemu")
    assert "2 passed" in passed and "left out" not in passed
    some = run_of_tests("ssh:alpha,beta")
    assert "1 passed, 1 deselected" in some
    assert f"left out on ssh: 1 test, which needs {Ability.PLUG.value}" in some


def test_a_kind_that_is_not_known_ends_the_run_with_one_sentence(run_of_tests):
    said = run_of_tests("vagarnt")
    assert "ERROR: vagarnt is no kind of machines: expected qemu, vagrant, or ssh:HOST,HOST" in said
    assert "Traceback" not in said


def address(text, interface="eth1"):
    return Address(interface, ipaddress.IPv4Interface(text))


def test_the_link_is_the_first_network_that_both_are_in_with_different_addresses():
    ours = [address("10.77.0.11/24"), address("10.0.2.15/24", "eth0")]
    theirs = [address("10.0.2.15/24", "eth0"), address("10.77.0.12/24", "eth7")]
    assert link_of(ours, theirs) == (ours[0], theirs[1])
    assert link_of(ours[1:], theirs) is None
    assert link_of(ours, []) is None


@pytest.mark.parametrize("action", ["boot", "power_cut", "shut_down", "freeze", "thaw"])
def test_an_action_that_a_machine_over_ssh_cannot_do_is_one_sentence(action, tmp_path):
    machine = SshMachine("primary", 1, "alpha", "", tmp_path)
    with pytest.raises(MachineFailure, match=r"^primary \(alpha\): it.*: use --on qemu$"):
        getattr(machine, action)()
