"""``scripts/simulate``: many seeds over many cores; the first failures shrunk and told."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.simulation.cluster.campaign import campaign
from tests.simulation.cluster.schedule import draw
from tests.simulation.cluster.shrink import failure_of, kind_of, shrink, story


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description="Play clusters in a simulated world, one a seed."
    )
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default 2000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument(
        "--story", action="store_true", help="tell what happens in the first seed, whether it fails or not"
    )
    chosen = parser.parse_args()
    if chosen.seeds < 1 or (chosen.jobs or 0) < 1:
        parser.error("--seeds and --jobs count from 1")
    if chosen.story:
        print(story(draw(chosen.first), lines=100_000))
        return 0
    began = time.monotonic()
    failures: list[tuple[int, str]] = []
    done = 0
    for count, failed in campaign(chosen.first, chosen.seeds, chosen.jobs):
        done += count
        failures += failed
        rate = done / (time.monotonic() - began) * 60
        print(f"{done} of {chosen.seeds} seeds, {len(failures)} failed, {rate:.0f} a minute", flush=True)
        if len(failures) >= 10:
            print("that is enough: the rest is not played")
            break
    for seed, kind in failures[:3]:
        print(f"\n--- seed {seed}: {kind}; shrinking it ...", flush=True)
        plan = draw(seed)
        error = failure_of(plan)
        print(story(shrink(plan, kind_of(error))) if error else "it did not fail when it was played again")
    for seed, kind in failures:
        print(f"seed {seed}: {kind}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
