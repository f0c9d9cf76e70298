"""Epochs from snapshots, which need a kernel with device-mapper: their tests of ``tests/end_to_end`` inside a machine"""

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
    ("file", "name"),
    [
        ("test_epochs_lvm", "one_instant[thin]"),
        ("test_epochs_lvm", "store_is_full"),
        ("test_epochs_mapped", "whatever_step[remove_leftover]"),
        ("test_epochs_mapped", "killed_while_a_snapshot_stands"),
        ("test_epochs_mapped", "bit_for_bit"),
        *long(
            ("test_epochs_lvm", "bit_for_bit[snapshot]"),
            ("test_epochs_lvm", "bit_for_bit[thin]"),
            ("test_epochs_lvm", "one_instant[snapshot]"),
            ("test_epochs_lvm", "killed_controller_leaves_no_snapshot"),
            ("test_epochs_lvm", "without_room"),
            ("test_epochs_mapped", "one_instant[linear]"),
            ("test_epochs_mapped", "one_instant[striped]"),
            ("test_epochs_mapped", "whatever_step[take]"),
            ("test_epochs_mapped", "links_of_a_file_system"),
            ("test_epochs_mapped", "store_is_full"),
            ("test_epochs_mapped", "though_the_volume_is_gone"),
            ("test_epochs_mapped", "cannot_be_made"),
            ("test_epochs_mapped", "somebody_else_changed"),
            ("test_epochs_mapped", "somebody_chose"),
            ("test_epochs_mapped", "whatever_its_state_directory"),
            ("test_epochs_mapped", "cannot_serve"),
            ("test_layer", "a_layer_gives_a_raw_disk"),
            ("test_layer", "what_is_in_use"),
            ("test_layer", "layer_with_eras"),
            ("test_layer", "suspended_layer"),
        ),
    ],
)
def test_in_a_machine(machines: Pair, file: str, name: str):
    plain = name.replace("[", " and ").replace("]", "")
    options = f"-p no:cacheprovider --basetemp=/var/tmp/tests -o timeout={TIMEOUT_S} -q --tb=short"
    there = f"modprobe loop && cd {TREE} && TORTURE_PATIENCE_S=400 .venv/bin/python -m pytest {options}"
    there += f" tests/end_to_end/{file}.py -k '{plain}'"
    done = machines.primary.run(there, timeout=TIMEOUT_S, check=False)
    assert done.code == 0, done.output[-6000:] + done.errors[-1000:]
    assert re.search(r"^1 passed", done.output, re.MULTILINE), f"not exactly one test ran: {done.output[-500:]}"
