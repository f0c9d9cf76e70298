"""The stream goes out in order, as far as the sender has room and nothing has to complete first."""

from __future__ import annotations

import numpy as np
import pytest

from pydbt.core.primary import sender
from pydbt.core.primary.completed_transactions import CompletedTransactions
from pydbt.core.primary.events import Captured, SendSettled, SendStream
from pydbt.core.primary.intake import take_in
from pydbt.core.primary.link import Link
from pydbt.core.tracking.capture_record import RecordKind, empty_records
from pydbt.core.tracking.replica_queue import Segment
from tests.core.primary.parts import only, records, runs, state_of, taken_effects, write


def connected_link() -> Link:
    link = Link(15.0, 0.0)
    link.connected(0.0)
    return link


def test_writes_and_settled_blocks_leave_in_the_order_of_their_numbers() -> None:
    state, link = state_of(), connected_link()
    state.queue.append(write(state, 3).segment)
    state.sequence = 2
    settled = Segment(empty_records(), np.array([2]), 2, 0.0, reading=8, runs=runs((5, 1)), settled_bytes=4096)
    state.queue.append(settled)
    sender.send_stream(state, link, CompletedTransactions(state))
    stream, other = taken_effects(state)
    assert isinstance(stream, SendStream) and stream.first_sequence == 1
    assert isinstance(other, SendSettled) and (other.reading, other.sequence) == (8, 2)
    assert link.queued_bytes == 4096 and state.statistics.stream_requests == 1 and state.queue.all_sent


def test_a_sender_without_room_gets_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "OUTBOUND_LIMIT_BYTES", 4096)
    state, link = state_of(), connected_link()
    for block in (3, 4):
        state.queue.append(write(state, block).segment)
    sender.send_stream(state, link, CompletedTransactions(state))
    assert only(taken_effects(state), SendStream).first_sequence == 1
    sender.send_stream(state, link, CompletedTransactions(state))
    assert not taken_effects(state)


def test_a_write_that_has_to_complete_first_holds_back_what_comes_after_it() -> None:
    state, link = state_of(completed_first=True), connected_link()
    made = records((RecordKind.SUBMIT, 3))
    made["cookie"] = 1
    state.queue.append(take_in(state, Captured(made, 1, 0), 0.0).segment)
    sender.send_stream(state, link, CompletedTransactions(state))
    assert not taken_effects(state)
    made["kind"] = RecordKind.COMPLETE
    take_in(state, Captured(made, 2, 0), 0.0)
    sender.send_stream(state, link, CompletedTransactions(state))
    assert only(taken_effects(state), SendStream).first_sequence == 1
