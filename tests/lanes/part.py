"""A part of a lane: a command, its limits, and how its results are counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
CLOSING = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.MULTILINE)


@dataclass(frozen=True)
class Counts:
    """Tests by what became of them."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and where its results are."""

    code: int
    output: str
    folder: Path


@dataclass(frozen=True)
class Part:
    """``{python}`` and ``{folder}`` in ``command`` stand for the environment's Python and a temporary folder.

    ``cores`` is how many of the machine's cores it keeps busy; 0: it mostly waits, and runs beside all others.
    """

    name: str
    command: tuple[str, ...]
    count: Callable[[Outcome], Counts]
    limit_seconds: float = 600
    cores: int = 1
    note: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def of_a_command(outcome: Outcome) -> Counts:
    """The command is one test."""
    return Counts(failed=1) if outcome.code else Counts(passed=1)


def of_pytest(outcome: Outcome) -> Counts:
    """From pytest's own report; without one, or without a test in it, the part has failed."""
    try:
        suites = ElementTree.parse(outcome.folder / "report.xml").getroot().iter("testsuite")
    except (OSError, ElementTree.ParseError):
        return Counts(failed=1)
    total = Counts()
    for suite in suites:
        ran, failed, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
        total += Counts(ran - failed - errors - skipped, failed + errors, skipped)
    return checked(total, outcome.code)


def of_a_closing_line(outcome: Outcome) -> Counts:
    """From the last line, ``N passed, N failed``, of a program of ours."""
    found = CLOSING.findall(outcome.output)
    if not found:
        return Counts(failed=1)
    return checked(Counts(*(int(number or 0) for number in found[-1])), outcome.code)


def checked(counts: Counts, code: int) -> Counts:
    """A part that ran nothing, or that ended badly for a reason that no test names, has failed."""
    silent = (code and not counts.failed) or not counts.passed + counts.failed
    return counts + Counts(failed=1) if silent else counts


def pytest_part(name: str, *words: str, cores: int = 1, environment: dict[str, str] | None = None) -> Part:
    """Pytest with these arguments."""
    command = ("{python}", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml={folder}/report.xml", *words)
    return Part(name, (*command, "--durations=15"), of_pytest, cores=cores, environment=environment or {})
