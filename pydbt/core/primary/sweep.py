"""Sweep and copy (¶92-94): which blocks to read next, what is on its way, and whether sweeping can end.

The three rules of the map hold here. A block leaves ``pending`` for ``in_transit`` *before* it is read, so
a write during the read marks it anew; it leaves ``in_transit`` only when the secondary has it durably; and
a lost connection puts everything in transit back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.rate_limit import RateLimit
from pydbt.core.units import MIB, Geometry

# One batch: what one frame carries. Small enough for a smooth rate limit, large enough for a fast disk.
BATCH_BYTES = 1 * MIB
MAX_BATCH_RUNS = 512
# Read ahead of the secondary's acknowledgements by at most this much (it is held in memory).
WINDOW_BYTES = 24 * MIB
# So little left that the last sweep may begin whatever the write rate is.
SMALL_REMAINDER_BYTES = 1 * MIB
# Passes in a row that did not shrink what is pending before the operator is told.
STUCK_PASSES = 4


@dataclass(slots=True)
class Batch:
    """Runs of blocks on their way: read, perhaps compared, sent, acknowledged."""

    first_blocks: np.ndarray
    block_counts: np.ndarray
    length_bytes: int
    number: int | None = None  # of the BLOCKS frame, once it is sent
    digests: int | None = None  # number of the DIGESTS frame, once it is sent
    rest: Runs | None = None  # of a batch offered for comparison: small blocks too few for a digest of their own
    read: bool = False

    @property
    def runs(self) -> Runs:
        return Runs(self.first_blocks, self.block_counts)


class Sweep:
    """The planner of one resynchronization. ``pending`` is the tracker's own map; batches are taken out of it."""

    def __init__(
        self,
        geometry: Geometry,
        pending: DirtyMap,
        new_identifier: Callable[[], int],
        *,
        rate_limit_bytes: int | None,
        now: float,
    ) -> None:
        self._new_identifier = new_identifier
        self.geometry = geometry
        self.pending = pending
        self._limit = RateLimit(rate_limit_bytes, BATCH_BYTES, now)
        self.batches: dict[int, Batch] = {}
        self.window_bytes = 0
        self.passes = 0
        self.done_bytes = 0
        self._cursor = 0
        self._last_remainder = -1
        self._stuck = 0
        self._started = now

    # --- taking and returning -----------------------------------------------------------------------------
    def next_batch(self, now: float, *, urgent: bool = False) -> tuple[int, Batch] | None:
        """Take the next batch out of the map in device order; None: nothing left in this pass, or not allowed yet.

        ``urgent``: writers are held up meanwhile; window and rate limit do not count.
        """
        if not urgent and (self.window_bytes >= WINDOW_BYTES or not self._limit.allows(now)):
            return None
        limit = max(1, BATCH_BYTES // self.geometry.block_bytes)
        firsts: list[int] = []
        counts: list[int] = []
        room = limit
        while room > 0 and len(firsts) < MAX_BATCH_RUNS:
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
        return self.adopt(np.array(firsts, dtype=np.int64), np.array(counts, dtype=np.int64))

    def adopt(self, first_blocks: np.ndarray, block_counts: np.ndarray) -> tuple[int, Batch]:
        """Number a batch and count it as in transit."""
        length = int(block_counts.sum()) * self.geometry.block_bytes
        batch = Batch(first_blocks, block_counts, length)
        identifier = self._new_identifier()
        self.batches[identifier] = batch
        self.window_bytes += length
        self._limit.take(length)
        return identifier, batch

    def answered(self, number: int) -> int | None:
        """The batch whose DIGESTS frame had this number."""
        return next((key for key, batch in self.batches.items() if batch.digests == number), None)

    def finish(self, identifier: int) -> Batch:
        """A batch is in sync: found equal, or durable on the secondary."""
        batch = self.batches.pop(identifier)
        self.window_bytes -= batch.length_bytes
        self.done_bytes += batch.length_bytes
        return batch

    def acknowledge(self, number: int) -> list[Batch]:
        """Every BLOCKS frame up to ``number`` is durable."""
        done = [key for key, batch in self.batches.items() if batch.number is not None and batch.number <= number]
        return [self.finish(key) for key in done]

    def put_back(self, identifier: int) -> None:
        """A batch could not be read or sent: its blocks are pending again."""
        batch = self.batches.pop(identifier)
        self.window_bytes -= batch.length_bytes
        self.pending.set_extents(batch.first_blocks, batch.block_counts)

    def abandon(self) -> list[int]:
        """Put everything in transit back (connection lost); returns the batches to forget."""
        identifiers = list(self.batches)
        for identifier in identifiers:
            self.put_back(identifier)
        return identifiers

    def in_transit(self) -> list[Batch]:
        return list(self.batches.values())

    # --- passes -------------------------------------------------------------------------------------------
    @property
    def pass_read(self) -> bool:
        """Everything of this pass is in memory, or on the secondary already."""
        return self.pending.next_run(self._cursor, 1) is None and all(batch.read for batch in self.batches.values())

    @property
    def pass_over(self) -> bool:
        """Nothing of this pass is left to read or on its way."""
        return not self.batches and self.pending.next_run(self._cursor, 1) is None

    def begin_pass(self) -> None:
        self._cursor = 0
        self.passes += 1

    def remainder_bytes(self) -> int:
        return self.pending.count() * self.geometry.block_bytes

    def may_end(self, now: float, write_rate_bytes: float, log_room_bytes: int) -> bool:
        """Whether the last sweep would fit: the writes during it must fit into a quarter of the log's room."""
        remainder = self.remainder_bytes()
        if remainder <= SMALL_REMAINDER_BYTES and self._stuck < 2 * STUCK_PASSES:
            return True
        seconds = remainder / max(self.rate_bytes(now), 1.0)
        return seconds * write_rate_bytes < log_room_bytes / 4

    def note_pass(self) -> bool:
        """Call at the end of a pass; True when the remainder has not shrunk for STUCK_PASSES passes (told once)."""
        remainder = self.remainder_bytes()
        grew = 0 <= self._last_remainder <= remainder
        self._stuck = self._stuck + 1 if grew else 0
        self._last_remainder = remainder
        return self._stuck == STUCK_PASSES

    # --- rate ---------------------------------------------------------------------------------------------
    def rate_bytes(self, now: float) -> float:
        """Bytes a second brought in sync, over the whole resynchronization; an optimistic guess at first."""
        elapsed = now - self._started
        if elapsed < 0.5 or self.done_bytes < MIB:
            return float(self._limit.bytes_per_s or 64 * MIB)
        return self.done_bytes / elapsed

    def next_allowed(self) -> float | None:
        """When the rate limit lets the next batch go; None: now."""
        return self._limit.next_allowed()


def runs_of(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct block numbers as (first, count) runs."""
    if not len(blocks):
        return blocks, blocks
    breaks = np.flatnonzero(np.diff(blocks) != 1)
    starts = np.concatenate(([0], breaks + 1))
    ends = np.concatenate((breaks, [len(blocks) - 1]))
    return blocks[starts], blocks[ends] - blocks[starts] + 1


def blocks_of(first_blocks: np.ndarray, block_counts: np.ndarray) -> np.ndarray:
    """Runs as single block numbers, in order."""
    total = int(block_counts.sum())
    offsets = np.arange(total) - np.repeat(np.cumsum(block_counts) - block_counts, block_counts)
    return np.repeat(first_blocks, block_counts) + offsets
