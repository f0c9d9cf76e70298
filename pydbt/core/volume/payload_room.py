"""Whose data still lies in the kernel's ring: room is given back when every secondary's brain has sent or given up a write.

Each brain is given every submission and passes them in the order in which they were captured, so that one count for
each brain is enough: of the submissions that carry data, how many has it passed? Nothing is counted record by record, and with a
single brain nothing is kept at all.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pydbt.core.tracking.capture_record import Records
from pydbt.core.units import SECTOR_BYTES


@dataclass(slots=True)
class _Batch:
    """Records as they were captured; ``places`` of those with data, whose numbers begin at ``first``."""

    records: Records
    places: npt.NDArray[np.int64]
    first: int
    released: int = 0

    @property
    def end(self) -> int:
        return self.first + len(self.places)

    def release_until(self, number: int) -> Records:
        start, self.released = self.released, min(number, self.end) - self.first
        released: Records = self.records[self.places[start : self.released]]
        return released


class PayloadRoom:
    """Numbers count submissions with data since the beginning, over all batches."""

    def __init__(self) -> None:
        self._captured = 0
        self._captured_bytes = 0
        self._passed: dict[int, int] = {}
        self._passed_bytes: dict[int, int] = {}
        self._batches: deque[_Batch] = deque()

    def join(self, peer: int) -> None:
        """This brain gets what is captured from here on."""
        self._passed[peer], self._passed_bytes[peer] = self._captured, self._captured_bytes

    def leave(self, peer: int) -> None:
        """It has passed everything, and gets no more."""
        assert self._passed[peer] == self._captured, "a brain that leaves must have given up its queue"
        del self._passed[peer], self._passed_bytes[peer]

    def captured(self, records: Records) -> None:
        """A batch that every brain is about to be given."""
        if len(self._passed) < 2 and not self._batches:
            self._captured += int(np.count_nonzero(records["data"]))
            return
        places = np.flatnonzero(records["data"])
        if len(places):
            self._batches.append(_Batch(records, places, self._captured))
            self._captured += len(places)
            self._captured_bytes += _bytes_of(records[places])

    def passed(self, peer: int, records: Records) -> list[Records]:
        """A brain has sent these submissions, or will never; those whose data nobody needs any more."""
        if not self._batches:  # nobody else was ever given them
            self._passed[peer] += int(np.count_nonzero(records["data"]))
            return [records] if len(records) else []
        with_data = records[records["data"] != 0]
        before = self._passed[peer]
        self._passed[peer] += len(with_data)
        alone = max(0, min(len(with_data), self._batches[0].first - before))
        self._passed_bytes[peer] += _bytes_of(with_data[alone:])
        free = [with_data[:alone]] if alone else []
        through = min(self._passed.values())
        while self._batches and self._batches[0].first + self._batches[0].released < through:
            free.append(self._batches[0].release_until(through))
            if self._batches[0].end > through:
                break
            self._batches.popleft()
        return free

    def held_bytes(self, peer: int) -> int:
        """Data that this brain has not passed, of what several were given."""
        return self._captured_bytes - self._passed_bytes[peer]

    def laggards(self, peers: list[int], room_bytes: int) -> list[int]:
        """Those among the brains that follow whose held data takes the others' room.

        That is more than half of the room, and a quarter of it more than the one that is furthest needs: so what one
        secondary cannot take ends its own stream before it ends another's, and a burst that is too much for all ends the
        stream of all.
        """
        if len(peers) < 2:
            return []
        held = {peer: self.held_bytes(peer) for peer in peers}
        least = min(held.values())
        return [peer for peer in peers if held[peer] > room_bytes / 2 and held[peer] - least > room_bytes / 4]


def _bytes_of(records: Records) -> int:
    return int(records["sectors"].sum(dtype=np.int64)) * SECTOR_BYTES
