"""The common part of the stories made by hand: the steps of a cluster of ``tests.simulation.world``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.modes import Mode
from tests.simulation.world import Cluster

LIMIT_S = 60.0
STEP_S = 0.01


def until(cluster: Cluster, condition: Callable[[], bool], what: str, step_seconds: float = STEP_S) -> None:
    """Let the world go on until something is true; after each step the ring is drained."""
    end = cluster.now + LIMIT_S
    while not condition():
        assert cluster.now < end, f"not within {LIMIT_S} s: {what}"
        cluster.step(step_seconds)


def in_sync(cluster: Cluster) -> bool:
    brain = cluster.brain
    at_rest = brain.mode is Mode.NORMAL and not len(brain.state.unsettled) and brain.state.in_flight.empty
    return at_rest and brain.state.acknowledged == brain.state.sequence and not cluster.kernel.flying


def everything(cluster: Cluster) -> Runs:
    return Runs(np.array([0]), np.array([cluster.kernel.blocks]))


def write(cluster: Cluster, block: int) -> None:
    identifier = cluster.kernel.submit(block)
    assert identifier is not None
    cluster.kernel.complete(identifier)
