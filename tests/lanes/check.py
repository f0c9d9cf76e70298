"""The fast lane: what a contributor runs before each commit. It needs no root, no block device and no BPF."""

from __future__ import annotations

import os
import random
import re

from tests.lanes.part import ROOT, Counts, Outcome, Part, of_a_closing_line, of_a_command, pytest_part

WORLDS = 100
# The tests at the top: of the structure, of the documents.
SHAPE = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*.py"))
# mypy's strict problems that are left: may only become fewer.
TYPE_PROBLEMS = 56


def parts(worlds: int = WORLDS) -> list[Part]:
    """The longest first, so that two of them end at about the same time."""
    half = max(1, (os.cpu_count() or 1) // 2)
    return [
        worlds_part(worlds, jobs=half),
        pytest_part("core", "tests/core"),
        Part("types", ("{python}", "-m", "mypy"), at_most_the_known_problems),
        Part("mutants", simulate("--mutants", "--jobs", str(half)), of_a_closing_line, cores=half),
        pytest_part("shape", *SHAPE),
        Part("lint", ("{python}", "-m", "ruff", "check", "."), of_a_command),
        Part("format", ("{python}", "-m", "ruff", "format", "--check", "."), of_a_command),
    ]


def worlds_part(seeds: int, jobs: int) -> Part:
    """New worlds each time; the note tells how the same are played again."""
    first = random.SystemRandom().randrange(1 << 31)
    chosen = ("--first", str(first), "--seeds", str(seeds))
    return Part(
        "worlds", simulate(*chosen, "--jobs", str(jobs)), of_a_command, 1800, cores=jobs,
        note=f"play them again with scripts/simulate {' '.join(chosen)}",
    )  # fmt: skip


def simulate(*words: str) -> tuple[str, ...]:
    return ("{python}", "-m", "tests.simulation.cluster", *words)


def at_most_the_known_problems(outcome: Outcome) -> Counts:
    found = re.search(r"^Found (\d+) errors?", outcome.output, re.MULTILINE)
    problems = int(found[1]) if found else 0
    fine = outcome.code == 0 or (outcome.code == 1 and 0 < problems <= TYPE_PROBLEMS)
    return Counts(passed=1) if fine else Counts(failed=1)
