"""Room for captured data is given back exactly once, when every brain has passed it, and never before."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.tracking.capture_record import RECORD
from pydbt.core.volume.payload_room import PayloadRoom

ROOM = 1 << 20


def records_of(*data: int, sectors: int = 8) -> np.ndarray:
    """Submissions; ``data`` is where a write's payload lies, 0 for those that have none."""
    records = np.zeros(len(data), RECORD)
    records["data"], records["sectors"], records["kind"] = data, sectors, 1
    return records


class Brains:
    """Each with its own queue of records it was given and has not passed yet."""

    def __init__(self) -> None:
        self.room = PayloadRoom()
        self.queues: dict[int, list[np.ndarray]] = {}
        self.next_data = 1
        self.released: list[int] = []
        self.captured: list[int] = []

    def join(self, peer: int) -> None:
        self.room.join(peer)
        self.queues[peer] = []

    def capture(self, count: int, empty: int) -> None:
        data = [self.next_data + i for i in range(count)]
        self.next_data += count
        self.captured += data
        mixed = [0] * empty + data
        records = records_of(*mixed)
        self.room.captured(records)
        for queue in self.queues.values():
            queue.append(records)

    def pass_on(self, peer: int, count: int) -> None:
        """As much of its queue, in any portions."""
        whole = np.concatenate([*self.queues[peer], records_of()])
        part, rest = whole[:count], whole[count:]
        self.queues[peer] = [rest] if len(rest) else []
        for free in self.room.passed(peer, part):
            self.released += [data for data in free["data"].tolist() if data]

    def leave(self, peer: int) -> None:
        self.pass_on(peer, 1 << 30)
        self.room.leave(peer)
        del self.queues[peer]

    def needed(self) -> set[int]:
        return {data for queue in self.queues.values() for part in queue for data in part["data"].tolist() if data}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("capture"), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.just("pass"), st.integers(1, 4), st.integers(0, 6)),
        st.tuples(st.just("join"), st.integers(1, 4), st.just(0)),
        st.tuples(st.just("leave"), st.integers(1, 4), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_room_that_a_brain_still_needs_is_kept_and_any_other_is_given_back_once(steps):
    brains = Brains()
    brains.join(1)
    for what, one, two in steps:
        match what:
            case "capture":
                brains.capture(one, two)
            case "pass" if one in brains.queues:
                brains.pass_on(one, two)
            case "join" if one not in brains.queues:
                brains.join(one)
            case "leave" if one in brains.queues and len(brains.queues) > 1:
                brains.leave(one)
        assert len(set(brains.released)) == len(brains.released), "given back twice"
        assert set(brains.captured) - brains.needed() == set(brains.released)


def test_a_single_brain_costs_no_bookkeeping():
    room = PayloadRoom()
    room.join(1)
    records = records_of(5, 0, 6)
    room.captured(records)
    (free,) = room.passed(1, records)
    assert free is records and not room._batches


def test_the_one_that_takes_the_others_room_is_a_laggard_and_a_burst_too_much_for_all_is_nobodys_fault():
    room = PayloadRoom()
    for peer in (1, 2, 3):
        room.join(peer)
    records = records_of(*range(1, 201))  # 800 KiB of the room's 1 MiB
    room.captured(records)
    assert room.laggards([1, 2, 3], ROOM) == []
    room.passed(1, records)
    assert room.laggards([1, 2, 3], ROOM) == [2, 3]
    room.passed(2, records[:150])
    assert room.laggards([1, 2, 3], ROOM) == [3]
    assert room.laggards([3], ROOM) == [], "alone it may use all the room there is"
    assert room.held_bytes(1) == 0


def test_a_batch_that_all_have_passed_in_part_is_given_back_in_part():
    room = PayloadRoom()
    room.join(1)
    room.join(2)
    room.captured(records_of(0, 0))  # no data: nothing to keep
    records = records_of(1, 2, 3, 4)
    room.captured(records)
    assert room.passed(1, records) == []
    (free,) = room.passed(2, records[:3])
    assert free["data"].tolist() == [1, 2, 3]
    (free,) = room.passed(2, records[3:])
    assert free["data"].tolist() == [4]
