"""Settling in normal mode: unsettled blocks are read while nothing touches them, compared, and sent if they differ.

Or they are written anew as a whole, as ``unsettled`` tells.
"""

from __future__ import annotations

from enum import Enum
from math import inf

import numpy as np

from pydbt.core.blocks import compared
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Integers, Runs
from pydbt.core.primary.events import BlocksRead, DropReading, ReadBlocks, SendDigests
from pydbt.core.primary.state import State
from pydbt.core.primary.unread import failed_as_a_whole, set_apart
from pydbt.core.protocol.frames import Want
from pydbt.core.tracking.capture_record import Operation, empty_records
from pydbt.core.tracking.discards import discarded_in_doubt
from pydbt.core.tracking.in_flight import InFlightReport
from pydbt.core.tracking.replica_queue import Segment
from pydbt.core.tracking.unreadable import TRY_AGAIN_S
from pydbt.core.tracking.unsettled import DIFFERS_SINCE_EVER, UNREAD_SINCE_EVER
from pydbt.core.units import Geometry

# More unsettled blocks than this are not worth reading one by one: a sweep does it.
MAX_UNSETTLED_BLOCKS = 65536
# Nobody waits long for what was discarded: beyond this it is compared with the next verification.
MAX_DISCARDED_BLOCKS = 16384


class Settled(Enum):
    """What became of an answer of the secondary."""

    NOTHING = "nothing was answered that this part had asked"
    TAKEN = "what differed is queued"
    LOG_FULL = "what differed is pending, because the transaction log has no room"


