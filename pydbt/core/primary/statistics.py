"""Figures of a run: what was written, sent, found equal; how far out of sync, for how long."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from pydbt.core.primary.acknowledgement_latency import NO_LATENCIES, AcknowledgementLatency, LatencyFigures
from pydbt.core.tracking.capture_record import Operation, Records
from pydbt.core.units import SECTOR_BYTES

RATE_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class UnsettledFigures:
    """Blocks that had to be read and compared again, by cause."""

    overlapped: int = 0
    failed: int = 0
    unstable: int = 0
    unseen: int = 0
    verified: int = 0
    discarded: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """The counters at a moment. The names of the fields are the keys of the status."""

    written_requests: int = 0
    discarded_bytes: int = 0
    stream_requests: int = 0
    stream_bytes: int = 0
    compared_bytes: int = 0
    copied_bytes: int = 0
    settled_blocks: int = 0
    unsettled_blocks: UnsettledFigures = UnsettledFigures()
    log_full: int = 0
    resyncs: int = 0
    out_of_sync_max_bytes: int = 0
    unsynchronized_seconds: float = 0.0
    times_out_of_normal: int = 0
    acknowledgement_latency: LatencyFigures = NO_LATENCIES


class Statistics:
    """Counters only; nothing decides by them but the estimate of the write rate."""

    def __init__(self, now: float) -> None:
        self.written_bytes = 0
        self.written_requests = 0
        self.discarded_bytes = 0
        self._data_bytes = 0  # without what discards and zeroes cover: they take no room in the log
        self.stream_bytes = 0
        self.stream_requests = 0
        self.compared_bytes = 0
        self.copied_bytes = 0
        self.sent_bytes = 0
        self.settled_blocks = 0
        self.unsettled_blocks = dict.fromkeys((cause.name for cause in fields(UnsettledFigures)), 0)
        self.log_full = 0
        self.resyncs = 0
        self.out_of_sync_max_bytes = 0
        self.unsynchronized_seconds = 0.0
        self._latency = AcknowledgementLatency()
        self._out_since: float | None = now
        self._retired_at_bytes = 0
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def captured(self, writes: Records) -> None:
        self.written_bytes += int(writes["sectors"].sum(dtype=np.int64)) * SECTOR_BYTES
        self.written_requests += len(writes)
        op, sectors = writes["op"], writes["sectors"]
        discards = sectors[(op == Operation.DISCARD) | (op == Operation.SECURE_ERASE)]
        self.discarded_bytes += int(discards.sum(dtype=np.int64)) * SECTOR_BYTES
        self._data_bytes += int(sectors[op == Operation.WRITE].sum(dtype=np.int64)) * SECTOR_BYTES

    def sent(self, writes: Records) -> None:
        self.stream_bytes += int(writes["sectors"].sum(dtype=np.int64)) * SECTOR_BYTES
        self.stream_requests += len(writes)

    def acknowledged(self, writes: Iterable[tuple[float, int]], now: float) -> None:
        """When writes were captured that are durable on the secondary now, and how many at each time."""
        for captured_at, count in writes:
            self._latency.add(now - captured_at, count)

    def compared(self, length_bytes: int, wanted_bytes: int) -> None:
        self.compared_bytes += length_bytes
        self.copied_bytes += wanted_bytes

    def settled(self, blocks: int) -> None:
        self.settled_blocks += blocks

    def unsettled(self, why: str, blocks: int) -> None:
        self.unsettled_blocks[why] += blocks

    def mode_changed(self, in_sync: bool, now: float) -> None:
        if in_sync and self._out_since is not None:
            self.unsynchronized_seconds += now - self._out_since
            self._out_since = None
        elif not in_sync and self._out_since is None:
            self._out_since = now

    def observe(self, now: float, out_of_sync_bytes: int) -> None:
        """Keep the worst, and a sample per second for the write rate."""
        self.out_of_sync_max_bytes = max(self.out_of_sync_max_bytes, out_of_sync_bytes)
        if now - self._samples[-1][0] >= 0.5:
            self._samples.append((now, self._data_bytes))
            while now - self._samples[0][0] > RATE_WINDOW_S and len(self._samples) > 2:
                self._samples.popleft()

    def write_rate_bytes(self, now: float) -> float:
        """Bytes of data per second written over the last few seconds."""
        then, written = self._samples[0]
        return (self._data_bytes - written) / max(now - then, 0.5)

    def written_since_retire(self) -> bool:
        """Whether anything was written since this was last asked."""
        changed = self.written_bytes != self._retired_at_bytes
        self._retired_at_bytes = self.written_bytes
        return changed

    def figures(self, now: float, *, times_out_of_normal: int = 0) -> Figures:
        """All of them now, for the status."""
        since = now - self._out_since if self._out_since is not None else 0.0
        return Figures(
            written_requests=self.written_requests,
            discarded_bytes=self.discarded_bytes,
            stream_requests=self.stream_requests,
            stream_bytes=self.stream_bytes,
            compared_bytes=self.compared_bytes,
            copied_bytes=self.copied_bytes,
            settled_blocks=self.settled_blocks,
            unsettled_blocks=UnsettledFigures(**self.unsettled_blocks),
            log_full=self.log_full,
            resyncs=self.resyncs,
            out_of_sync_max_bytes=self.out_of_sync_max_bytes,
            unsynchronized_seconds=round(self.unsynchronized_seconds + since, 3),
            times_out_of_normal=times_out_of_normal,
            acknowledgement_latency=self._latency.figures(),
        )
