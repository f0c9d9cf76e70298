"""The first blocks of a comparison after a power loss: the latest writes of the secondary, those in the log, and earlier ones."""

from __future__ import annotations

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.events import SendFrame
from pydbt.core.primary.likely import ASKED_PART, LATEST_PART, Likely
from pydbt.core.protocol.frames import Unwritable
from pydbt.core.protocol.recent import Recall, Recent
from pydbt.core.units import GIB, Geometry
from tests.core.primary.parts import runs, taken_effects
from tests.core.primary.test_recognition import known, said

BLOCKS = 1024


def pairs(of: Runs) -> list[tuple[int, int]]:
    return list(zip(of.firsts.tolist(), of.counts.tolist(), strict=True))


def test_the_latest_writes_come_first_then_the_log_and_then_earlier_writes() -> None:
    likely = Likely(Geometry(BLOCKS * 4096))
    likely.by_log(runs((500, 3), (20, 1)))
    assert pairs(likely.runs) == [(500, 3), (20, 1)]
    likely.written_last(Recent(runs((7, 2), (3, 2), (9, 1)), 4096))
    assert BLOCKS // LATEST_PART == 4
    assert pairs(likely.runs) == [(7, 2), (3, 2), (500, 3), (20, 1), (9, 1)]
    likely.by_log(runs((1, 1)))
    assert pairs(likely.runs) == [(7, 2), (3, 2), (1, 1), (9, 1)], "whichever is told first"
    likely.forget()
    assert not likely.runs.total()


@pytest.mark.parametrize(("block_bytes", "found"), [(512, [(24, 16)]), (4096, [(3, 2)]), (16384, [(0, 2)])])
def test_units_are_told_in_blocks_of_the_volume(block_bytes: int, found: list[tuple[int, int]]) -> None:
    likely = Likely(Geometry(1 << 22, block_bytes))
    likely.written_last(Recent(runs((3, 2)), 4096))
    assert pairs(likely.runs) == found


def test_no_more_is_asked_for_than_would_be_an_order() -> None:
    assert Likely(Geometry(ASKED_PART * 4096)).question == Recall(4096)
    assert Likely(Geometry(1 << 46)).question == Recall(GIB)


@pytest.mark.parametrize(("recalls", "fresh"), [(True, False), (False, False), (True, True)])
def test_a_secondary_is_asked_when_everything_is_to_be_compared_if_it_understands(recalls: bool, fresh: bool) -> None:
    state, recognition = known()
    recognition.connected(said(recalls=recalls))
    state.replica.fresh = fresh  # with one that holds nothing, nothing is compared
    taken_effects(state)
    assert recognition.search_begins() is recognition.scan_whole
    asked = [effect.frame for effect in taken_effects(state) if isinstance(effect, SendFrame)]
    assert asked == ([state.likely.question] if recalls and not fresh else [])


def test_recent_blocks_are_likely_to_differ_and_unwritable_blocks_are_unwritable() -> None:
    state, recognition = known()
    recognition.told(Recent(runs((5, 2)), 4096))
    assert pairs(state.likely.runs) == [(5, 2)] and not state.replica.unwritable.total()
    recognition.told(Unwritable(runs((9, 1)), 4096))
    assert pairs(state.likely.runs) == [(5, 2)] and state.replica.unwritable.blocks().tolist() == [9]


def test_an_answer_that_names_what_no_volume_has_disturbs_nothing() -> None:
    likely = Likely(Geometry(BLOCKS * 4096))
    likely.written_last(Recent(Runs(np.array([1 << 54]), np.array([9])), 4096))
    assert pairs(likely.runs) == [(1 << 54, 9)], "Sweep leaves it out"
