"""Settling in normal mode: unsettled blocks are read while nothing touches them, compared, and sent if they differ.

Or they are written anew as a whole, as ``unsettled`` tells.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np

from pydbt.core.blocks import compared
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.events import BlocksRead, DropReading, ReadBlocks, SendDigests
from pydbt.core.protocol.frames import Want
from pydbt.core.tracking.capture_record import Operation, empty_records
from pydbt.core.tracking.in_flight import InFlightReport
from pydbt.core.tracking.replica_queue import Segment
from pydbt.core.tracking.unsettled import DIFFERS_SINCE_EVER, MAX_BATCH_BLOCKS, Unsettled
from pydbt.core.units import MIB, SECTOR_BYTES, Geometry

if TYPE_CHECKING:
    from pydbt.core.primary.brain import Primary

# What is settled goes out as one update: it must fit into one frame.
MAX_SETTLED_BYTES = 4 * MIB
# More unsettled blocks than this are not worth reading one by one: a sweep does it.
MAX_UNSETTLED_BLOCKS = 65536


class Settler:
    """Part of the primary's brain; see ``unsettled`` for why blocks get here."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self._set = Unsettled(max(1, min(MAX_BATCH_BLOCKS, MAX_SETTLED_BYTES // primary.geometry.block_bytes)))
        self._offered: dict[int, int] = {}  # number of a DIGESTS frame -> reading
        self._behind: dict[int, int] = {}  # reading -> sequence that must have been sent before it is compared

    def __len__(self) -> int:
        return len(self._set)

    @property
    def reading(self) -> bool:
        return bool(self._set.readings())

    @property
    def repairing(self) -> bool:
        """Whether a block that was found to differ is not on the secondary yet."""
        return self._set.oldest_sequence() == DIFFERS_SINCE_EVER

    @property
    def awaiting(self) -> bool:
        return any(reading.compared for _, reading in self._set.readings())

    def mark(self, report: InFlightReport, taken: Segment, firsts: np.ndarray, counts: np.ndarray, now: float) -> bool:
        """Take in what a batch of records settles and unsettles. True: too many blocks, sweep them.

        ``taken``: the write requests of the batch; ``firsts`` and ``counts``: the blocks of each, as a run.
        """
        if self.reading and len(firsts):
            self._set.touch(Runs(firsts, counts).blocks())
        if len(self._set):
            blocks, sequences = _whole_writes(taken, np.sort(self._set.blocks()), self._primary.geometry)
            at_rest = ~(report.overlapped.mask(blocks) | report.unmatched.mask(blocks))
            self._set.rewritten(blocks[at_rest], sequences[at_rest])
        too_many = False
        for why in ("overlapped", "failed", "unstable"):
            extents = getattr(report, why)
            if count := extents.total():
                self._primary.statistics.unsettled(why, count)
                too_many |= count + len(self._set) > MAX_UNSETTLED_BLOCKS
                if not too_many:
                    self._set.add(extents.blocks(), self._primary.sequence, now)
        return too_many

    def repair(self, blocks: np.ndarray, now: float) -> None:
        """Blocks were found to differ: read, compare and send them; too many of them are swept."""
        primary = self._primary
        primary.statistics.unsettled("verified", len(blocks))
        if len(blocks) + len(self._set) > MAX_UNSETTLED_BLOCKS:
            primary.tracker.pending.set_blocks(blocks)
            primary.log_full("more blocks differ than are worth copying singly", empty_records(), now)
        else:
            self._set.add(blocks, DIFFERS_SINCE_EVER, now)

    def unknown(self, extents: Runs, now: float) -> None:
        """Blocks whose completion was never shown: read them again."""
        self._primary.statistics.unsettled("unseen", extents.total())
        self._set.add(extents.blocks(), self._primary.sequence, now)

    def durable_through(self, sequence: int) -> None:
        self._set.durable_through(sequence)

    def blocks(self) -> np.ndarray:
        return self._set.blocks()

    def oldest_sequence(self) -> int | None:
        return self._set.oldest_sequence()

    def deadline(self) -> float:
        due = self._set.next_due()
        return inf if due is None or self.reading else due

    def abandon(self, pending: DirtyMap) -> None:
        """Replication halts: unsettled blocks are simply pending from here on."""
        blocks, readings = self._set.clear()
        self._behind.clear()
        self._offered.clear()
        if len(blocks):
            pending.set_blocks(blocks)
        for reading in readings:
            self._primary.effects.add(DropReading(reading))

    def advance(self, now: float, hurry: bool) -> None:
        """Compare what was read, then read what is due. One reading at a time keeps the cost low."""
        primary = self._primary
        for identifier, reading in self._set.readings():
            if reading.position is None or reading.compared or not primary.position_reached(reading.position):
                continue
            # Every write submitted by the end of the read must be on its way before the secondary compares:
            # else it could call an older content equal that a queued write is about to replace.
            behind = self._behind.setdefault(identifier, primary.sequence)
            if primary.queue.all_sent or primary.queue.sent_through >= behind:
                reading.compared = True
                batch = primary.next_batch()
                self._offered[batch] = identifier
                table, unit = compared.all_units(Runs.of_blocks(reading.blocks), primary.geometry)
                primary.effects.add(SendDigests(identifier, batch, table, unit))
        if not self.reading and len(self._set):
            blocks = self._set.take_due(now, primary.in_flight.blocks_in_flight, hurry)
            if len(blocks):
                identifier = primary.next_reading()
                self._set.begin(identifier, blocks)
                primary.effects.add(ReadBlocks(identifier, Runs.of_blocks(blocks)))

    def read(self, event: BlocksRead, now: float) -> bool:
        """A read is over; False when it is not one of these."""
        reading = self._set.reading(event.reading)
        if reading is None:
            return False
        reading.position = event.position
        if event.error:
            self._primary.effects.log("error", f"{event.error}; the blocks stay out of sync and are read again")
            self._set.touch(reading.blocks)
            self._finish(event.reading, np.empty(0, np.int64), now)
        return True

    def want(self, want: Want, now: float) -> bool:
        """The secondary compared; send what differs, at the present end of the stream."""
        reading = self._offered.pop(want.batch, None)
        if reading is None:
            return False
        self._finish(reading, compared.blocks_wanted(want.units, self._primary.geometry), now)
        return True

    def _finish(self, reading: int, wanted: np.ndarray, now: float) -> None:
        primary = self._primary
        self._behind.pop(reading, None)
        differing = self._set.finish(reading, wanted, now)
        if not len(differing):
            primary.effects.add(DropReading(reading))
            return
        runs = Runs.of_blocks(differing)
        primary.statistics.settled(len(differing))
        primary.sequence += 1
        sequences = np.full(len(runs.firsts), primary.sequence, dtype=np.uint64)
        if primary.tracker.insert_batch(sequences, *runs) < len(runs.firsts):
            primary.tracker.pending.set_blocks(differing)
            primary.effects.add(DropReading(reading))
            primary.log_full("the transaction log has no free space", empty_records(), now)
            return
        self._set.sent(differing, primary.sequence)
        primary.queue.append(
            Segment(
                empty_records(),
                np.array([primary.sequence]),
                primary.sequence,
                now,
                reading=reading,
                runs=runs,
                settled_bytes=runs.total() * primary.geometry.block_bytes,
            )
        )


def _whole_writes(taken: Segment, blocks: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Of ``blocks``, in ascending order, those that a write has covered with data: (blocks, the last such update of each).

    What a device returns of a discarded block is its own affair, so that a discard settles nothing.
    """
    with_data = (taken.records["op"] == Operation.WRITE) & (taken.records["pieces"] > 0)
    sector = taken.records["sector"][with_data].astype(np.int64)
    end = sector + taken.records["sectors"][with_data]
    firsts = -(-sector // geometry.block_sectors)
    ends = np.where(end == geometry.size_sectors, geometry.block_count, end // geometry.block_sectors)
    low, high = np.searchsorted(blocks, firsts), np.searchsorted(blocks, ends)
    hits = np.maximum(high - low, 0)
    places = np.repeat(low - np.cumsum(hits) + hits, hits) + np.arange(hits.sum())
    last = np.zeros(len(blocks), np.int64)
    np.maximum.at(last, places, np.repeat(taken.last_sequences[with_data], hits))
    return blocks[last > 0], last[last > 0]


assert MAX_SETTLED_BYTES % SECTOR_BYTES == 0