class Settler:
    """Empties ``state.unsettled``; see ``unsettled`` for why blocks get there."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._set = state.unsettled
        self._offered: dict[int, int] = {}  # number of a DIGESTS frame -> reading
        self._behind: dict[int, int] = {}  # reading -> sequence that must have been sent before it is compared

    @property
    def reading(self) -> bool:
        return bool(self._set.readings())

    @property
    def repairing(self) -> bool:
        """Whether a block that was found to differ is not on the secondary yet."""
        return self._set.repairing

    @property
    def awaiting(self) -> bool:
        """Whether the secondary owes an answer."""
        return any(reading.compared for _, reading in self._set.readings())

    def mark(
        self, report: InFlightReport, taken: Segment, written: Runs, now: float, since: float | None = None
    ) -> bool:
        """Take in what a batch of records settles and unsettles. True: too many blocks, sweep them.

        ``taken``: the write requests of the batch; ``written``: the blocks of each, as a run. ``since``: when the first of its
        records was made; it may have lain unread for a while.
        """
        if self.reading and len(written.firsts):
            self._set.touch(written.blocks())
        if len(self._state.unreadable):
            # Not readable, and written anew as a whole: from here on a block like any other that was rewritten.
            blocks, _ = _whole_writes(taken, self._state.unreadable.blocks(), self._state.geometry)
            self._state.unreadable.remove(blocks)
            self._set.add(blocks, UNREAD_SINCE_EVER, now - TRY_AGAIN_S)
        if len(self._set):
            blocks, sequences = _whole_writes(taken, np.sort(self._set.blocks()), self._state.geometry)
            at_rest = ~(report.overlapped.mask(blocks) | report.unmatched.mask(blocks))
            self._set.rewritten(blocks[at_rest], sequences[at_rest])
        self._doubt_discards(taken, now, since)
        too_many = False
        found = (("overlapped", report.overlapped), ("failed", report.failed), ("unstable", report.unstable))
        for why, runs in found:
            if count := runs.total():
                self._state.statistics.unsettled(why, count)
                too_many |= count + len(self._set) > MAX_UNSETTLED_BLOCKS
                if not too_many:
                    self._set.add(runs.blocks(), self._state.sequence, now, since)
        return too_many

    def _doubt_discards(self, taken: Segment, now: float, since: float | None) -> None:
        """Discarded blocks that may not read as zeros are read. If there are too many, the next verification compares them."""
        doubtful = discarded_in_doubt(taken.records, self._state.config.discards, self._state.geometry)
        if not (count := doubtful.total()):
            return
        if count + len(self._set) > MAX_DISCARDED_BLOCKS:
            self._state.left_out.add(doubtful)
            return
        self._state.statistics.unsettled("discarded", count)
        self._set.add(doubtful.blocks(), self._state.sequence, now, since)

    def repair(self, blocks: Integers, now: float) -> bool:
        """Blocks were found to differ: read, compare and send them. True: there are too many, and they are pending."""
        self._state.statistics.unsettled("verified", len(blocks))
        if len(blocks) + len(self._set) > MAX_UNSETTLED_BLOCKS:
            self._state.tracker.pending.set_blocks(blocks)
            return True
        self._set.add(blocks, DIFFERS_SINCE_EVER, now)
        return False

    def unknown(self, unseen: Runs, now: float) -> None:
        """Blocks whose completion was never shown: read them again."""
        self._state.statistics.unsettled("unseen", unseen.total())
        self._set.add(unseen.blocks(), self._state.sequence, now)

    def deadline(self) -> float:
        due = [at for at in (self._set.next_due(), self._state.unreadable.next_due()) if at is not None]
        return inf if self.reading else min(due, default=inf)

    def abandon(self, pending: DirtyMap) -> None:
        """Replication halts: unsettled blocks are simply pending from here on, and so are those that could not be read."""
        blocks, readings = self._set.clear()
        self._behind.clear()
        self._offered.clear()
        if len(blocks):
            pending.set_blocks(blocks)
        pending.set_blocks(self._state.unreadable.take_all())
        for reading in readings:
            self._state.effects.add(DropReading(reading))

    def advance(self, now: float, hurry: bool) -> Settled:
        """Compare what was read, then read what is due. One reading at a time keeps the cost low.

        A secondary that compares nothing is sent what was read: the outcome of that, else NOTHING.
        """
        state, outcome = self._state, Settled.NOTHING
        for again in (state.unreadable.take_due(now), state.replica.take_doubtful()):
            if len(again):
                self._set.add(again, UNREAD_SINCE_EVER, now - TRY_AGAIN_S)
        for identifier, reading in self._set.readings():
            if reading.position is None or reading.compared or not state.position_reached(reading.position):
                continue
            # Every write submitted by the end of the read must be on its way before the secondary compares:
            # else it could call an older content equal that a queued write is about to replace.
            behind = self._behind.setdefault(identifier, state.sequence)
            if not state.replica.compares:
                outcome = self._finish(identifier, reading.blocks, now)
            elif state.queue.all_sent or state.queue.sent_through >= behind:
                reading.compared = True
                batch = state.next_batch()
                self._offered[batch] = identifier
                units, unit_bytes = compared.all_units(Runs.of_blocks(reading.blocks), state.geometry)
                state.effects.add(SendDigests(identifier, batch, units, unit_bytes))
        if not self.reading and len(self._set):
            blocks = self._set.take_due(now, state.in_flight.blocks_in_flight, hurry)
            if len(blocks):
                identifier = state.next_reading()
                self._set.begin(identifier, blocks)
                state.effects.add(ReadBlocks(identifier, Runs.of_blocks(blocks)))
        return outcome

    def read(self, event: BlocksRead, now: float) -> bool:
        """A read is over; False when it is not one of these."""
        reading = self._set.reading(event.reading)
        if reading is None:
            return False
        reading.position = event.position
        if failed_as_a_whole(self._state, event):
            self._state.effects.log("error", f"{event.error}; the blocks stay out of sync and are read again")
            self._set.touch(reading.blocks)
            self._finish(event.reading, np.empty(0, np.int64), now)
            return True
        if event.unreadable.total():
            set_apart(self._state, event, now)
            self._set.leave_out(event.reading, event.unreadable.blocks())
            if not len(reading.blocks):
                self._finish(event.reading, np.empty(0, np.int64), now)
        self._state.unreadable.remove(reading.blocks)
        return True

    def want(self, want: Want, now: float) -> Settled:
        """The secondary compared; send what differs, at the present end of the stream."""
        reading = self._offered.pop(want.batch, None)
        if reading is None:
            return Settled.NOTHING
        return self._finish(reading, compared.blocks_wanted(want.units, self._state.geometry), now)

    def _finish(self, reading: int, wanted: Integers, now: float) -> Settled:
        state = self._state
        self._behind.pop(reading, None)
        differing = self._set.finish(reading, wanted, now)
        if not len(differing):
            state.effects.add(DropReading(reading))
            return Settled.TAKEN
        runs = Runs.of_blocks(differing)
        state.left_out.given(runs)
        state.statistics.settled(len(differing))
        state.sequence += 1
        sequences = np.full(len(runs.firsts), state.sequence, dtype=np.uint64)
        if state.tracker.insert_all(sequences, *runs) < len(runs.firsts):
            state.tracker.pending.set_blocks(differing)
            state.effects.add(DropReading(reading))
            return Settled.LOG_FULL
        self._set.sent(differing, state.sequence)
        settled_bytes = runs.total() * state.geometry.block_bytes
        state.queue.append(
            Segment(
                empty_records(), np.array([state.sequence]), state.sequence, now,
                reading=reading, runs=runs, settled_bytes=settled_bytes,
            )
        )  # fmt: skip
        return Settled.TAKEN


def _whole_writes(taken: Segment, blocks: Integers, geometry: Geometry) -> tuple[Integers, Integers]:
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
