"""The fast lane: what a contributor runs before each commit. It needs no root, no block device and no BPF."""

from __future__ import annotations

import os
import random

from tests.lanes.part import ROOT, Part, of_a_closing_line, of_a_command, pytest_part

WORLDS = 100
# The tests at the top: of the structure, of the documents.
SHAPE = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*.py"))


def parts(worlds: int = WORLDS) -> list[Part]:
    """The longest first, so that two of them end at about the same time."""
    half = max(1, (os.cpu_count() or 1) // 2)
    return [
        worlds_part(worlds, jobs=half),
        pytest_part("core", "tests/core"),
        Part("types", ("{python}", "-m", "mypy"), of_a_command),
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
