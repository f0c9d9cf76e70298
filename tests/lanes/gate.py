"""The gate: everything that a change must pass; and the full lane, the same with all variants and many more worlds.

Two kinds of parts make it: those that keep a core busy, and those that mostly wait for processes, disks and machines.
``cores`` tells which, so that both kinds run beside each other.
"""

from __future__ import annotations

import os
from dataclasses import replace

from tests.lanes import check
from tests.lanes.part import Part, of_a_closing_line, of_pytest, pytest_part

GATE_WORLDS = 500
FULL_WORLDS = 2000
FULL_ROUNDS = 3
HOUR = 3600.0
# Folders with a part of their own. Whatever else there is in tests belongs to the part "rooms", so that nothing is left out.
OWN = ("core", "simulation", "kernel", "end_to_end", "vm", "dashboard")
# Each heavy thing has a marker, and so has what is a variant of another test. These tests are part of the full lane, and those
# marked "smoke" of the gate as well.
# Of tests/simulation the worlds, and the mutants, which are not pytest's in the gate.
OWN_PARTS_OF_THE_SIMULATION = tuple(
    f"tests/simulation/test_cluster.py::{name}"
    for name in ("test_new_worlds_lose_nothing", "test_the_simulation_catches", "test_a_story_made_by_hand_catches")
)
# Tests with two machines of their own, whose disks forget: in the full lane, beside those of the machines that are not cut.
FRAGILE = ("tests/vm/test_power_cut.py", "tests/vm/test_write_intent.py")
HEAVY = ("browser", "cluster", "kernels", "packages", "prometheus", "variant")
GATE_TESTS = ("-m", f"not ({' or '.join(HEAVY)}) or smoke")
# Where several parts share the cores, a time limit bounds a hang and nothing else.
PATIENT = {"TORTURE_PATIENCE_S": "300"}


def parts(full: bool = False) -> list[Part]:
    """The longest first.

    In the gate browsers and both controllers mostly wait. Their full sets do not: all beside two pairs of machines were fourteen
    processes that wanted two cores, and a machine's start then takes longer than a test waits.
    """
    busy = int(full)
    worlds = int(os.environ.get("SIMULATION_SEEDS") or (FULL_WORLDS if full else GATE_WORLDS))
    quick = [part for part in check.parts() if part.name not in ("worlds", "mutants", "core")]
    long = {"TORTURE_ROUNDS": str(FULL_ROUNDS), "PYDBT_VM_FULL": "1"} if full else {}
    chosen = () if full else GATE_TESTS
    limit = 12 * HOUR if full else HOUR
    booted = machines("machines", *(f"--ignore={name}" for name in FRAGILE), "tests/vm", *chosen)
    both = end_to_end(chosen, full)
    longest = [booted, machines("power-cuts", *FRAGILE), both] if full else [both, booted]
    return [
        replace(part, environment=part.environment | long, limit_seconds=max(limit, part.limit_seconds))
        for part in (
            *longest,
            tests("dashboard", "tests/dashboard", *chosen, timeout=600, cores=busy, environment=PATIENT),
            tests("rooms", *shared(), *chosen, timeout=600, environment=PATIENT),
            check.worlds_part(worlds, jobs=1),
            tests("kernel", "tests/kernel", *chosen, timeout=600, environment=PATIENT),
            tests(
                "simulation",
                "tests/simulation",
                *(f"--deselect={name}" for name in OWN_PARTS_OF_THE_SIMULATION),
                *chosen,
                timeout=1200,
            ),
            Part("mutants", check.simulate("--mutants", "--search"), of_a_closing_line),
            Part("core", ("{python}", "-m", "tests.lanes.covered", "{folder}"), of_pytest),
            *quick,
        )
    ]


def tests(name: str, *words: str, timeout: int, cores: int = 1, environment: dict[str, str] | None = None) -> Part:
    """Pytest, with a time limit in seconds for each test that has none of its own."""
    return pytest_part(name, *words, "-o", f"timeout={timeout}", cores=cores, environment=environment)


def machines(name: str, *words: str) -> Part:
    return tests(name, *words, timeout=1800, environment=PATIENT)


def end_to_end(chosen: tuple[str, ...], full: bool) -> Part:
    """Both controllers wait most of the time: three workers."""
    timeout = 300 * (FULL_ROUNDS + 1) if full else 600
    return tests(
        "end-to-end",
        "tests/end_to_end",
        "-n",
        "3",
        "--dist",
        "worksteal",
        *chosen,
        timeout=timeout,
        cores=int(full),
        environment=PATIENT,
    )


def shared() -> tuple[str, ...]:
    """All tests but those with a part of their own."""
    return "tests", *(f"--ignore=tests/{name}" for name in OWN), "--ignore-glob=tests/test_*.py"
