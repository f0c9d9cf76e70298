"""A secondary that is not the one the maps were kept for is noticed."""

from __future__ import annotations

import pytest

from pydbt.core.primary.events import Connected
from pydbt.core.primary.position_check import doubt_about


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (Connected("other", "consistent", 5, 10, False, False), "another replica"),
        (Connected("mine", "inconsistent", 0, 0, False, True), "anew"),
        (Connected("mine", "consistent", 5, 9, False, False), "went back"),
        (Connected("mine", "consistent", 5, 10, False, False), ""),
        (Connected("mine", "inconsistent", 6, 0, False, False), ""),
        (Connected("mine", "consistent", 4, 99, False, False), "does not know"),
    ],
)
def test_a_secondary_that_is_not_the_one_the_maps_were_kept_for_is_noticed(said, word):
    doubt = doubt_about("mine", (5, 10), said, assumed=False, later_epochs=(6, 7))
    assert word in doubt and bool(doubt) == bool(word)


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        (Connected("mine", "consistent", 5, 10, False, False), True),
        (Connected("mine", "consistent", 5, 10, True, False), False),  # it is still there
        (Connected("mine", "inconsistent", 5, 10, False, False), False),  # and so it is in a resynchronization in place
        (Connected("mine", "consistent", 7, 10, False, False), False),  # completed, and nobody lived to hear of it
    ],
)
def test_a_secondary_that_has_lost_what_it_had_got_of_a_resynchronization_is_noticed(said, lost):
    doubt = doubt_about("mine", (5, 10), said, assumed=False, later_epochs=(6, 7), unfinished=True)
    assert bool(doubt) == lost


def test_a_secondary_that_has_all_it_ever_told_of_has_lost_nothing_though_its_stage_was_not_begun():
    """Blocks that were compared and equal were acknowledged before the BEGIN in its journal was durable."""
    said = Connected("mine", "consistent", 5, 10, False, False, progress=100)
    assert not doubt_about("mine", (5, 10), said, assumed=False, unfinished=True, progress=100)
    assert doubt_about("mine", (5, 10), said, assumed=False, unfinished=True), (
        "where no progress is known, that is all there is"
    )


@pytest.mark.parametrize(
    ("told", "progress", "lost"),
    [
        (99, 100, True),
        (0, 100, True),  # nothing of it is there any more
        (100, 100, False),
        (101, 100, False),
        (None, 100, False),  # an older secondary does not tell
        (0, 0, False),  # nor was it ever told
    ],
)
@pytest.mark.parametrize("staged", [False, True])
def test_a_secondary_with_less_than_it_had_acknowledged_of_the_copy_under_way_is_noticed(told, progress, lost, staged):
    said = Connected("mine", "inconsistent", 5, 10, staged, False, progress=told)
    doubt = doubt_about("mine", (5, 10), said, assumed=False, later_epochs=(6, 7), progress=progress)
    assert ("went back" in doubt) == bool(doubt) == lost
