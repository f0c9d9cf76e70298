"""What it costs to follow the file system's log: against everything else that the primary does with the same stream."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from pydbt.controller.primary.outbox import stream_frames
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.events import Captured
from pydbt.core.primary.file_system_transactions import FileSystemTransactions
from pydbt.core.primary.intake import take_in
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.state import State
from pydbt.core.protocol.wire import encode
from pydbt.core.tracking.capture_record import RECORD, Operation, RecordKind, Records
from pydbt.core.tracking.replica_queue import MAX_BATCH_BYTES
from pydbt.core.transactions.followed_log import FollowedLog
from pydbt.core.transactions.log_place import LogPlace
from pydbt.core.units import KIB, MIB, Geometry
from tests.lab.figures.report import Figure, figure
from tests.lab.file_system_logs import REVOKES, V3, WIDE, Jbd2Builder

NAME = "transactions"
_BLOCK = 4 * KIB
_LOG_BLOCKS = 8192
_LOG_OFFSET = 64 * MIB
_VOLUME = Geometry(256 * MIB, _BLOCK)
_BATCH_RECORDS = 4096


def measure(quick: bool) -> list[Figure]:
    """A stream of files with a commit now and then, and one of nothing but small commits."""
    repetitions = 2 if quick else 7
    bulk = [_cost(_Stream(count=4, data_writes=256, data_bytes=64 * KIB)) for _ in range(repetitions)]
    small = [_cost(_Stream(count=400, data_writes=1, data_bytes=_BLOCK)) for _ in range(repetitions)]
    share = "thread CPU time of following the log, in that of all else: log, update lists, frames and their digests"
    return [
        figure(NAME, "16 MiB of data per commit", share, "%", [one.share for one in bulk], bar=2.0, at_least=False),
        figure(
            NAME, "one block of data per commit", share, "%", [one.share for one in small], bar=10.0, at_least=False
        ),
        figure(NAME, "... per transaction of 9 writes", "thread CPU time", "µs", [one.each_us for one in small]),
    ]


class _Stream:
    """Captured writes of an ext4: data, and for each transaction a descriptor, six blocks and a commit."""

    def __init__(self, count: int, data_writes: int, data_bytes: int) -> None:
        self.count = count
        built = Jbd2Builder(_BLOCK, _LOG_BLOCKS, REVOKES | WIDE | V3)
        rng = np.random.default_rng(1)
        self._data = rng.bytes(data_bytes)
        self.content: list[memoryview] = []
        rows: list[tuple[int, int, int]] = []
        for number in range(count + 1):
            for place in range(data_writes):
                rows.append(self._row(128 * MIB + place * data_bytes, self._data))
            first = len(built.writes)
            built.descriptor({number % 90 + one: rng.bytes(_BLOCK) for one in range(6)})
            built.commit()
            rows += [self._row(_LOG_OFFSET + offset, data) for offset, data in built.writes[first:]]
        self.place = LogPlace("ext4", ((_LOG_OFFSET, _LOG_BLOCKS * _BLOCK),), (), built.superblock())
        self.batches = [
            self._records(rows[first : first + _BATCH_RECORDS // 2])
            for first in range(0, len(rows), _BATCH_RECORDS // 2)
        ]

    def _row(self, offset_bytes: int, data: bytes) -> tuple[int, int, int]:
        self.content.append(memoryview(data))
        return offset_bytes // 512, len(data) // 512, len(self.content)

    def _records(self, rows: list[tuple[int, int, int]]) -> Records:
        """Each write is submitted, and completes at the end of its batch."""
        made = np.zeros(2 * len(rows), RECORD)
        made["op"] = Operation.WRITE
        for column, values in zip(("sector", "sectors", "data"), zip(*rows, strict=True), strict=True):
            made[column][: len(rows)] = values
            if column != "data":
                made[column][len(rows) :] = values
        made["kind"] = np.repeat((RecordKind.SUBMIT, RecordKind.COMPLETE), len(rows))
        made["pieces"][: len(rows)] = 1
        return made

    def payload(self, records: Records) -> list[memoryview]:
        """As ``Capture.payload``."""
        return [self.content[index - 1] for index in records["data"].tolist() if index]


@dataclass(frozen=True)
class _Cost:
    share: float
    each_us: float


def _cost(stream: _Stream) -> _Cost:
    state = State(PrimaryConfig(_VOLUME, epoch=7), 0.0)
    state.in_flight.trust()
    state.mode, state.payload_on = Mode.NORMAL, True
    transactions, log = FileSystemTransactions(state), FollowedLog(stream.place)
    following = other = 0.0
    ended = 0
    for records in stream.batches:
        began = time.thread_time()
        found = tuple(log.captured(records, stream.payload))
        between = time.thread_time()
        _stream(stream, state, transactions, Captured(records, state.position + len(records), 0, found))
        other += time.thread_time() - between
        following += between - began
        ended += len(found)
    assert ended == stream.count and transactions.held is not None
    return _Cost(100 * following / other, 1e6 * following / ended)


def _stream(stream: _Stream, state: State, transactions: FileSystemTransactions, event: Captured) -> None:
    """What the primary does with a batch besides: numbers, log, lists, frames as they are sent, and the acknowledgement."""
    taken = take_in(state, event, 0.0)
    assert transactions.insert(event, taken, taken.written(state))
    state.queue.append(taken.segment)
    while (segment := state.queue.take()) is not None:
        assert segment.length_bytes <= MAX_BATCH_BYTES
        payload = b"".join(stream.payload(segment.records))
        for frame in stream_frames(segment.records, segment.last_sequences, segment.first_sequence, payload):
            b"".join(encode(frame, 0))  # the kernel copies it into the socket's buffer
    state.acknowledged = state.sequence
    state.tracker.acknowledge(state.sequence)
    state.queue.acknowledge(state.sequence)
    transactions.advance()
