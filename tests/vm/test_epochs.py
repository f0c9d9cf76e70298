"""Epochs from snapshots, which need a kernel with device-mapper: their tests of ``tests/end_to_end`` inside a machine"""

from __future__ import annotations

import re

import pytest

from tests.vm.conftest import FULL, long
from tests.vm.machine import TREE
from tests.vm.pair import Pair

# Compiling the programs alone takes a minute, and everything else ten times what it takes on a host.
TIMEOUT_S = 3600
CHOSEN: dict[str, tuple[str, ...]] = {
    "test_epochs_lvm": (
        "one_instant[thin]",
        *long(
            "store_is_full",
            "bit_for_bit[snapshot]",
            "bit_for_bit[thin]",
            "one_instant[snapshot]",
            "killed_controller_leaves_no_snapshot",
            "without_room",
        ),
    ),
    "test_epochs_mapped": (
        *long(
            "killed_while_a_snapshot_stands",
            "bit_for_bit",
            "whatever_step[remove_leftover]",
            "one_instant[linear]",
            "one_instant[striped]",
            "whatever_step[take]",
            "links_of_a_file_system",
            "store_is_full",
            "though_the_volume_is_gone",
            "cannot_be_made",
            "somebody_else_changed",
            "chosen_readahead",
            "whatever_its_state_directory",
            "cannot_serve",
        ),
    ),
    "test_layer": long("a_layer_gives_a_raw_disk", "device_in_use", "layer_with_eras", "suspended_layer"),
}


FILES = tuple(file for file, names in CHOSEN.items() if names)
# Starting pytest costs an emulated machine a quarter of a minute: one run of it for all files, or in the full lane for each file.
RUNS = tuple((file,) for file in FILES) if FULL else (FILES,)


def names_in(files: tuple[str, ...]) -> list[str]:
    return [name for file in files for name in CHOSEN[file]]


@pytest.mark.variant
@pytest.mark.parametrize(
    "files",
    [pytest.param(files, marks=pytest.mark.timeout(TIMEOUT_S * len(names_in(files)))) for files in RUNS],
    ids="-".join,
)
def test_the_tests_of_epochs_pass_in_a_machine_with_device_mapper(machines: Pair, files: tuple[str, ...]):
    names = names_in(files)
    plain = " or ".join(f"({name.replace('[', ' and ').replace(']', '')})" for name in names)
    options = f"-p no:cacheprovider --basetemp=/var/tmp/tests -o timeout={TIMEOUT_S} -q --tb=short --durations=0"
    there = f"modprobe loop && cd {TREE} && TORTURE_PATIENCE_S=1200 .venv/bin/python -m pytest {options}"
    there += f" {' '.join(f'tests/end_to_end/{file}.py' for file in files)} -k '{plain}'"
    done = machines.primary.run(there, timeout=TIMEOUT_S * len(names) - 60, check=False)
    print(done.output[-3000:])
    assert done.code == 0, done.output[-6000:] + done.errors[-1000:]
    assert re.search(rf"^{len(names)} passed", done.output, re.MULTILINE), (
        f"not each one ran once: {done.output[-500:]}"
    )
