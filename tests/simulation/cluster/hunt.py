"""Each known mutant is caught by the world of a seed that is written down; when it no longer is, another is searched for.

Some are caught by a story made by hand instead (``tests.simulation.directed``). A mutant is caught when a promise or an
assertion breaks, or a world does not end. An error of programming tells only that the mutant no longer fits the code that
it patches: that counts as not caught.
"""

from __future__ import annotations

import multiprocessing
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.cluster.campaign import failures, told
from tests.simulation.cluster.mutants import MUTANTS
from tests.simulation.directed import DIRECTED

TABLE = Path(__file__).with_name("pinned.toml")
# A mutant that this many seeds do not catch is a gap in the simulation. Most are caught by the first ten; the seed that
# shows a rare one changes with everything that changes the worlds, so the budget is many times what it takes on average.
BUDGET = 6000
PIECE = 10
MISFITS = (AttributeError, NameError, TypeError, ImportError, StopIteration)
HEAD = """\
# For each mutant of mutants.py the seed of a world in which it is caught.
# scripts/simulate --mutants plays them; with --pin it also searches for those that are no longer caught, and writes this.
"""


@dataclass(frozen=True)
class Tried:
    """What became of a mutant. ``seed`` is of the world that caught it; None when it was none, or a directed story did."""

    mutant: str
    caught: bool
    words: str
    seed: int | None = None


def load(path: Path = TABLE) -> dict[str, int]:
    """The catching seed of each mutant that has one written down."""
    return tomllib.loads(path.read_text())


def line(mutant: str, seed: int) -> str:
    """The line of the table for a mutant."""
    return f'"{mutant}" = {seed}'


def save(pinned: dict[str, int], path: Path = TABLE) -> None:
    path.write_text(HEAD + "".join(f"{line(mutant, seed)}\n" for mutant, seed in sorted(pinned.items())))


def try_seeds(mutant: str, first: int, count: int = 1) -> Tried:
    """Play worlds with a mutant until one of them catches it."""
    with MUTANTS[mutant]():
        for seed, error in failures(first, count):
            if isinstance(error, MISFITS):
                return Tried(mutant, False, f"the mutant no longer fits the code: {told(error)}")
            return Tried(mutant, True, told(error), seed)
    worlds = f"the world of seed {first}" if count == 1 else f"{count} worlds from seed {first} on"
    return Tried(mutant, False, f"not caught in {worlds}")


def try_directed(mutant: str) -> Tried:
    """Play the mutant's own story, first without it: that must go well."""
    DIRECTED[mutant]()
    with MUTANTS[mutant]():
        try:
            DIRECTED[mutant]()
        except AssertionError as error:
            return Tried(mutant, True, str(error)[:300])
    return Tried(mutant, False, "not caught by its directed story")


def _tried(bounds: tuple[str, int, int]) -> Tried:
    try:
        return try_seeds(*bounds) if bounds[0] not in DIRECTED else try_directed(bounds[0])
    except Exception as error:  # its patch cannot even be applied
        return Tried(bounds[0], False, f"the mutant no longer fits the code: {type(error).__name__}: {error}")


def play_known(pinned: dict[str, int], jobs: int) -> Iterator[Tried]:
    """Each mutant in the world of its seed, or in its story; as they come."""
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_tried, [(mutant, seed, 1) for mutant, seed in pinned.items()])


def hunt(mutants: Iterable[str], jobs: int, budget: int = BUDGET) -> Iterator[Tried]:
    """For each mutant a seed that catches it, or none: as one search, in which all take turns."""
    first = dict.fromkeys(mutants, 0)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        while first:
            turns = -(-2 * jobs // len(first))
            pieces = [(m, at + turn * PIECE, PIECE) for m, at in first.items() for turn in range(turns)]
            for tried in pool.imap_unordered(_tried, pieces):
                if tried.caught and tried.mutant in first:
                    del first[tried.mutant]
                    yield tried
            for mutant in list(first):
                first[mutant] += turns * PIECE
                if first[mutant] >= budget:
                    del first[mutant]
                    yield Tried(mutant, False, f"not caught in {budget} worlds")
