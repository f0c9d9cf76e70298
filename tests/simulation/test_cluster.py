"""Whole clusters of the real controllers in simulated worlds: whatever fails, no promise is broken."""

from __future__ import annotations

import os
import random

import pytest

from pydbt.core.errors import WireError
from pydbt.core.protocol.frames import Ping
from pydbt.core.protocol.wire import encode
from tests.lab.decoder import Decoder
from tests.simulation.cluster import hunt
from tests.simulation.cluster.campaign import campaign, play_seeds
from tests.simulation.cluster.checkers import Violation
from tests.simulation.cluster.mutants import MUTANTS
from tests.simulation.cluster.schedule import draw
from tests.simulation.cluster.shrink import failure_of, kind_of, shrink, story
from tests.simulation.directed import DIRECTED

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "100"))
FIRST = int(os.environ.get("SIMULATION_FIRST") or random.SystemRandom().randrange(1 << 31))
PINNED = hunt.load()


@pytest.mark.timeout(1800)
def test_new_worlds_lose_nothing_lie_about_nothing_and_come_to_rest():
    print(f"play them again: SIMULATION_FIRST={FIRST}, or scripts/simulate --first {FIRST} --seeds {SEEDS}")
    failed = [failure for _, failures in campaign(FIRST, SEEDS, os.cpu_count() or 1) for failure in failures]
    if failed:
        plan = draw(failed[0][0])
        error = failure_of(plan)
        told = story(shrink(plan, kind_of(error), patience=100)) if error else ""
        pytest.fail(f"{len(failed)} of {SEEDS} seeds failed: {failed[:5]}\n{told}", pytrace=False)


@pytest.mark.parametrize(
    "seed",
    [
        110422,  # a map written for another secondary's flip was taken for this one's, and old content overtook new
        1466823822,  # a secondary was put back, and the controller that noticed was killed before its map was written
        1629221,  # a new name was lost with a connection that was dead at one end alone, and came with the next one
        345,  # two secondaries were removed by one write, and the answer to the first removal told of both
        31001159,  # a block that the source cannot read was of a transaction that was told to be held
        31001154,  # what was left out was kept for one flip, and taken for kept for the flip of another secondary
        1484829295,  # a write was on its way through one stop, one start and one more stop
        1679523773,  # a write failed, a secondary was added, and the one that had seen it was removed: it was told as committed
        880395712,  # killed just as a secondary was added and the volume took a new name: no start went well after that
        1211236943,  # the last secondary was removed while the last writes went out before the end
    ],
)
def test_a_world_that_failed_once_holds(seed: int):
    assert failure_of(draw(seed)) is None


def test_a_seed_is_the_same_world_every_time():
    assert story(draw(7), 10_000) == story(draw(7), 10_000)


@pytest.mark.parametrize("name", sorted(set(MUTANTS) - set(DIRECTED)))
def test_the_simulation_catches(name):
    """In the world of the seed that is written down in pinned.toml; scripts/simulate --mutants --pin finds another."""
    assert name in PINNED, "scripts/simulate --mutants --pin searches for a seed"
    tried = hunt.try_seeds(name, PINNED[name])
    assert tried.caught, f"{tried.words}: scripts/simulate --mutants --pin searches for another seed"


@pytest.mark.parametrize("name", sorted(DIRECTED))
def test_a_story_made_by_hand_catches(name):
    tried = hunt.try_directed(name)
    assert tried.caught, tried.words


@pytest.mark.variant
def test_without_a_mutant_nothing_fails_in_the_worlds_that_catch_them():
    assert not [failure for seed in sorted(set(PINNED.values())) for failure in play_seeds(seed, 1)]


def test_every_pinned_seed_and_every_story_is_of_a_mutant():
    assert set(PINNED) | set(DIRECTED) <= set(MUTANTS)
    assert not set(PINNED) & set(DIRECTED)


def test_a_failure_is_shrunk_to_fewer_operations_and_told():
    with MUTANTS["the quiet bitmap is zeroed before its writes are acknowledged"]():
        plan, error = next((plan, error) for plan in map(draw, range(100)) if (error := failure_of(plan)) is not None)
        assert isinstance(error, Violation)
        less = shrink(plan, kind_of(error), patience=25)
        assert len(less.ops) < len(plan.ops) / 2
        assert kind_of(failure_of(less)) == kind_of(error)
        assert error.promise in story(less)


def test_a_damaged_byte_is_a_typed_error_wherever_it_is():
    data = bytearray(b"".join(encode(Ping(token=5), 0)))
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 4
        decoder = Decoder()
        decoder.feed(damaged + bytes(64))
        with pytest.raises(WireError):
            list(decoder)
