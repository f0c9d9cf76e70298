"""Reads blocks of the source for sweeps, past every cache, in a few threads; results come back as events."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from pydbt.controller.primary.outbox import BlockData
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import DeviceError, MediumError
from pydbt.core.primary.events import BlocksRead, ReadBlocks
from pydbt.core.units import MIB, Geometry
from pydbt.device.block import DirectReader, aligned_buffer

# Enough to keep a disk's queue busy with scattered blocks; more would fight the applications for it.
THREADS = 4
# Each thread reads at most this at a time, for the same reason: with more in its queue a disk makes all programs wait.
READ_BYTES = 1 * MIB
# Memory of finished readings is kept up to this size and used again: mapping and zeroing new memory costs the processor
# more than reading into it.
POOL_BYTES = 16 * MIB

_log = logging.getLogger("pydbt")


@dataclass(slots=True)
class _Unread:
    """What one read could not read; ``error`` is that of the first of these blocks."""

    blocks: list[int] = field(default_factory=list)
    error: str = ""


class BlockReader:
    """``done`` is called from a reading thread with the answer; ``position`` gives the ring position then."""

    def __init__(
        self,
        reader: DirectReader,
        geometry: Geometry,
        position: Callable[[], int],
        done: Callable[[BlocksRead], None],
    ) -> None:
        self._reader = reader
        self._geometry = geometry
        self._position = position
        self._done = done
        self._requests: queue.SimpleQueue[ReadBlocks | None] = queue.SimpleQueue()
        self._readings: dict[int, BlockData] = {}
        self._reading: set[int] = set()
        self._lock = threading.Lock()
        self._pool: list[memoryview] = []  # the oldest first
        self._held: DirectReader | None = None
        self._held_reads = 0
        self._idle = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._begin()

    def _begin(self) -> str:
        """Start the threads that do not run. Why there is not a single one; empty when there is."""
        while len(self._threads) < THREADS:
            thread = threading.Thread(target=self._run, name=f"reader-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no memory for a thread, or too many of them
                return "" if self._threads else str(error)
            self._threads.append(thread)
        return ""

    def submit(self, request: ReadBlocks) -> None:
        if problem := self._begin():
            self._done(BlocksRead(request.reading, self._position(), 0, error=f"blocks cannot be read now: {problem}"))
            return
        with self._lock:
            self._reading.add(request.reading)
        self._requests.put(request)

    def reading(self, identifier: int) -> BlockData:
        return self._readings[identifier]

    def drop(self, identifier: int) -> None:
        """Forget a reading and use its memory again; one that is still under way is forgotten when it is done."""
        with self._lock:
            done = self._readings.pop(identifier, None)
            self._reading.discard(identifier)
            if done is not None:
                self._recycle(done)

    def hold(self, snapshot: DirectReader) -> None:
        """Reads that ask for it come from there, until ``let_go``, which closes it."""
        with self._lock:
            self._held = snapshot

    def let_go(self) -> None:
        """Wait for the reads under way from the snapshot, and close it; later ones fail."""
        with self._idle:
            snapshot, self._held = self._held, None
            self._idle.wait_for(lambda: not self._held_reads)
        if snapshot is not None:
            snapshot.close()

    def close(self, *, wait: bool = True) -> None:
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads if wait else ():
            thread.join(10.0)

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            unread = _Unread()
            try:
                data = self._read(request, unread)
            except Exception as error:  # also a fault of ours: a reading without an answer would never end
                if not isinstance(error, DeviceError):
                    _log.exception("reading blocks failed")
                with self._lock:
                    self._reading.discard(request.reading)
                self._done(BlocksRead(request.reading, self._position(), 0, error=str(error)))
                continue
            with self._lock:
                if request.reading not in self._reading:
                    self._recycle(data)
                    continue
                self._reading.discard(request.reading)
                self._readings[request.reading] = data
            position, bad = self._position(), Runs.of_blocks(np.array(unread.blocks, np.int64))
            self._done(BlocksRead(request.reading, position, len(data.data), unread.error, bad))

    @contextlib.contextmanager
    def _source_of(self, request: ReadBlocks) -> Iterator[DirectReader]:
        if not request.from_snapshot:
            yield self._reader
            return
        with self._lock:
            snapshot = self._held
            if snapshot is None:
                raise DeviceError("the snapshot that was to be read is gone")
            self._held_reads += 1
        try:
            yield snapshot
        finally:
            with self._idle:
                self._held_reads -= 1
                self._idle.notify_all()

    def _read(self, request: ReadBlocks, unread: _Unread) -> BlockData:
        runs = [
            self._geometry.bytes_of_blocks(first, count)
            for first, count in zip(request.runs.firsts.tolist(), request.runs.counts.tolist(), strict=True)
        ]
        total = sum(length for _, length in runs)
        buffer = self._buffer(request.runs.total() * self._geometry.block_bytes)
        offset = 0
        with self._source_of(request) as source:
            for start, length in runs:
                for begin in range(0, length, READ_BYTES):
                    part = min(READ_BYTES, length - begin)
                    self._read_around(source, start + begin, buffer[offset : offset + part], unread)
                    offset += part
        if unread.blocks:
            return self._without(request.runs, Runs.of_blocks(np.array(unread.blocks, np.int64)), buffer)
        return BlockData(self._geometry, request.runs, buffer[:total])

    def _read_around(self, source: DirectReader, start: int, into: memoryview, unread: _Unread) -> None:
        """Read everything but the blocks that cannot be read, which are found by halving."""
        block_bytes = self._geometry.block_bytes
        try:
            source.read_extent(start, len(into), into)
        except MediumError as error:
            if len(into) <= block_bytes:
                unread.blocks.append(start // block_bytes)
                unread.error = unread.error or str(error)
                return
            half = max(1, len(into) // block_bytes // 2) * block_bytes
            self._read_around(source, start, into[:half], unread)
            self._read_around(source, start + half, into[half:], unread)

    def _without(self, runs: Runs, unreadable: Runs, buffer: memoryview) -> BlockData:
        """Close the gaps that unreadable blocks leave in the data of runs."""
        readable, block_bytes = runs.minus(unreadable), self._geometry.block_bytes
        index = dict(zip(runs.blocks().tolist(), range(runs.total()), strict=True))
        total = 0
        for first, count in zip(readable.firsts.tolist(), readable.counts.tolist(), strict=True):
            _, length = self._geometry.bytes_of_blocks(first, count)
            offset = index[first] * block_bytes
            buffer[total : total + length] = buffer[offset : offset + length]
            total += length
        return BlockData(self._geometry, readable, buffer[:total])

    def _buffer(self, size_bytes: int) -> memoryview:
        size_bytes = -(-size_bytes // 65536) * 65536
        with self._lock:
            for index in reversed(range(len(self._pool))):
                if len(self._pool[index]) == size_bytes:
                    return self._pool.pop(index)
        return aligned_buffer(size_bytes)

    def _recycle(self, reading: BlockData) -> None:
        self._pool.append(memoryview(reading.data.obj).cast("B"))
        while sum(map(len, self._pool)) > POOL_BYTES:
            del self._pool[0]
