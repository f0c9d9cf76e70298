"""Epochs from LVM's snapshots, which need a kernel with device-mapper: the tests of ``test_epochs_lvm`` inside a machine"""

from __future__ import annotations

import re

import pytest

from tests.vm.conftest import long
from tests.vm.machine import TREE
from tests.vm.pair import Pair

# Compiling the programs alone takes a minute, and everything else ten times what it takes on a host.
TIMEOUT_S = 900


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize(
    "name",
    [
        "one_instant[thin]",
        "store_is_full",
        *long("one_instant[snapshot]", "killed_controller_leaves_no_snapshot", "without_room"),
    ],
)
def test_in_a_machine(machines: Pair, name: str):
    plain = name.replace("[", " and ").replace("]", "")
    options = f"-p no:cacheprovider --basetemp=/var/tmp/tests -o timeout={TIMEOUT_S} -q --tb=short"
    there = f"modprobe loop && cd {TREE} && .venv/bin/python -m pytest {options} tests/end_to_end/test_epochs_lvm.py -k '{plain}'"
    done = machines.primary.run(there, timeout=TIMEOUT_S, check=False)
    assert done.code == 0, done.output[-6000:] + done.errors[-1000:]
    assert re.search(r"^1 passed", done.output, re.MULTILINE), f"not exactly one test ran: {done.output[-500:]}"
