"""The replica queue: captured writes on their way to the secondary, in kernel order, until acknowledged.

Payload stays where capture put it until a write is sent; after that only addresses are kept (in the
transaction log and the update lists), because a lost connection is answered by a sweep, not by resending.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.tracking.capture_record import RECORD
from pydbt.core.units import MIB, SECTOR_BYTES

# A write larger than this gets several sequence numbers, so that no frame outgrows the protocol's limit.
MAX_UPDATE_SECTORS = 4 * MIB // SECTOR_BYTES
# One STREAM batch: enough to fill a network pipe, little enough to keep acknowledgements flowing.
MAX_BATCH_BYTES = 2 * MIB
MAX_BATCH_RECORDS = 4096


def updates_of(records: np.ndarray) -> np.ndarray:
    """Sequence numbers that each submission takes: one, or one for every MAX_UPDATE_SECTORS that carry data."""
    parts = -(-records["sectors"].astype(np.int64) // MAX_UPDATE_SECTORS)
    return np.where(records["pieces"] > 0, np.maximum(parts, 1), 1)


@dataclass(slots=True)
class Segment:
    """A run of submissions with consecutive sequence numbers.

    ``last_sequences[i]`` is the last number of ``records[i]``; ``arrived`` the time of the first of them.
    """

    records: np.ndarray
    last_sequences: np.ndarray
    first_sequence: int
    arrived: float
    reading: int | None = None  # settled blocks that were read, instead of captured writes
    runs: Runs | None = None  # the blocks of ``reading``
    settled_bytes: int = 0
    mark: NamedMark | None = None  # a place in the order, and no writes

    @property
    def last_sequence(self) -> int:
        return int(self.last_sequences[-1])

    @property
    def length_bytes(self) -> int:
        if self.reading is not None:
            return self.settled_bytes
        return int(self.records["sectors"].sum(dtype=np.int64)) * SECTOR_BYTES

    def split(self, count: int) -> tuple[Segment, Segment]:
        head = Segment(self.records[:count], self.last_sequences[:count], self.first_sequence, self.arrived)
        tail = Segment(self.records[count:], self.last_sequences[count:], head.last_sequence + 1, self.arrived)
        return head, tail


class StreamQueue:
    """Unsent and unacknowledged writes. Sequence numbers are consecutive over both."""

    def __init__(self) -> None:
        self._unsent: deque[Segment] = deque()
        self._sent: deque[tuple[int, int, float, int]] = deque()  # last sequence, bytes, arrival, writes
        self.unsent_bytes = 0
        self.unacknowledged_bytes = 0
        self.sent_through = 0

    def append(self, segment: Segment) -> None:
        """Add captured writes behind everything queued before."""
        self._unsent.append(segment)
        size = segment.length_bytes
        self.unsent_bytes += size
        self.unacknowledged_bytes += size

    def take(self, through: float = inf) -> Segment | None:
        """The next batch to send, at most MAX_BATCH_BYTES unless a single write is larger, and nothing behind the sequence
        number ``through``; None when there is nothing to send."""
        if not self._unsent or self._unsent[0].first_sequence > through:
            return None
        segment = self._unsent.popleft()
        if segment.reading is not None or segment.mark is not None:
            return self._note_taken(segment)
        ends = np.cumsum(segment.records["sectors"].astype(np.int64)) * SECTOR_BYTES
        fit = int(np.searchsorted(ends, MAX_BATCH_BYTES, side="right"))
        count = max(1, min(fit, MAX_BATCH_RECORDS, len(segment.records)))
        if segment.last_sequence > through:  # of which the first number may be sent: so the first write may
            count = min(count, int(np.searchsorted(segment.last_sequences, through, side="right")))
        if count < len(segment.records):
            segment, rest = segment.split(count)
            self._unsent.appendleft(rest)
        return self._note_taken(segment)

    def _note_taken(self, segment: Segment) -> Segment:
        size = segment.length_bytes
        self.unsent_bytes -= size
        writes = len(segment.records) if segment.reading is None else 0
        self._sent.append((segment.last_sequence, size, segment.arrived, writes))
        self.sent_through = segment.last_sequence
        return segment

    def acknowledge(self, sequence: int) -> list[tuple[float, int]]:
        """Everything up to ``sequence`` is durable on the secondary. When its writes arrived, and how many at each time."""
        arrivals = []
        while self._sent and self._sent[0][0] <= sequence:
            _, size_bytes, arrived, writes = self._sent.popleft()
            self.unacknowledged_bytes -= size_bytes
            if writes:
                arrivals.append((arrived, writes))
        return arrivals

    @property
    def all_sent(self) -> bool:
        return not self._unsent

    @property
    def awaiting(self) -> bool:
        """Something was sent and is not acknowledged."""
        return bool(self._sent)

    def oldest_arrival(self) -> float | None:
        """When the oldest unacknowledged write was captured."""
        if self._sent:
            return self._sent[0][2]
        return self._unsent[0].arrived if self._unsent else None

    def clear(self) -> tuple[np.ndarray, list[int]]:
        """Discard the queue (Fig. 6, 610): the submissions, and the readings, that were never sent."""
        records = [segment.records for segment in self._unsent if segment.reading is None]
        readings = [segment.reading for segment in self._unsent if segment.reading is not None]
        self._unsent.clear()
        self._sent.clear()
        self.unsent_bytes = self.unacknowledged_bytes = 0
        return np.concatenate(records) if records else np.empty(0, dtype=RECORD), readings
