"""``scripts/check`` and ``scripts/test``: the fast lane, the gate, and the full lane."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.lanes import check, gate
from tests.lanes.part import Part
from tests.lanes.runner import Stopped, run, summary


def main(words: list[str]) -> int:
    which, *others = words or [""]
    match which:
        case "check":
            return run_parts(named(check.parts(), others))
        case "test":
            return test(others)
    print("tests.lanes: use check or test", file=sys.stderr)
    return 2


def test(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/test")
    parser.add_argument("--full", action="store_true", help="all variants, all machines, thousands of worlds")
    parser.add_argument("--part", metavar="NAME", action="append", default=[], help="this part alone; may be repeated")
    parser.add_argument("--logs", metavar="FOLDER", type=Path, help="where the output of each part is kept")
    chosen = parser.parse_args(words)
    if chosen.logs is not None:
        chosen.logs.mkdir(parents=True, exist_ok=True)
    return run_parts(named(gate.parts(chosen.full), chosen.part), chosen.logs)


def named(parts: list[Part], names: list[str]) -> list[Part]:
    """Those with these names; all without a name."""
    unknown = set(names) - {part.name for part in parts}
    if unknown:
        known = ", ".join(part.name for part in parts)
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such part; there are {known}")
    return [part for part in parts if not names or part.name in names]


def run_parts(parts: list[Part], logs: Path | None = None) -> int:
    began = time.monotonic()
    for part in parts:
        if part.note:
            print(f"{part.name}: {part.note}", flush=True)
    try:
        return summary(run(parts, logs), time.monotonic() - began)
    except Stopped as stopped:
        print(f"stopped by {stopped}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
