"""Sweep and copy (¶92-94): which blocks to read next, what is on its way, and whether sweeping can end.

The three rules of the map hold here. A block leaves ``pending`` for ``in_transit`` *before* it is read, so
a write during the read marks it anew; it leaves ``in_transit`` only when the secondary has it durably; and
a lost connection puts everything in transit back.

What is likely to differ goes before all else (¶98.3). Nothing rests on that: such a block is read because it is pending, and
whatever is pending besides is read behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.likely import Likely
from pydbt.core.primary.rate_limit import RateLimit
from pydbt.core.units import MAX_COMPARED_BYTES, MIB, Geometry

# Read at once: what one frame carries. Small enough for a smooth rate limit, large enough for a fast disk.
READING_BYTES = 1 * MIB
MAX_READING_RUNS = 512
# Looked at for one reading, of those where differences are likely: each costs some 20 us, and most may be compared already.
MAX_LIKELY_LOOKS = 1024
# Read ahead of the secondary's acknowledgements by at most this much (it is held in memory).
WINDOW_BYTES = 24 * MIB
# So little left that the last sweep may begin whatever the write rate is.
SMALL_REMAINDER_BYTES = 1 * MIB
# Passes in a row that did not shrink what is pending before the operator is told.
STUCK_PASSES = 4


@dataclass(slots=True)
class Transit:
    """Runs of blocks on their way: read, perhaps compared, sent, acknowledged."""

    runs: Runs
    length_bytes: int
    batch: int | None = None  # number of the BLOCKS frame, once it is sent
    digests: int | None = None  # number of the DIGESTS frame, once it is sent
    rest: Runs | None = None  # when offered for comparison: small blocks too few for a digest of their own
    read: bool = False
    sent: Runs | None = None  # the blocks of the BLOCKS frame, where those are not all of them
    likely: bool = False  # read before its turn, because differences are likely there


class Sweep:
    """The planner of one resynchronization. ``pending`` is the tracker's own map; what is read is taken out of it.

    ``readings`` are under way, by their identifier. ``likely``: its blocks that are pending are read first, in its order.
    It may be told more at any time.
    """

    def __init__(
        self,
        geometry: Geometry,
        pending: DirtyMap,
        new_reading: Callable[[], int],
        *,
        rate_limit_bytes: int | None,
        now: float,
        likely: Likely | None = None,
    ) -> None:
        self._new_reading = new_reading
        self._source = Likely(geometry) if likely is None else likely
        self._seen = self._likely = Runs.none()
        self._next_likely = 0
        self.geometry = geometry
        self.pending = pending
        self._limit = RateLimit(rate_limit_bytes, READING_BYTES, now)
        self.readings: dict[int, Transit] = {}
        self.window_bytes = 0
        self.passes = 0
        self.done_bytes = 0
        self._cursor = 0
        self._last_remainder = -1
        self._stuck = 0
        self._started = now
        self._rate_limit_bytes = rate_limit_bytes

    def start(self, now: float) -> None:
        """The first pass begins: rates count from here on."""
        self._limit = RateLimit(self._rate_limit_bytes, READING_BYTES, now)
        self._started = now

    # --- taking and returning -----------------------------------------------------------------------------
    def next_reading(self, now: float, *, urgent: bool = False) -> tuple[int, Transit] | None:
        """Take the next blocks out of the map: those that are likely to differ, and then all in device order. None: nothing left
        in this pass, or not allowed yet.

        ``urgent``: writers are held up meanwhile; window and rate limit do not count.
        """
        if not urgent and (self.window_bytes >= WINDOW_BYTES or not self._limit.allows(now)):
            return None
        room = max(1, READING_BYTES // self.geometry.block_bytes)
        if (runs := self._take_likely(room)) is not None:
            return self._adopt(runs, likely=True)
        firsts: list[int] = []
        counts: list[int] = []
        while room > 0 and len(firsts) < MAX_READING_RUNS:
            run = self.pending.take_run(self._cursor, room)
            if run is None:
                break
            first, count = run
            firsts.append(first)
            counts.append(count)
            room -= count
            self._cursor = first + count
        if not firsts:
            return None
        return self._adopt(Runs(np.array(firsts, dtype=np.int64), np.array(counts, dtype=np.int64)))

    def _take_likely(self, room: int) -> Runs | None:
        """The next ones that are pending, as runs in block order; None when there are no more of them, or none was found soon."""
        if self._source.runs is not self._seen:
            self._seen, self._likely, self._next_likely = (
                self._source.runs,
                _widened(self._source.runs, self.geometry),
                0,
            )
        firsts: list[int] = []
        ends: list[int] = []
        looks_until = min(self._next_likely + MAX_LIKELY_LOOKS, len(self._likely.firsts))
        while room > 0 and len(firsts) < MAX_READING_RUNS and self._next_likely < looks_until:
            first, count = (int(column[self._next_likely]) for column in self._likely)
            run = self.pending.next_run(first, room)
            if run is None or run[0] >= first + count:
                self._next_likely += 1
                continue
            end = min(sum(run), first + count)
            self.pending.clear_range(run[0], end - run[0])
            firsts.append(run[0])
            ends.append(end)
            room -= end - run[0]
        return Runs.of_ranges(np.array(firsts, np.int64), np.array(ends, np.int64)) if firsts else None

    def _adopt(self, runs: Runs, *, likely: bool = False) -> tuple[int, Transit]:
        """Name what is to be read, and count it as in transit."""
        length = runs.total() * self.geometry.block_bytes
        transit = Transit(runs, length, likely=likely)
        reading = self._new_reading()
        self.readings[reading] = transit
        self.window_bytes += length
        self._limit.take(length)
        return reading, transit

    def answered(self, batch: int) -> int | None:
        """The reading whose DIGESTS frame had this number."""
        return next((key for key, transit in self.readings.items() if transit.digests == batch), None)

    def finish(self, reading: int) -> Transit:
        """A reading is in sync: found equal, or durable on the secondary."""
        transit = self.readings.pop(reading)
        self.window_bytes -= transit.length_bytes
        self.done_bytes += transit.length_bytes
        return transit

    def acknowledge(self, batch: int) -> list[Transit]:
        """Every BLOCKS frame up to the number ``batch`` is durable."""
        done = [key for key, transit in self.readings.items() if transit.batch is not None and transit.batch <= batch]
        return [self.finish(key) for key in done]

    def leave_out(self, reading: int, unreadable: Runs) -> bool:
        """Blocks of a reading could not be read, and are counted elsewhere. True: others were."""
        transit = self.readings[reading]
        transit.runs = transit.runs.minus(unreadable)
        length_bytes = transit.runs.total() * self.geometry.block_bytes
        self.window_bytes -= transit.length_bytes - length_bytes
        transit.length_bytes = length_bytes
        return length_bytes > 0

    def put_back(self, reading: int) -> None:
        """Blocks could not be read or sent: they are pending again."""
        transit = self.readings.pop(reading)
        self.window_bytes -= transit.length_bytes
        self.pending.set_extents(*transit.runs)

    def abandon(self) -> list[int]:
        """Put everything in transit back (connection lost); returns the readings to forget."""
        readings = list(self.readings)
        for reading in readings:
            self.put_back(reading)
        return readings

    def in_transit(self) -> list[Transit]:
        return list(self.readings.values())

    @property
    def position(self) -> int:
        """The block at which this pass goes on; those before it were read, or need not be."""
        return self._cursor

    # --- passes -------------------------------------------------------------------------------------------
    @property
    def pass_read(self) -> bool:
        """Everything of this pass is in memory, or on the secondary already."""
        return self.pending.next_run(self._cursor, 1) is None and all(
            transit.read for transit in self.readings.values()
        )

    @property
    def pass_over(self) -> bool:
        """Nothing of this pass is left to read or on its way."""
        return not self.readings and self.pending.next_run(self._cursor, 1) is None

    def begin_pass(self) -> None:
        self._cursor = 0
        self.passes += 1

    def remainder_bytes(self) -> int:
        return self.pending.count() * self.geometry.block_bytes

    def may_end(self, now: float, write_rate_bytes: float, data_room_bytes: int) -> bool:
        """Whether the last sweep would fit: the writes during it must fit into a quarter of the kernel's room for data."""
        remainder = self.remainder_bytes()
        if remainder <= SMALL_REMAINDER_BYTES and self._stuck < 2 * STUCK_PASSES:
            return True
        seconds = remainder / max(self.rate_bytes(now), 1.0)
        return seconds * write_rate_bytes < data_room_bytes / 4

    def note_pass(self) -> bool:
        """Call at the end of a pass; True when the remainder has not shrunk for STUCK_PASSES passes (told once)."""
        remainder = self.remainder_bytes()
        grew = 0 <= self._last_remainder <= remainder
        self._stuck = self._stuck + 1 if grew else 0
        self._last_remainder = remainder
        return self._stuck == STUCK_PASSES

    # --- rate ---------------------------------------------------------------------------------------------
    def rate_bytes(self, now: float) -> float:
        """Bytes per second brought in sync, over the whole resynchronization; an optimistic guess at first."""
        elapsed = now - self._started
        if elapsed < 0.5 or self.done_bytes < MIB:
            return float(self._limit.bytes_per_s or 64 * MIB)
        return self.done_bytes / elapsed

    def next_allowed(self) -> float | None:
        """When the rate limit lets the next reading go; None: now."""
        return self._limit.next_allowed()


def _widened(likely: Runs, geometry: Geometry) -> Runs:
    """Each run to whole units of a comparison, inside of the volume, in their order: a part of a unit is sent without one."""
    per_unit = max(1, MAX_COMPARED_BYTES // geometry.block_bytes)
    firsts = np.maximum(likely.firsts, 0) // per_unit * per_unit
    ends = np.minimum(-(-likely.ends() // per_unit) * per_unit, geometry.block_count)
    inside = ends > firsts
    return Runs(firsts[inside], (ends - firsts)[inside])
