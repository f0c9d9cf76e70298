"""Verification in normal mode: exactly what differs is found, and nothing is that was written meanwhile."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import verifier as verifier_module
from pydbt.core.primary.events import BlocksRead, DropReading, ReadBlocks, SendDigests
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.state import State
from pydbt.core.primary.verifier import COMPARISON_BYTES, LEAST_COMPARISON_BYTES, READ_AGAIN_S, Findings, Verifier
from pydbt.core.protocol.frames import Want
from pydbt.core.tracking.unsettled import DIFFERS_SINCE_EVER, FREE_SPACE
from tests.core.primary.parts import lines, only, runs, state_of, taken_effects, write


def verifying(*asked: tuple[int, int]) -> tuple[State, Verifier]:
    state = state_of(mode=Mode.NORMAL)
    verifier = Verifier(state)
    verifier.begin(runs(*asked), False, None, 0.0)
    return state, verifier


def read(state: State, verifier: Verifier, now: float) -> ReadBlocks:
    """The next reading, which is over at once."""
    assert verifier.advance(now) is None
    asked = only(taken_effects(state), ReadBlocks)
    assert verifier.read(BlocksRead(asked.reading, state.position, 4096), now)
    return asked


def offered(state: State, verifier: Verifier, now: float) -> SendDigests:
    verifier.advance(now)
    effects = taken_effects(state)
    sent = only(effects, SendDigests)
    assert DropReading(sent.reading) in effects, "what differs is read anew"
    return sent


def compared(state: State, verifier: Verifier, now: float, *differing: int) -> list[int]:
    """A reading is offered, and the secondary wants some blocks of it. The blocks to be repaired."""
    read(state, verifier, now)
    sent = offered(state, verifier, now)
    wanted = Runs.of_blocks(np.array(differing, np.int64)) if differing else Runs.none()
    repairs = verifier.want(Want(batch=sent.batch, units=wanted), now)
    assert repairs is not None
    return repairs.tolist()


def test_blocks_that_are_the_same_on_both_sides_end_a_verification_without_findings() -> None:
    state, verifier = verifying((0, 3), (10, 2))
    assert compared(state, verifier, 0.0) == []
    assert verifier.advance(0.1) == Findings(5, 0, 0, (), ()) and verifier.current is None
    assert "are the same on both sides" in lines(state, "info")[0]


def test_a_block_is_called_different_only_when_it_differed_twice() -> None:
    state, verifier = verifying((0, 4))
    assert compared(state, verifier, 0.0, 2) == []
    assert verifier.deadline() == 0.5
    assert compared(state, verifier, 0.5, 2) == [2], "it is copied, though only a report was asked for"
    findings = verifier.advance(0.6)
    assert findings == Findings(4, 1, 0, ((2, 1),), ())


def test_a_block_that_differed_once_and_then_not_is_the_same() -> None:
    state, verifier = verifying((0, 4))
    compared(state, verifier, 0.0, 2)
    compared(state, verifier, 0.5)
    assert verifier.advance(0.6) == Findings(4, 0, 0, (), ())


def test_the_blocks_are_handed_on_and_the_end_waits_until_they_are_on_the_secondary() -> None:
    state, verifier = verifying((0, 4))
    compared(state, verifier, 0.0, 1, 3)
    assert compared(state, verifier, 0.5, 1, 3) == [1, 3]
    state.unsettled.add(np.array([1, 3]), DIFFERS_SINCE_EVER, 0.5)
    assert verifier.advance(0.6) is None
    state.unsettled.clear()
    assert verifier.advance(0.7) == Findings(4, 2, 0, ((1, 1), (3, 1)), ())
    assert "differed and are copied" in lines(state, "warning")[0]


def test_free_space_is_filled_in_at_the_first_look_and_counted_apart() -> None:
    state, verifier = verifying((0, 8))
    state.left_out.add(runs((2, 4)))
    assert compared(state, verifier, 0.0, 3, 7) == []
    assert state.unsettled.blocks().tolist() == [3] and state.unsettled.oldest_sequence() == FREE_SPACE
    assert state.left_out.blocks.extents().blocks().tolist() == [3], "what is equal there is known now"
    assert verifier.advance(0.1) is None
    progress = verifier.progress()
    assert progress is not None and (progress.filled_bytes, progress.differing_bytes) == (4096, 0)
    assert compared(state, verifier, 0.6) == []
    assert verifier.advance(0.7) is None, "it is not on the secondary yet"
    state.unsettled.clear()
    assert verifier.advance(0.8) == Findings(8, 0, 1, (), ())
    assert "free space" in lines(state, "info")[-1]


def test_no_more_is_read_while_much_free_space_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier_module, "FILLING_BLOCKS", 2)
    state, verifier = verifying((0, 8))
    state.unsettled.add(np.array([20, 21]), FREE_SPACE, 0.0)
    assert verifier.advance(0.0) is None and not taken_effects(state)
    state.unsettled.clear()
    read(state, verifier, 0.1)


def test_a_block_written_while_it_is_read_is_compared_again_and_one_written_after_its_offer_counts() -> None:
    state, verifier = verifying((0, 4))
    verifier.advance(0.0)
    asked = only(taken_effects(state), ReadBlocks)
    verifier.touch(write(state, 1).written(state))
    state.queue.sent_through = state.sequence
    verifier.read(BlocksRead(asked.reading, state.position, 4096), 0.0)
    sent = offered(state, verifier, 0.0)
    verifier.touch(runs((3, 1)))
    verifier.want(Want(batch=sent.batch, units=runs((1, 1), (3, 1))), 0.1)
    assert verifier.progress().done_bytes == 2 * 4096 and verifier.resume_block() == 1
    verifier.advance(0.7)
    again = [effect.runs.blocks().tolist() for effect in taken_effects(state) if isinstance(effect, ReadBlocks)]
    assert again == [[1], [3]], "the one was written, the other differs"


def test_blocks_in_flight_or_unsettled_are_in_doubt_from_the_beginning() -> None:
    state, verifier = verifying((0, 4))
    write(state, 0, completed=False)
    state.queue.sent_through = state.sequence
    state.unsettled.add(np.array([2]), 1, 0.0)
    compared(state, verifier, 0.0, 0, 2)
    assert verifier.progress().done_bytes == 2 * 4096 and verifier.progress().differing_bytes == 0


def test_the_secondary_compares_behind_every_update_that_was_captured_by_the_end_of_the_read() -> None:
    state, verifier = verifying((0, 4))
    verifier.advance(0.0)
    asked = only(taken_effects(state), ReadBlocks)
    verifier.read(BlocksRead(asked.reading, state.position + 2, 4096), 0.0)
    verifier.advance(0.0)
    assert not taken_effects(state) and not verifier.awaiting
    state.queue.append(write(state, 30).segment)
    verifier.advance(0.0)
    assert not taken_effects(state), "the write is queued, and not sent"
    state.queue.take()
    assert offered(state, verifier, 0.0).reading == asked.reading and verifier.awaiting


def test_blocks_that_could_not_be_read_are_compared_later() -> None:
    state, verifier = verifying((0, 4))
    verifier.advance(0.0)
    asked = only(taken_effects(state), ReadBlocks)
    assert verifier.read(BlocksRead(asked.reading, 0, 0, error="bad sector"), 1.0)
    assert lines(state, "error") and verifier.deadline() == 1.0 + READ_AGAIN_S
    assert read(state, verifier, 1.0 + READ_AGAIN_S).runs.total() == 4


def test_when_replication_halts_the_readings_wait_and_what_is_kept_of_them_is_dropped() -> None:
    state, verifier = verifying((0, 4))
    asked = read(state, verifier, 0.0)
    verifier.pause(2.0)
    assert taken_effects(state) == [DropReading(asked.reading)]
    state.mode = Mode.UNSYNCHRONIZED
    assert verifier.deadline() == inf
    state.mode = Mode.NORMAL
    assert verifier.deadline() == 2.0 and read(state, verifier, 2.0).runs.total() == 4


def test_a_cancelled_verification_forgets_everything_and_takes_no_answer() -> None:
    state, verifier = verifying((0, 4))
    read(state, verifier, 0.0)
    sent = offered(state, verifier, 0.0)
    verifier.cancel()
    assert not taken_effects(state), "its data was dropped when the digests were made"
    assert verifier.want(Want(batch=sent.batch, units=runs((0, 1))), 0.1) is None
    assert verifier.progress() is None and verifier.advance(1.0) is None and verifier.deadline() == inf
    assert verifier.resume_block() == 64 and not verifier.read(BlocksRead(sent.reading, 0, 0), 1.0)


def test_with_a_rate_limit_less_is_read_at_once_and_the_rest_has_to_wait() -> None:
    state = state_of(blocks=4096, mode=Mode.NORMAL)
    verifier = Verifier(state)
    verifier.begin(runs((0, 4096)), False, 2 << 20, 0.0)
    verifier.advance(0.0)
    sizes = [effect.runs.total() * 4096 for effect in taken_effects(state) if isinstance(effect, ReadBlocks)]
    assert sizes and max(sizes) == LEAST_COMPARISON_BYTES and 0.0 < verifier.deadline() < 1.0
    assert verifier.resume_block() == 0
    verifier.begin(runs((0, 4096)), False, None, 0.0)
    taken_effects(state)
    verifier.advance(0.0)
    assert only(taken_effects(state)[:1], ReadBlocks).runs.total() * 4096 == COMPARISON_BYTES


def test_too_many_blocks_that_wait_come_before_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier_module, "AGAIN_LIMIT_BLOCKS", 1)
    monkeypatch.setattr(verifier_module, "COMPARISON_BYTES", 2 * 4096)
    monkeypatch.setattr(verifier_module, "COMPARISON_WINDOW_BYTES", 4096)
    state, verifier = verifying((0, 64))
    verifier.advance(0.0)
    first, second = (effect for effect in taken_effects(state) if isinstance(effect, ReadBlocks))
    for asked in (first, second):
        verifier.read(BlocksRead(asked.reading, 0, 0, error="bad sector"), 0.0)
    verifier.advance(0.0)
    assert not taken_effects(state), "more than are kept waiting"
    verifier.advance(READ_AGAIN_S)
    found = [effect.runs.blocks().tolist() for effect in taken_effects(state) if isinstance(effect, ReadBlocks)]
    assert found == [[0, 1], [2, 3]]


def test_with_a_secondary_that_compares_nothing_no_verification_begins_or_goes_on_and_the_operator_is_told() -> None:
    state = state_of(mode=Mode.NORMAL)
    state.replica.compares = False
    verifier = Verifier(state)
    verifier.begin(runs((0, 4)), True, None, 0.0)
    assert verifier.current is None and "update it" in lines(state, "error")[0]
    state, verifier = verifying((0, 4))
    read(state, verifier, 0.0)
    state.replica.compares = False  # it came back with an older program
    assert verifier.advance(0.1) is None and verifier.current is None
    assert not [effect for effect in taken_effects(state) if isinstance(effect, SendDigests)]
