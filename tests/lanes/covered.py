"""``python -m tests.lanes.covered FOLDER``: the tests of core, and which branches of each part they take.

Each module of core must have at least ``FLOOR`` percent of its branches taken by ``tests/core`` alone: a decision that only a
whole simulated world reaches is not tested as a decision.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

FLOOR = 85.0


def share(summary: dict[str, int]) -> float:
    """Percent of the branches that were taken."""
    return 100.0 * summary["covered_branches"] / summary["num_branches"] if summary["num_branches"] else 100.0


def too_low(report: dict[str, dict[str, dict[str, dict[str, int]]]]) -> list[str]:
    """The modules below the floor, each with its share."""
    shares = {name: share(module["summary"]) for name, module in report["files"].items()}
    return [f"{name}: {taken:.0f} %" for name, taken in sorted(shares.items()) if taken < FLOOR]


def main(folder: Path) -> int:
    report = folder / "coverage.json"
    measured = "--cov=pydbt.core", "--cov-branch", f"--cov-report=json:{report}"
    reported = "-p", "no:cacheprovider", f"--junitxml={folder / 'report.xml'}", "--durations=15"
    code = pytest.main(["-q", *reported, *measured, "tests/core"])
    low = too_low(json.loads(report.read_text()))
    for line in low:
        print(f"fewer than {FLOOR:g} % of the branches are taken by tests/core: {line}")
    return int(code) or len(low)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
