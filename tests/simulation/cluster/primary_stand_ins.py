"""What stands for the threads, queues and files around the loop of a primary: the same to the loop, and run by the world."""

from __future__ import annotations

import queue
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pydbt.controller.primary.outbox import BlockData
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.protocol.frames import Frame
from tests.simulation.cluster.clock import Clock
from tests.simulation.cluster.disk import Machine
from tests.simulation.cluster.files import SimPath
from tests.simulation.cluster.kernel import Kernel
from tests.simulation.cluster.network import Connection

if TYPE_CHECKING:
    from tests.simulation.cluster.primary_node import PrimaryNode


class SimInbox:
    """The loop's queue. Waiting on it lets the world go on."""

    wait: Callable[[float], None]

    def __init__(self) -> None:
        self._items: deque[object] = deque()

    def put(self, item: object) -> None:
        self._items.append(item)

    def empty(self) -> bool:
        return not self._items

    def get(self, timeout: float = 0.0) -> object:
        if not self._items:
            type(self).wait(timeout)
        return self.get_nowait()

    def get_nowait(self) -> object:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()


class PrimaryEnd:
    """The primary's end of a connection, in the place of a FramedConnection."""

    who = "of the simulation"
    local_host, local_scope = "127.0.0.1", ""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def close(self) -> None:
        self.connection.to_secondary.finish("the primary closed the connection")
        self.connection.to_secondary.mute = True
        self.connection.to_primary.broken = True


class SimOutbox:
    """As pydbt.controller.outbox.Outbox, without the thread."""

    machine: Machine

    def __init__(self, end: PrimaryEnd, compress_level: int | None, failed: Callable[[str], None]) -> None:
        self._end, self._level = end, compress_level

    @property
    def queued_bytes(self) -> int:
        return self._end.connection.to_secondary.queued

    @property
    def sent_bytes(self) -> int:
        return self._end.connection.to_secondary.sent

    def put(self, frames: list[Frame], payload_bytes: int = 0) -> None:
        self.machine.touch()
        self._end.connection.to_secondary.send(frames, self._level)

    def close(self, *, flush_s: float = 0.0) -> None:
        self._end.close()

    def wait_for_farewell(self) -> None:
        """There is none."""


class SimReader:
    """As pydbt.controller.block_reader.BlockReader: reads that take a while, one run after the other."""

    clock: Clock
    rng: random.Random
    kernel: Kernel
    machine: Machine
    read_error = 0.0  # how often a run cannot be read at all
    bad: frozenset[int] = frozenset()  # blocks that cannot be read

    def __init__(self, reader: object, geometry: object, position: Callable[[], int], done: Callable) -> None:
        self._geometry, self._position, self._done = geometry, position, done
        self._readings: dict[int, BlockData] = {}
        self._reading: set[int] = set()

    def submit(self, request: ev.ReadBlocks) -> None:
        self._reading.add(request.reading)
        self._next(request, 0, bytearray(), [])

    def _next(self, request: ev.ReadBlocks, index: int, data: bytearray, unread: list[int]) -> None:
        self.clock.after(self.rng.random() * 0.01, lambda: self._read(request, index, data, unread))

    def _read(self, request: ev.ReadBlocks, index: int, data: bytearray, unread: list[int]) -> None:
        if self.machine.dead:
            return
        if self.rng.random() < type(self).read_error:
            self._reading.discard(request.reading)
            self._done(ev.BlocksRead(request.reading, self._position(), 0, error="input/output error"))
            return
        first, count = int(request.runs.firsts[index]), int(request.runs.counts[index])
        for block in range(first, first + count):
            if block in type(self).bad:
                unread.append(block)
            else:
                data += self.kernel.disk.read(*self._geometry.bytes_of_blocks(block, 1))
        if index + 1 < len(request.runs.firsts):
            self._next(request, index + 1, data, unread)
        elif request.reading in self._reading:
            self._reading.discard(request.reading)
            missing = Runs.of_blocks(np.array(unread, np.int64))
            runs = request.runs.minus(missing)
            self._readings[request.reading] = BlockData(self._geometry, runs, memoryview(data))
            error = "bad sector" if unread else ""
            self._done(ev.BlocksRead(request.reading, self._position(), len(data), error, missing))

    def reading(self, identifier: int) -> BlockData:
        return self._readings[identifier]

    def drop(self, identifier: int) -> None:
        self._readings.pop(identifier, None)
        self._reading.discard(identifier)

    def close(self, *, wait: bool = True) -> None:
        self.machine.touch()


class SimMapWriter:
    """As pydbt.controller.primary.map_writer.MapWriter: writes that end some time later, one after the other."""

    def __init__(self, node: PrimaryNode) -> None:
        self._node, self._clock, self._rng = node, node.clock, node.rng
        self._jobs: deque[Callable[[], None]] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._clock.after(self._delay_s(), self._next)

    def _delay_s(self) -> float:
        """A quick disk mostly, and now and then one that is busy for seconds."""
        return self._rng.random() * (4.0 if self._rng.random() < 0.05 else 0.02)

    def _next(self) -> None:
        if self._node.writer is not self or not self._jobs:
            return  # its process has ended
        self._jobs[0]()
        self._jobs.popleft()
        if self._jobs:
            self._clock.after(self._delay_s(), self._next)

    def wait(self) -> None:
        while self._jobs:
            self._jobs.popleft()()

    def close(self) -> None:
        """It has no thread."""


class SourcePath(SimPath):
    """A device, and no file of the state directory."""

    def is_block_device(self) -> bool:
        return True
