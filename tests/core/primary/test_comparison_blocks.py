"""The blocks of a comparison: blocks that are free now do not count, and their state at the first copy decides nothing."""

from __future__ import annotations

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.comparison_blocks import ComparisonBlocks, blocks_to_compare
from pydbt.core.primary.events import UsedBlocks
from tests.core.primary.parts import runs

VOLUME = runs((0, 8))


def numbers(chosen: ComparisonBlocks) -> tuple[list[int], list[int], list[int]]:
    compared, free, in_use = (one.blocks().tolist() for one in (chosen.runs, chosen.free, chosen.in_use))
    return compared, free, in_use


def used(*pairs: tuple[int, int]) -> UsedBlocks:
    return UsedBlocks(runs(*pairs), "by its file system")


def test_for_a_taint_what_is_in_use_now_is_compared_and_counts_although_the_first_copy_left_it_out() -> None:
    chosen = blocks_to_compare(VOLUME, runs((4, 4)), used((0, 2), (5, 1)), untold=False, tainted=True, free_too=False)
    assert numbers(chosen) == ([0, 1, 2, 3, 5], [], [0, 1, 5]), "2 and 3 were copied: nothing says that they are equal"


def test_where_no_file_system_tells_everything_is_compared() -> None:
    unknown = UsedBlocks(VOLUME, "not mounted", whole=True)
    for untold in (False, True):
        chosen = blocks_to_compare(VOLUME, runs((4, 4)), unknown, untold=untold, tainted=True, free_too=False)
        assert numbers(chosen) == (list(range(8)), [], [])


def test_an_earlier_version_did_not_write_down_what_it_left_out() -> None:
    chosen = blocks_to_compare(VOLUME, Runs.none(), used((0, 2), (5, 1)), untold=True, tainted=True, free_too=False)
    assert numbers(chosen) == ([0, 1, 5], [2, 3, 4, 6, 7], [0, 1, 5])
    chosen = blocks_to_compare(VOLUME, Runs.none(), used((0, 6)), untold=True, tainted=False, free_too=True)
    assert numbers(chosen) == (list(range(8)), [6, 7], [])


def test_a_comparison_on_command_looks_at_free_space_too_and_one_that_answers_a_taint_tells_what_is_in_use() -> None:
    chosen = blocks_to_compare(VOLUME, runs((4, 4)), used((0, 5)), untold=False, tainted=True, free_too=True)
    assert numbers(chosen) == (list(range(8)), [], list(range(5)))


def test_a_comparison_that_resumes_looks_at_the_rest() -> None:
    chosen = blocks_to_compare(runs((6, 2)), Runs.none(), used((0, 7)), untold=True, tainted=False, free_too=True)
    assert numbers(chosen) == ([6, 7], [7], [])


def test_parts_of_one_block_that_are_in_use_are_that_block() -> None:
    parts = used((1, 1), (1, 1), (1, 2))  # a file system with smaller blocks
    chosen = blocks_to_compare(VOLUME, runs((0, 8)), parts, untold=False, tainted=True, free_too=False)
    assert numbers(chosen) == ([1, 2], [], [1, 2])
