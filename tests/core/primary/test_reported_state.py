"""The reported state of a replica: up to date only while an answered heartbeat proves that nothing is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pydbt.core.primary.events import RoomShort
from pydbt.core.primary.link import Link
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.reported_state import behind_since, heartbeat, is_fresh, reported_state, told_position
from pydbt.core.primary.state import State
from pydbt.core.primary.status import PrimaryStatus
from pydbt.core.protocol.frames import Ping
from pydbt.core.protocol.heartbeat import FRESH_S, OUT_OF_SYNC, SILENT_S
from tests.core.primary.parts import state_of, write
from tests.core.primary.test_brain import Shell, in_sync


def status_of(**changes: object) -> PrimaryStatus:
    shell = in_sync()
    return replace(shell.brain.status(shell.now), **changes)


def test_nothing_missing_is_fresh_whatever_the_link_does_and_anything_missing_needs_an_answer() -> None:
    assert is_fresh(None, None, 1e9)
    assert is_fresh(10.0, 9.9, 10.0 + FRESH_S / 2)
    assert not is_fresh(10.0, 10.9, 10.1 + FRESH_S), "the write is older than a heartbeat"
    assert not is_fresh(10.0, 9.0 - FRESH_S, 10.0), "no heartbeat was answered since long before the write"
    assert not is_fresh(10.0, None, 10.0)


def test_the_replica_is_behind_since_the_oldest_unacknowledged_or_unsettled_write() -> None:
    state = state_of(mode=Mode.NORMAL)
    assert behind_since(state) is None
    state.unsettled.add(np.array([3]), 1, 5.0)
    assert behind_since(state) == 5.0
    state.now = 4.0
    state.queue.append(write(state, 1).segment)
    assert behind_since(state) == 4.0


def test_a_heartbeat_tells_the_last_captured_write_or_that_no_position_is_enough() -> None:
    state = state_of(mode=Mode.NORMAL)
    write(state, 1, 2)
    assert told_position(state, repairing=False, answered_at=0.0, now=0.0) == 2
    assert told_position(state, repairing=True, answered_at=0.0, now=0.0) == OUT_OF_SYNC
    state.unsettled.add(np.array([3]), 1, 0.0)
    assert told_position(state, repairing=False, answered_at=FRESH_S, now=FRESH_S) == 2
    assert told_position(state, repairing=False, answered_at=FRESH_S + 0.1, now=FRESH_S + 0.1) == OUT_OF_SYNC
    assert told_position(state_of(mode=Mode.RESYNCHRONIZING), repairing=False, answered_at=0.0, now=0.0) == OUT_OF_SYNC
    tainted: State = state_of(mode=Mode.NORMAL, taints=("an unknown operation wrote",))
    assert told_position(tainted, repairing=False, answered_at=0.0, now=0.0) == OUT_OF_SYNC


def test_behind_a_queue_that_stands_no_position_is_told() -> None:
    state = state_of(mode=Mode.NORMAL)
    state.queue.append(write(state, 1).segment)
    late = 0.1 + FRESH_S
    assert told_position(state, repairing=False, answered_at=late, now=late) == OUT_OF_SYNC, (
        "it waits for its acknowledgement"
    )
    other = state_of(mode=Mode.NORMAL)
    other.queue.append(write(other, 1).segment)
    assert told_position(other, repairing=False, answered_at=-late, now=0.0) == OUT_OF_SYNC, "nobody answers"
    assert told_position(other, repairing=False, answered_at=None, now=0.0) == OUT_OF_SYNC
    assert told_position(state_of(mode=Mode.NORMAL), repairing=False, answered_at=None, now=9.0) == 0, (
        "nothing is missing"
    )


def test_a_heartbeat_tells_how_long_ago_the_last_answer_arrived() -> None:
    state, link = state_of(mode=Mode.NORMAL), Link(15.0, 0.0)
    link.attempt()
    link.connected(1.0)
    assert heartbeat(state, link, repairing=False, now=2.0005) == Ping(1, 0, 0, 1000), (
        "since the connection; rounded down"
    )
    link.heard(2.25)
    link.answered(1)
    link.heard(2.5)  # something else
    assert heartbeat(state, link, repairing=False, now=3.0) == Ping(2, 0, 1, 750)
    write(state, 1)
    assert heartbeat(state, link, repairing=True, now=4.0) == Ping(3, OUT_OF_SYNC, 1, 1750)
    link.lost("gone", 5.0)
    assert heartbeat(state, link, repairing=False, now=6.0).answered is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "up-to-date"),
        ({"fresh": False}, "consistent"),
        ({"taints": ("an unknown operation wrote",)}, "inconsistent"),
        ({"repairing": True}, "inconsistent"),
        ({"replica_state": "inconsistent"}, "inconsistent"),
        ({"mode": Mode.UNSYNCHRONIZED, "replica_state": "outdated"}, "outdated"),
    ],
)
def test_the_reported_state_is_never_better_than_the_known_facts(changes: dict[str, object], word: str) -> None:
    assert reported_state(status_of(**changes), 0.0, 0) == word


def test_the_last_snapshot_is_up_to_date_while_nothing_was_written_after_it() -> None:
    status = status_of(mode=Mode.SNAPSHOTS, replica_state="consistent")
    assert reported_state(status, 0.0, 0) == "up-to-date"
    assert reported_state(status, 1.0, 0) == reported_state(status, 0.0, 4096) == "consistent"


def cut(shell: Shell) -> None:
    """The cable is out, and no interface or switch tells of that."""
    shell.answers = False


def test_two_seconds_into_a_cut_the_replica_is_behind_and_after_three_it_is_not_connected() -> None:
    shell = in_sync()
    for _ in range(3):
        shell.tick(1.0)
    cut(shell)
    shell.write(3)
    assert shell.brain.status(shell.now).fresh
    shell.tick(1.0)
    shell.write(4)
    shell.tick(FRESH_S - 1.0 + 0.1)
    status = shell.brain.status(shell.now)
    assert not status.fresh and status.mode is Mode.NORMAL and status.out_of_sync_bytes == 2 * 4096
    for _ in range(2):
        shell.tick(SILENT_S / 2)
    status = shell.brain.status(shell.now)
    assert not status.connected and "nothing was heard" in status.connection_problem


def test_a_heartbeat_that_is_answered_late_vouches_for_the_time_it_was_asked() -> None:
    link = Link(15.0, 0.0)
    link.connected(0.0)
    first, second = link.next_token(1.0), link.next_token(2.0)
    link.answered(second)
    link.answered(first)
    assert link.answered_at == 2.0
    link.answered(99)
    assert link.answered_at == 2.0
    link.lost("cut", 3.0)
    assert link.answered_at is None


def test_no_resynchronization_begins_on_a_link_that_does_not_answer() -> None:
    shell = in_sync()
    shell.tick(1.0)
    cut(shell)
    shell.feed(RoomShort("too slow"))
    assert shell.brain.link.up and shell.modes()[-1] == "unsynchronized"
    for _ in range(10):
        shell.tick(1.0)
    assert shell.modes()[-1] == "unsynchronized", "the answers of before the halt are no answer"
    shell.answers = True
    for _ in range(3):
        shell.tick(1.0)
    assert shell.brain.mode is Mode.NORMAL
