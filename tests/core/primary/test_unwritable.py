"""Blocks that the secondary's target does not take are out of sync on the primary, and end no wait, until it says otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.quiet_bitmap import PERSIST_RETRY_S, QuietBitmap
from pydbt.core.primary.recognition import Recognition
from pydbt.core.primary.reported_state import reported_state
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.settler import Settler
from pydbt.core.protocol.frames import Ack, Unwritable
from pydbt.core.units import Geometry
from tests.core.primary.parts import lines, only, pending_of, runs, state_of, taken_effects
from tests.core.primary.test_brain import Shell, in_sync
from tests.core.primary.test_recognition import known, said

INCONSISTENT, UP_TO_DATE = 0, 3


def word_of(shell: Shell) -> str:
    return reported_state(shell.brain.status(shell.now), 0.0, 0)


def says(shell: Shell, *blocks: int) -> list[ev.Effect]:
    """The secondary names these blocks, and then its state."""
    effects = shell.feed(ev.Received(Unwritable(Runs.of_blocks(np.array(blocks, np.int64)), 4096)))
    state = INCONSISTENT if blocks else UP_TO_DATE
    return effects + shell.feed(ev.Received(Ack(shell.brain.state.acknowledged, replica_state=state)))


def test_unwritable_blocks_count_are_named_and_keep_the_replica_from_being_called_usable() -> None:
    shell = in_sync()
    effects = says(shell, 5, 6)
    brain = shell.brain
    assert brain.status(0.0).unwritable.blocks().tolist() == [5, 6] and word_of(shell) == "inconsistent"
    assert brain.out_of_sync_bytes() >= 2 * 4096
    assert brain.mode is Mode.NORMAL
    assert any(
        isinstance(effect, ev.Log) and "8.0 KiB of the secondary's target" in effect.message for effect in effects
    )
    says(shell)
    assert word_of(shell) == "up-to-date" and brain.out_of_sync_bytes() == 0


def test_a_wait_ends_when_the_target_has_taken_the_unwritable_blocks() -> None:
    shell = in_sync()
    says(shell, 5)
    assert not [effect for effect in shell.feed(ev.WaitAsked(9, shell.position)) if isinstance(effect, ev.AnswerWait)]
    assert ev.AnswerWait(9) in says(shell)


def test_a_wait_without_a_time_limit_ends_when_everything_else_is_there() -> None:
    shell = in_sync()
    asked = ev.WaitAsked(9, shell.position, patient=False)
    assert ev.AnswerWait(9) in shell.feed(asked)
    says(shell, 5)
    shell.feed(ev.WaitGone(9))
    assert ev.AnswerWait(9, lacks=True) in shell.feed(asked)
    assert not [effect for effect in shell.feed(ev.Tick()) if isinstance(effect, ev.AnswerWait)], "once"
    assert ev.AnswerWait(9) in says(shell), "somebody may wait for the first of several"


@pytest.mark.parametrize("settings", [{}, {"snapshot_interval_s": 60.0}], ids=["stream", "snapshots"])
def test_unwritable_blocks_are_in_every_map_that_is_written_and_one_is_written_for_them(
    settings: dict[str, float],
) -> None:
    shell = in_sync(**settings)
    shell.now += 10.0
    effects = says(shell, 5) + shell.feed(ev.Tick())
    assert any(isinstance(effect, ev.Persist) for effect in effects)
    assert shell.brain.unsynchronized_map().extents().blocks().tolist() == [5]


@pytest.mark.parametrize("settings", [{}, {"snapshot_interval_s": 60.0}], ids=["stream", "snapshots"])
def test_a_map_that_could_not_be_written_is_written_again_for_unwritable_blocks(settings: dict[str, float]) -> None:
    shell = in_sync(**settings)
    shell.now += 10.0
    (failed,) = [effect for effect in says(shell, 5) + shell.feed(ev.Tick()) if isinstance(effect, ev.Persist)]
    shell.feed(ev.Persisted(zeroed=False, error="no space left", number=failed.number))
    shell.now += PERSIST_RETRY_S + 1.0
    assert any(isinstance(effect, ev.Persist) for effect in shell.feed(ev.Tick()))


def test_unwritable_blocks_are_compared_by_the_next_image_although_nothing_was_written() -> None:
    shell = in_sync(snapshot_interval_s=60.0)
    says(shell, 5)
    before = len(shell.done)
    shell.tick(61.0)
    read = [effect for effect in shell.done[before:] if isinstance(effect, ev.ReadBlocks)]
    assert [effect.runs.blocks().tolist() for effect in read] == [[5]]
    before = len(shell.done)
    shell.tick(61.0)
    assert not [effect for effect in shell.done[before:] if isinstance(effect, ev.ReadBlocks)], "once"


def test_a_block_that_is_pending_as_well_counts_once() -> None:
    shell = in_sync()
    says(shell, 5)
    shell.feed(ev.Disconnected("cut"))
    pending = shell.brain.state.tracker.pending
    pending.set_range(4, 3)
    assert shell.brain.out_of_sync_bytes() == pending.count() * 4096
    assert word_of(shell) == "inconsistent", "nobody has said otherwise"


def told(units: Runs, unit_bytes: int, geometry: Geometry) -> tuple[Recognition, object]:
    state, recognition = known()
    state.geometry = geometry
    recognition.cannot_write(Unwritable(units, unit_bytes))
    return recognition, state


def test_units_of_another_size_are_the_blocks_that_they_touch() -> None:
    for block_bytes, expected in ((1024, [8, 9, 10, 11]), (16384, [0])):
        _, state = told(runs((2, 1)), 4096, Geometry(64 * 4096, block_bytes))
        assert state.replica.unwritable.blocks().tolist() == expected
    _, state = told(runs((15, 9), (90, 1)), 4096, Geometry(16 * 4096, 4096))
    assert state.replica.unwritable.blocks().tolist() == [15], "a target may be larger than its volume"


def test_the_operator_is_told_when_more_blocks_become_unwritable() -> None:
    recognition, state = told(runs((2, 1)), 4096, Geometry(64 * 4096, 4096))
    recognition.cannot_write(Unwritable(runs((2, 1)), 4096))
    recognition.cannot_write(Unwritable(runs(), 4096))
    assert len(lines(state, "error")) == 1


def test_new_unwritable_blocks_are_compared_in_normal_mode_and_once() -> None:
    """The secondary lacks the earlier data of a block that it can neither read nor write."""
    state = state_of(mode=Mode.NORMAL)
    recognition, settler = Recognition(state), Settler(state)
    recognition.cannot_write(Unwritable(runs((5, 2)), 4096))
    settler.advance(0.0, hurry=True)
    assert only(taken_effects(state), ev.ReadBlocks).runs.blocks().tolist() == [5, 6]
    recognition.cannot_write(Unwritable(runs((5, 3)), 4096))
    assert state.replica.take_doubtful().tolist() == [7]
    assert state.replica.take_doubtful().tolist() == []


def test_new_unwritable_blocks_are_compared_by_the_next_resynchronization() -> None:
    state = state_of(mode=Mode.RESYNCHRONIZING)
    Recognition(state).cannot_write(Unwritable(runs((5, 2)), 4096))
    Resync(state, QuietBitmap(state, 0.0), 1, 0.0)
    assert pending_of(state) == [5, 6] and not state.replica.doubtful.total()


def test_a_secondary_that_comes_back_is_compared_there_again() -> None:
    state, recognition = known()
    recognition.cannot_write(Unwritable(runs((5, 2)), 4096))
    state.replica.take_doubtful()
    recognition.connected(replace(said(), state="inconsistent"))
    recognition.cannot_write(Unwritable(runs((6, 2)), 4096))
    assert state.replica.take_doubtful().tolist() == [5, 6, 7]


def test_staged_blocks_count_although_the_image_lacks_a_block() -> None:
    """Once the target has taken the block, a promotion would go back to that image."""
    state, recognition = known()
    recognition.connected(replace(said(), state="inconsistent"))
    assert state.rolled_back is None
    recognition.cannot_write(Unwritable(runs((5, 2)), 4096))
    recognition.replica_says(Ack(0, replica_state=INCONSISTENT))
    assert state.rolled_back is state.staged
    recognition.cannot_write(Unwritable(runs(), 4096))
    recognition.replica_says(Ack(0, replica_state=INCONSISTENT))
    assert state.rolled_back is None


def test_the_unwritable_blocks_are_forgotten_with_the_next_welcome() -> None:
    state, recognition = known()
    recognition.cannot_write(Unwritable(runs((5, 2)), 4096))
    recognition.connected(said())
    assert not state.replica.unwritable.total()
    assert state.replica.take_doubtful().tolist() == [5, 6], "and is compared once more"


def test_unwritable_blocks_count_as_before_between_the_welcome_and_the_report_of_them() -> None:
    shell = in_sync()
    says(shell, 5, 6)
    shell.feed(ev.Disconnected("cut"))
    brain = shell.brain
    brain.state.tracker.pending.clear()
    brain._recognition.connected(replace(said(), state="inconsistent"))
    assert not brain.status(shell.now).unwritable.total()
    assert brain.out_of_sync_bytes() >= 2 * 4096
    assert {5, 6} <= set(brain.unsynchronized_map().extents().blocks().tolist())


def test_a_secondary_whose_image_is_in_pieces_is_not_called_usable_by_its_report_alone() -> None:
    state, recognition = known()
    recognition.replica_says(Ack(0, replica_state=INCONSISTENT, progress=7000))
    assert state.replica.state == "inconsistent" and not state.replica.goes_back and state.replica.progress == 7000
    recognition.replica_says(Ack(0, replica_state=UP_TO_DATE))
    assert state.replica.state == "inconsistent" and state.replica.goes_back, "it is not in normal mode"
