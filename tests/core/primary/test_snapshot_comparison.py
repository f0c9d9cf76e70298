"""A verification with addresses only: what the secondary wanted of blocks that nobody had touched."""

from __future__ import annotations

from math import inf

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.events import BlocksRead, VerifyEnded
from pydbt.core.primary.snapshot_comparison import SnapshotComparison
from pydbt.core.primary.state import State
from pydbt.core.primary.taints import Taints
from pydbt.core.protocol.frames import Want
from tests.core.primary.parts import lines, pending_of, runs, state_of, taken_effects


def comparing() -> tuple[State, SnapshotComparison]:
    state = state_of(taints=("something was not seen",))
    state.tracker.pending.set_range(1, 1)
    comparison = SnapshotComparison(state)
    comparison.begin(runs((0, 8)), True, None, 0.0, state.taint_numbers)
    assert comparison.join() == state.taint_numbers == (1,) and comparison.under_way
    return state, comparison


def test_the_blocks_asked_for_are_read_with_the_next_snapshot() -> None:
    state, comparison = comparing()
    assert pending_of(state) == list(range(8)) and comparison.resume_block() == 0


def test_only_blocks_that_nobody_wrote_count_as_different() -> None:
    state, comparison = comparing()
    comparison.touched(np.array([1 << 2], np.uint64))
    comparison.wanted(np.array([1, 2, 5]))
    comparison.committed()
    assert taken_effects(state) == [VerifyEnded(8, 1, ((5, 1),))]
    assert comparison.current is None and not comparison.under_way


def test_a_comparison_without_a_difference_tells_how_much_was_compared() -> None:
    state, comparison = comparing()
    comparison.committed()
    assert "32.0 KiB were compared" in lines(state, "info")[0]
    assert taken_effects(state) == [VerifyEnded(8, 0, ())]


def test_free_space_that_was_never_copied_is_no_difference() -> None:
    state = state_of()
    state.left_out.add(runs((4, 3)))
    comparison = SnapshotComparison(state)
    comparison.begin(runs((0, 8)), True, None, 0.0)
    comparison.join()
    state.left_out.given(runs((0, 8)))  # it is read
    comparison.wanted(np.array([3, 5, 6]))
    comparison.committed()
    assert taken_effects(state) == [VerifyEnded(8, 1, ((3, 1),), 2)]


def test_the_progress_is_the_blocks_that_have_left_the_map() -> None:
    state, comparison = comparing()
    state.tracker.pending.clear()
    comparison.wanted(np.array([5]))
    progress = comparison.progress()
    assert progress is not None and (progress.done_bytes, progress.total_bytes) == (8 * 4096, 8 * 4096)


def test_a_cancelled_comparison_ends_without_a_message() -> None:
    state, comparison = comparing()
    comparison.cancel()
    comparison.wanted(np.array([5]))
    comparison.committed()
    assert not taken_effects(state) and comparison.progress() is None and comparison.resume_block() == 64
    assert comparison.join() == () and not comparison.under_way
    comparison.touched(np.array([1], np.uint64))


def test_a_snapshot_under_way_ends_no_verification_that_was_asked_for_after_it_began() -> None:
    state, comparison = comparing()
    comparison.begin(runs((32, 8)), False, None, 1.0)
    comparison.committed()
    assert not taken_effects(state), "its blocks were not compared by that snapshot"
    progress = comparison.progress()
    assert progress is not None and progress.done_bytes == 0
    comparison.join()
    comparison.committed()
    assert taken_effects(state) == [VerifyEnded(8, 0, ())]


def test_a_taint_of_the_same_words_that_comes_up_before_the_snapshot_is_not_answered_by_it() -> None:
    state = state_of(taints=("something was not seen",))
    comparison, taints = SnapshotComparison(state), Taints(state)
    comparison.begin(runs((0, 8)), True, None, 0.0, state.taint_numbers)
    taints.add("something was not seen")
    taints.answered_by_landing(comparison.join())
    taints.landed()
    assert list(state.taints) == ["something was not seen"], "the blocks in use were looked for before it"


def test_a_snapshot_comparison_reads_nothing_by_itself() -> None:
    _, comparison = comparing()
    comparison.pause(0.0)
    comparison.touch(runs((0, 1)))
    assert not comparison.awaiting and comparison.deadline() == inf and comparison.advance(0.0) is None
    assert (
        not comparison.read(BlocksRead(1, 0, 0), 0.0) and comparison.want(Want(batch=1, units=Runs.none()), 0.0) is None
    )


def test_with_a_secondary_that_compares_nothing_no_snapshot_is_a_verification() -> None:
    state = state_of()
    comparison = SnapshotComparison(state)
    comparison.begin(runs((0, 4)), True, None, 0.0)
    state.replica.compares = False  # it came back with an older program
    assert comparison.join() == () and comparison.current is None and not comparison.under_way
    comparison.begin(runs((0, 4)), True, None, 0.0)
    assert comparison.current is None and "update it" in lines(state, "error")[0]
