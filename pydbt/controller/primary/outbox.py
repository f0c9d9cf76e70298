"""The frames for a secondary, built from captured payload and from blocks read, and sent by one thread.

The main loop hands over whole batches and goes on; the thread hashes, compresses and writes to the socket.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import numpy as np

from pydbt.core.blocks.compared import small_blocks, small_blocks_of_units
from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import ExtentKind, SectorTable
from pydbt.core.errors import PeerError
from pydbt.core.protocol.digests import UnitDigest
from pydbt.core.protocol.frames import MAX_EXTENTS, MAX_SEQUENCE_SPAN, Blocks, Digests, Frame, Stream
from pydbt.core.protocol.stream_times import MAX_TIMED_EXTENTS, StreamTimes
from pydbt.core.tracking.capture_record import Operation
from pydbt.core.tracking.replica_queue import MAX_UPDATE_SECTORS
from pydbt.core.units import SECTOR_BYTES, Buffer, Geometry
from pydbt.network.connection import FramedConnection

# Zero runs shorter than this travel as data: an extent row costs 16 bytes.
ZERO_GRANULE_BYTES = 512
_log = logging.getLogger("pydbt")
_KINDS = np.zeros(256, dtype=np.uint8)
_KINDS[Operation.WRITE] = ExtentKind.DATA
_KINDS[Operation.WRITE_ZEROES] = ExtentKind.ZERO
_KINDS[Operation.DISCARD] = ExtentKind.DISCARD
_KINDS[Operation.SECURE_ERASE] = ExtentKind.DISCARD


class Outbox:
    """The sender of one connection. ``failed`` is called once, from its thread, when the socket breaks."""

    def __init__(self, connection: FramedConnection, compress_level: int | None, failed: Callable[[str], None]) -> None:
        self._connection = connection
        self._compress_level = compress_level
        self._failed = failed
        self._queue: queue.SimpleQueue[tuple[list[Frame], int] | None] = queue.SimpleQueue()
        self._handed_bytes = 0
        self._taken_bytes = 0
        self._farewell: threading.Thread | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="sender", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no memory for a thread, or too many of them
            self._thread = None
            failed(f"this side cannot send now: {error}")

    @property
    def queued_bytes(self) -> int:
        """Payload handed over and not yet taken by the socket."""
        return self._handed_bytes - self._taken_bytes

    @property
    def sent_bytes(self) -> int:
        return self._connection.sent_bytes

    def put(self, frames: list[Frame], payload_bytes: int = 0) -> None:
        self._handed_bytes += payload_bytes
        self._queue.put((frames, payload_bytes))

    def close(self, *, flush_s: float = 0.0) -> None:
        """Stop the thread. With ``flush_s`` queued frames may still go out for this time; it is not waited for here."""
        self._queue.put(None)
        if flush_s:
            farewell = threading.Thread(target=self._end, args=(flush_s,), name="farewell", daemon=True)
            try:
                farewell.start()
            except RuntimeError:
                self._end(0.0)
            else:
                self._farewell = farewell
        else:
            self._end(0.0)

    def wait_for_farewell(self) -> None:
        """Before the process ends: wait for the end of what ``close`` has begun."""
        if self._farewell is not None:
            self._farewell.join()

    def _end(self, flush_s: float) -> None:
        if self._thread is None:
            self._connection.close()
            return
        self._thread.join(flush_s)
        self._connection.close()
        self._thread.join(5.0)

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                frames, payload_bytes = item
                self._connection.send_frames(frames, compress_level=self._compress_level)
                self._taken_bytes += payload_bytes
        except PeerError as error:
            self._failed(str(error))
        except Exception as error:  # a fault of ours must not leave a connection that looks alive
            _log.exception("the sender failed")
            self._failed(f"the sender failed: {error}")


def stream_frames(
    records: np.ndarray,
    last_sequences: np.ndarray,
    first_sequence: int,
    payload: bytes,
    clock_offset_ns: int | None = None,
) -> list[Frame]:
    """STREAM frames of captured writes, in order. ``payload`` is their data in one piece.

    ``clock_offset_ns``: as of ``StreamTimes``; None for a secondary that is not told when they were submitted.
    """
    kinds = _KINDS[records["op"]]
    if len(records) == 1 and kinds[0] == ExtentKind.DATA and records["sectors"][0] > MAX_UPDATE_SECTORS:
        times = None if clock_offset_ns is None else StreamTimes(clock_offset_ns, records["time_ns"])
        return _large_write(int(records["sector"][0]), int(records["sectors"][0]), first_sequence, payload, times)
    deltas = last_sequences - first_sequence
    assert deltas[-1] < MAX_SEQUENCE_SPAN and len(records) <= MAX_TIMED_EXTENTS
    extents = SectorTable.of(records["sector"], records["sectors"], kinds, deltas)
    times = None
    if clock_offset_ns is not None:
        submitted_ns, numbers = records["time_ns"], int(deltas[-1]) + 1
        if numbers != len(records):  # nearly always each write has one
            submitted_ns = np.repeat(submitted_ns, np.diff(deltas, prepend=-1))
        times = StreamTimes(clock_offset_ns, submitted_ns)
    return _within_limits(extents, payload, first_sequence, int(last_sequences[-1]), times)


def _within_limits(
    extents: SectorTable, payload: Buffer, first: int, last: int, times: StreamTimes | None
) -> list[Frame]:
    split, pieces = extents.split_zeros(payload, ZERO_GRANULE_BYTES)
    if len(split) > MAX_TIMED_EXTENTS:
        split, pieces = extents, [memoryview(payload)]
    return [Stream(first=first, last=last, extents=split, payload=tuple(pieces), times=times)]


def _large_write(sector: int, sectors: int, sequence: int, payload: bytes, times: StreamTimes | None) -> list[Frame]:
    """One write as several updates: each part is as legal an outcome of a crash as the whole write."""
    frames: list[Frame] = []
    view = memoryview(payload)
    for start in range(0, sectors, MAX_UPDATE_SECTORS):
        length = min(MAX_UPDATE_SECTORS, sectors - start)
        part = view[start * SECTOR_BYTES : (start + length) * SECTOR_BYTES]
        frames += _within_limits(SectorTable.of([sector + start], [length]), part, sequence, sequence, times)
        sequence += 1
    return frames


class BlockData:
    """Blocks read for a sweep or for settling: runs, and their bytes one after the other."""

    def __init__(self, geometry: Geometry, runs: Runs, data: memoryview) -> None:
        # Kept in small blocks, the least that the secondary compares; the tracker's may be larger.
        self._volume, self._geometry = geometry, geometry.compared
        self._runs = small_blocks(runs, geometry)
        self.data = data

    def digests(self, batch: int, units: Runs, unit_bytes: int, digest: UnitDigest) -> Digests:
        """The digests of some of the data, in units of ``unit_bytes``, as a frame."""
        digests = b"".join(
            digest.of_each(run, unit_bytes)
            for run in self._slices(small_blocks_of_units(units, unit_bytes, self._volume))
        )
        return Digests(batch=batch, units=units, digests=digests, unit_bytes=unit_bytes)

    def blocks(self, batch: int, wanted: Runs | None) -> Blocks:
        """The data (or what is wanted of it) as a BLOCKS frame."""
        extents, data = self._selection(wanted)
        split, pieces = extents.split_zeros(data, ZERO_GRANULE_BYTES)
        if len(split) > MAX_EXTENTS:
            split, pieces = extents, [memoryview(data)]
        return Blocks(batch=batch, extents=split, payload=tuple(pieces))

    def settled(self, sequence: int, runs: Runs, times: StreamTimes | None = None) -> Stream:
        """Some of the runs, in the tracker's blocks, as one update of the stream. ``times``: of that one."""
        extents, data = self._selection(small_blocks(runs, self._volume))
        return Stream(first=sequence, last=sequence, extents=extents, payload=(data,), times=times)

    def _selection(self, wanted: Runs | None) -> tuple[SectorTable, bytes]:
        if wanted is None:
            return self._sector_table(self._runs), bytes(self.data)
        return self._sector_table(wanted), b"".join(self._slices(wanted))

    def _slices(self, runs: Runs) -> list[memoryview]:
        """The data of some runs, each of which lies in what was read. PeerError: it does not."""
        offered = self._runs.blocks()
        size = self._geometry.block_bytes
        pieces = []
        for first, count in zip(runs.firsts.tolist(), runs.counts.tolist(), strict=True):
            index = int(np.searchsorted(offered, first))
            last = index + count - 1
            if last >= len(offered) or offered[index] != first or offered[last] != first + count - 1:
                raise PeerError("the secondary asked for blocks that it was not offered")
            pieces.append(self.data[index * size : (index + count) * size])
        return pieces

    def _sector_table(self, runs: Runs) -> SectorTable:
        per_block = self._geometry.block_sectors
        sectors = runs.firsts * per_block
        return SectorTable.of(sectors, np.minimum(runs.counts * per_block, self._geometry.size_sectors - sectors))
