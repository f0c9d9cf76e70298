"""``scripts/simulate``: many seeds over many cores, the first failures shrunk and told; or the known mutants."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.simulation.cluster import hunt
from tests.simulation.cluster.campaign import campaign
from tests.simulation.cluster.mutants import MUTANTS
from tests.simulation.cluster.schedule import draw
from tests.simulation.cluster.shrink import failure_of, kind_of, shrink, story
from tests.simulation.directed import DIRECTED


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description="Play clusters in a simulated world, one per seed."
    )
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default 2000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument(
        "--story", action="store_true", help="tell what happens in the first seed, whether it fails or not"
    )
    parser.add_argument("--mutants", action="store_true", help="play each known mutant, in the world of its seed")
    parser.add_argument("--search", action="store_true", help="with --mutants: search for seeds that catch them")
    parser.add_argument("--pin", action="store_true", help="with --mutants: search, and write down the seeds found")
    parser.add_argument("--only", metavar="WORDS", default="", help="with --mutants: those with WORDS in their names")
    chosen = parser.parse_args()
    if chosen.seeds < 1 or (chosen.jobs or 0) < 1:
        parser.error("--seeds and --jobs count from 1")
    if chosen.story:
        print(story(draw(chosen.first), lines=100_000))
        return 0
    if chosen.mutants:
        return play_mutants(chosen.jobs, chosen.only, chosen.search or chosen.pin, chosen.pin)
    return play_worlds(chosen.first, chosen.seeds, chosen.jobs)


def play_worlds(first: int, seeds: int, jobs: int) -> int:
    began = time.monotonic()
    failures: list[tuple[int, str]] = []
    done = 0
    for count, failed in campaign(first, seeds, jobs):
        done += count
        failures += failed
        rate = done / (time.monotonic() - began) * 60
        print(f"{done} of {seeds} seeds, {len(failures)} failed, {rate:.0f} a minute", flush=True)
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


def play_mutants(jobs: int, only: str, search: bool, pin: bool) -> int:
    """What is known to catch each; then a search for seeds that catch those that got away."""
    pinned = hunt.load()
    wanted = sorted(name for name in MUTANTS if only in name)
    known = {name: pinned.get(name, 0) for name in wanted if name in pinned or name in DIRECTED}
    missed = [name for name in wanted if name not in known]
    for name in missed:
        print(f"{name}: no seed is written down", flush=True)
    for tried in hunt.play_known(known, jobs):
        if not tried.caught:
            missed.append(tried.mutant)
            print(f"{tried.mutant}: {tried.words}", flush=True)
    found = search_for([name for name in missed if name not in DIRECTED], jobs) if search else {}
    if pin:
        hunt.save({name: seed for name, seed in (pinned | found).items() if name in MUTANTS and name not in DIRECTED})
    elif found:
        print("put the lines above into tests/simulation/cluster/pinned.toml, or run: scripts/simulate --mutants --pin")
    failed = len(set(missed) - set(found))
    print(f"{len(wanted) - failed} passed, {failed} failed")
    return 1 if failed else 0


def search_for(mutants: list[str], jobs: int) -> dict[str, int]:
    """The seeds found; each is printed as a line of the table."""
    found: dict[str, int] = {}
    for tried in hunt.hunt(mutants, jobs):
        if tried.seed is None:
            print(f"{tried.mutant}: {tried.words}", flush=True)
        else:
            found[tried.mutant] = tried.seed
            print(f"{hunt.line(tried.mutant, tried.seed)}  # {tried.words}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
