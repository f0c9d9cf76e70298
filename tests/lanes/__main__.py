"""``scripts/check``: see there."""

from __future__ import annotations

import sys
import time

from tests.lanes import check
from tests.lanes.part import Part
from tests.lanes.runner import Stopped, run, summary


def main(words: list[str]) -> int:
    match words:
        case ["check", *names]:
            return run_parts(named(check.parts(), names))
    print(f"tests.lanes: not known: {' '.join(words)}", file=sys.stderr)
    return 2


def named(parts: list[Part], names: list[str]) -> list[Part]:
    """Those with these names; all without a name."""
    unknown = set(names) - {part.name for part in parts}
    if unknown:
        known = ", ".join(part.name for part in parts)
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such part; there are {known}")
    return [part for part in parts if not names or part.name in names]


def run_parts(parts: list[Part]) -> int:
    began = time.monotonic()
    for part in parts:
        if part.note:
            print(f"{part.name}: {part.note}", flush=True)
    try:
        return summary(run(parts), time.monotonic() - began)
    except Stopped as stopped:
        print(f"stopped by {stopped}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
