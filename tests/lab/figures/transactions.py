"""What it costs to follow the file system's log: against everything else that the primary does with the same stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
from tests.lab.file_system_logs import REVOKES, V3, WIDE, Jbd2Builder, XfsBuilder

NAME = "transactions"
_BLOCK = 4 * KIB
_LOG_BYTES = 32 * MIB
_LOG_OFFSET = 64 * MIB
_VOLUME = Geometry(256 * MIB, _BLOCK)
_BATCH_RECORDS = 4096
_SLOT_BYTES = 24  # before the data of a write in the ring
_SHARE = "thread CPU time of following the log, in that of all else: log, update lists, frames and their digests"


def measure(quick: bool) -> list[Figure]:
    """Streams of files with a commit now and then, and of nothing but small commits."""
    repetitions = 2 if quick else 7
    found = []
    for words, log, writes, count in (("ext4", _Ext4, 9, 400), ("XFS", _Xfs, 2, 2_000)):
        stream = _Stream(log(), count=4, data_writes=256, data_bytes=64 * KIB)
        bulk = [_cost(stream) for _ in range(repetitions)]
        stream = _Stream(log(), count=count, data_writes=1, data_bytes=_BLOCK)
        small = [_cost(stream) for _ in range(repetitions)]
        found += [
            _share(f"{words}: 16 MiB of data per commit", bulk, 2.0),
            _share(f"{words}: one block of data per commit", small, 10.0),
            figure(
                NAME, f"... per transaction of {writes} writes", "thread CPU time", "µs", [one.each_us for one in small]
            ),
        ]
    return found


def _share(words: str, costs: list[_Cost], bar: float) -> Figure:
    return figure(NAME, words, _SHARE, "%", [one.share for one in costs], bar=bar, at_least=False)


class _Ext4:
    """A descriptor with six blocks, and the commit, which jbd2 submits one after the other."""

    def __init__(self) -> None:
        self._built = Jbd2Builder(_BLOCK, _LOG_BYTES // _BLOCK, REVOKES | WIDE | V3)
        self._rng = np.random.default_rng(1)

    def place(self) -> LogPlace:
        return LogPlace("ext4", ((_LOG_OFFSET, _LOG_BYTES),), (), self._built.superblock())

    def commit(self, number: int) -> Iterator[list[tuple[int, bytes]]]:
        """Writes to the log that are submitted together; the next ones wait for them."""
        self._built.descriptor({number % 90 + one: self._rng.bytes(_BLOCK) for one in range(6)})
        self._built.commit()
        writes = list(self._built.writes)
        self._built.writes.clear()
        yield writes[:-1]
        yield writes[-1:]


class _Xfs:
    """A file that was made: an inode and eight buffers in one record, as in the logs that tests/samples has."""

    def __init__(self) -> None:
        self._built = XfsBuilder(log_sectors=_LOG_BYTES // 512)

    def place(self) -> LogPlace:
        return LogPlace("xfs", ((_LOG_OFFSET, _LOG_BYTES),), (), self._built.superblock())

    def commit(self, number: int) -> Iterator[list[tuple[int, bytes]]]:
        """As that of ext4: the one record is one write."""
        built = self._built
        items = [built.inode(64 * number, 32), *(built.buffer(8 * (number % 90 + one), 8) for one in range(8))]
        built.write(built.record(built.checkpoint(0x5EED + number, *items)))
        writes = list(built.writes)
        built.writes.clear()
        yield writes


class _Stream:
    """Captured writes: data, and a transaction behind it."""

    def __init__(self, log: _Ext4 | _Xfs, count: int, data_writes: int, data_bytes: int) -> None:
        self.count = count
        self._ring = bytearray()
        rows: list[tuple[int, int, int, int]] = []
        data = np.random.default_rng(2).bytes(data_bytes)
        for number in range(count + 1):
            rows += self._written(*((128 * MIB + place * data_bytes, data) for place in range(data_writes)))
            for together in log.commit(number):
                rows += self._written(*((_LOG_OFFSET + offset, data) for offset, data in together))
        self._content = memoryview(self._ring)
        self.place = log.place()
        self.batches = [
            self._records(rows[first : first + _BATCH_RECORDS]) for first in range(0, len(rows), _BATCH_RECORDS)
        ]

    def _row(self, kind: RecordKind, offset_bytes: int, data: bytes) -> tuple[int, int, int, int]:
        return kind, offset_bytes // 512, len(data) // 512, self._slot(data) if kind is RecordKind.SUBMIT else 0

    def _slot(self, data: bytes) -> int:
        self._ring += bytes(_SLOT_BYTES)
        self._ring += data
        return len(self._ring) - len(data)

    def _written(self, *writes: tuple[int, bytes]) -> list[tuple[int, int, int, int]]:
        """They are submitted together, and what comes next waits for all of them."""
        return [self._row(kind, *write) for kind in (RecordKind.SUBMIT, RecordKind.COMPLETE) for write in writes]

    @staticmethod
    def _records(rows: list[tuple[int, int, int, int]]) -> Records:
        made = np.zeros(len(rows), RECORD)
        made["op"] = Operation.WRITE
        for column, values in zip(("kind", "sector", "sectors", "data"), zip(*rows, strict=True), strict=True):
            made[column] = values
        made["pieces"] = made["data"] != 0
        return made

    def payload(self, records: Records) -> list[memoryview]:
        """As ``Capture.payload``: views of the ring."""
        content, starts, lengths = self._content, records["data"], records["sectors"] * 512
        return [
            content[start : start + length]
            for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
            if start
        ]


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
    for batch in stream.batches:
        records = batch.copy()  # as the ring gives them
        began = time.thread_time()
        found = tuple(log.captured(records, stream.payload))
        between = time.thread_time()
        _stream(stream, state, transactions, Captured(records, state.position + len(records), 0, found))
        other += time.thread_time() - between
        following += between - began
        ended += len(found)
    assert ended in (stream.count, stream.count + 1) and transactions.held is not None
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
