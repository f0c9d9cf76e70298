"""The moment that a secondary is told is never later than what is known, and what it lacks never less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.standing import RingMoment, Shortage, is_followed, vouched_for
from pydbt.core.units import Geometry

BEFORE, HERE = RingMoment("16:19:22", 100), RingMoment("16:19:23", 200)


@pytest.mark.parametrize(("taken_in", "moment"), [(50, BEFORE), (199, BEFORE), (200, HERE), (300, HERE)])
def test_a_moment_counts_when_all_that_was_captured_before_it_is_taken_in(taken_in: int, moment: RingMoment) -> None:
    assert vouched_for(taken_in, HERE, BEFORE) == moment


def test_a_secondary_follows_a_moment_in_a_following_mode_without_a_taint_when_its_writes_are_numbered() -> None:
    assert is_followed(Mode.NORMAL, False, 100, BEFORE)
    assert is_followed(Mode.SNAPSHOTS, False, 100, BEFORE)
    assert not is_followed(Mode.NORMAL, False, 99, BEFORE)
    assert not is_followed(Mode.NORMAL, True, 100, BEFORE)
    assert not is_followed(Mode.RESYNCHRONIZING, False, 100, BEFORE)


def test_the_shortage_is_the_largest_possible_and_unknown_before_the_blocks_in_use_are_known() -> None:
    shortage = Shortage(known=True, out_of_sync_bytes=10, unacknowledged_bytes=30)
    assert replace(shortage, known=False).behind_bytes(Mode.NORMAL, 5) is None
    assert shortage.behind_bytes(Mode.NORMAL, 5) == 30
    assert replace(shortage, unacknowledged_bytes=3).behind_bytes(Mode.NORMAL, 5) == 10
    assert shortage.behind_bytes(Mode.UNSYNCHRONIZED, 5) == 15, "the kernel's bitmaps name more"


@pytest.mark.parametrize("scanned", [False, True])
def test_the_shortage_has_the_figures_of_the_status(scanned: bool) -> None:
    config = PrimaryConfig(Geometry(64 * 4096, 4096), epoch=7, initial=False, scan_used=not scanned)
    brain = Primary(config, 0.0)
    brain.state.tracker.pending.set_blocks(np.array([3, 4, 9]))
    shortage, status = brain.overview.shortage(brain.resync), brain.status(0.0)
    assert (
        (shortage.known, shortage.out_of_sync_bytes) == (status.known, status.out_of_sync_bytes) == (scanned, 3 * 4096)
    )
    assert shortage.unacknowledged_bytes == status.unacknowledged_bytes
