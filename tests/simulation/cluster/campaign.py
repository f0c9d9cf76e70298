"""Many seeds over several processes, and what became of them."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator

from tests.simulation.cluster.schedule import draw
from tests.simulation.cluster.shrink import failure_of, kind_of

# A world takes tens of milliseconds. One that takes this long goes round in circles without its clock moving.
WORLD_S = 60
PIECE = 25


class Hangs(Exception):
    """A world that does not come to an end."""


def failures(first: int, count: int) -> Iterator[tuple[int, Exception]]:
    """The seeds that fail, each with its error, as they are found."""

    def too_long(*_: object) -> None:
        raise Hangs(f"no end after {WORLD_S} s")

    # By the processor's time: a machine with much to do makes no world endless.
    before = signal.signal(signal.SIGVTALRM, too_long)
    try:
        for seed in range(first, first + count):
            signal.setitimer(signal.ITIMER_VIRTUAL, WORLD_S)
            error = failure_of(draw(seed))
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            if error is not None:
                yield seed, error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def told(error: Exception) -> str:
    """An error in one line."""
    return f"{kind_of(error)}: {error}"[:300]


def play_seeds(first: int, count: int) -> list[tuple[int, str]]:
    """The seeds that failed, each with what it broke."""
    return [(seed, told(error)) for seed, error in failures(first, count)]


def _piece(bounds: tuple[int, int]) -> tuple[int, list[tuple[int, str]]]:
    return bounds[1], play_seeds(*bounds)


def campaign(first: int, seeds: int, jobs: int) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """(seeds played, those that failed), piece by piece as they come."""
    pieces = [(begin, min(PIECE, first + seeds - begin)) for begin in range(first, first + seeds, PIECE)]
    # Not forked: the process may have threads of other tests.
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(pieces))) as pool:
        yield from pool.imap_unordered(_piece, pieces)
