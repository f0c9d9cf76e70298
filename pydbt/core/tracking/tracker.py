"""The tracker: log, update lists and dirty map of one volume, moved together as Figs. 4, 5 and 6 say.

INSERT, DELETE and RESET are the interface between tracker and replicator (US 7,039,661 ¶66-75): the tracker knows
which blocks a write touches, the replicator when they are at the secondary. ``insert_all`` and ``acknowledge`` are
the same three for whole batches.

Two maps: ``dirty`` has the blocks whose updates are on the way (a bit is set exactly as long as the block's update
list is not empty); ``pending`` has the blocks whose updates will not be sent: a sweep copies them.

The rule that nothing may break: a block that differs is in ``dirty`` or in ``pending``. So whatever is discarded is
merged into ``pending`` *before* it is discarded.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import BlockNumbers, Runs
from pydbt.core.tracking.transaction_log import LogRecordKind, LogRecordKinds, TransactionLog
from pydbt.core.tracking.update_list import Sequences, UpdateLists
from pydbt.core.units import Geometry


class HaltStep(StrEnum):
    """Where ``halt_steps`` pauses; named after the steps of Fig. 6."""

    DISCARDED = "610: the queue is in the pending map and discarded"
    MAPS_READY = "620: the pending map holds everything and can be made persistent"
    MAP_PROCESSED = "630-670: the transactions of one or more small maps are processed"
    LOG_EMPTY = "680: no small map is left; the log is empty"


class Tracker:
    """Which blocks differ, and why. Blocks and counts are in the geometry's blocks; numbers never fall."""

    __slots__ = ("_deleted_through", "_halting", "dirty", "geometry", "lists", "log", "pending")

    def __init__(self, geometry: Geometry, log_slots: int) -> None:
        self.geometry = geometry
        self.dirty = DirtyMap(geometry.block_count)
        self.pending = DirtyMap(geometry.block_count)
        self.lists = UpdateLists()
        self.log = TransactionLog(log_slots)
        self._halting = False
        self._deleted_through = 0  # the highest number that was deleted by itself

    # The interface of ¶66-75, one block or request at a time.

    def insert(self, sequence: int, first_block: int, block_count: int) -> bool:
        """INSERT (¶65-68; Fig. 4, 414-418): log one write, list it with its blocks, set their bits.

        False, and nothing is changed, when the log is full: the moment for unsynchronized mode (¶80).
        """
        row = np.array([sequence], np.uint64), np.array([first_block], np.int64), np.array([block_count], np.int64)
        return self.insert_all(*row) == 1

    def delete(self, block: int, sequence: int) -> bool:
        """DELETE (¶74; Fig. 4, 432-440): the secondary has this update of this block.

        True when it was the last in the block's list; the block is then RESET. KeyError if it is not listed.
        """
        last = self.lists.delete(block, sequence)
        self._deleted_through = max(self._deleted_through, sequence)
        if last:
            self.reset(block)
        return last

    def reset(self, block: int) -> int:
        """RESET (¶75; Fig. 4, 442-444): clear the bit, process the block's transactions (Fig. 5).

        How many transactions were completed. Only for a block with an empty list: a bug otherwise.
        """
        assert not self.lists.contains(block), f"RESET of block {block}, whose update list is not empty"
        self.dirty.clear_range(block, 1)
        return self.log.remove_block(block)

    # The same for batches.

    def insert_all(
        self,
        sequences: Sequences,
        first_blocks: BlockNumbers,
        block_counts: BlockNumbers,
        kind: LogRecordKind | LogRecordKinds = LogRecordKind.WRITE,
        *,
        uncommitted: bool = False,
    ) -> int:
        """INSERT of many writes, in order. How many rows were taken; fewer than given: the log is full (¶80).

        Neighbouring rows of a kind with one sequence number are one write of several extents, taken whole or not at all.
        A row of no blocks (a pure flush) is logged and changes no map. ValueError, before anything is changed,
        for blocks outside the volume and for numbers that fall. ``kind`` and ``uncommitted`` as of ``TransactionLog.append``.
        """
        ends = first_blocks + block_counts
        if sequences.size and (first_blocks.min() < 0 or block_counts.min() < 0 or ends.max() > self.dirty.block_count):
            raise ValueError(f"a write lies outside the volume of {self.dirty.block_count} blocks")
        taken = self.log.append(sequences, first_blocks, block_counts, kind, uncommitted=uncommitted)
        sequences, first_blocks, block_counts = sequences[:taken], first_blocks[:taken], block_counts[:taken]
        if not self._halting:
            self.lists.insert_extents(first_blocks, block_counts, sequences)
        self.dirty.set_extents(first_blocks, block_counts)
        return taken

    def acknowledge(self, sequence: int) -> Runs:
        """DELETE of every update up to ``sequence``, and RESET of the blocks that it was the last for.

        For acknowledgements that are cumulative and durable. The blocks that are clean now.
        """
        emptied = self.lists.acknowledge(sequence)
        self.dirty.clear_extents(*emptied)
        # Not block by block through Fig. 5: everything these transactions wrote has arrived (¶76), and a later
        # one cannot hold a block that is clean now, unless it was deleted out of turn.
        self.log.complete_through(sequence)
        if sequence < self._deleted_through and emptied.firsts.size:
            self.log.remove_extents(emptied)
        return emptied

    def mark_pending(self, first_blocks: BlockNumbers, block_counts: BlockNumbers) -> None:
        """Note writes that will not be sent (unsynchronized mode, a log that was full): a sweep copies them."""
        self.pending.set_extents(first_blocks, block_counts)

    # Fig. 6, 610-680.

    def halt(self) -> None:
        """Leave normal operation (¶81-84): all that was on the way becomes pending; lists and log are empty then.

        The caller makes ``pending`` persistent afterwards, and discards its queue only afterwards.
        """
        for _ in self.halt_steps(maps_per_step=max(1, len(self.dirty.chunk_indices()))):
            pass

    def halt_steps(self, maps_per_step: int = 1) -> Iterator[HaltStep]:
        """``halt`` in steps, between which writes may go on to be inserted (¶85). Run it to its end.

        Until then replication is halted: writes are logged and set in ``dirty`` but put on no list, for there is
        nobody who would acknowledge them, and the loop takes them over into ``pending`` as it takes the others.
        """
        self.pending.merge(self.dirty)
        self.lists.clear()
        self.log.abandon_uncommitted()
        self._halting = True
        self._deleted_through = 0
        yield HaltStep.DISCARDED
        while self._halting:
            self.pending.merge(self.dirty)
            yield HaltStep.MAPS_READY
            indices = self.dirty.chunk_indices()
            for place in range(0, len(indices), maps_per_step):
                self._process_maps(indices[place : place + maps_per_step])
                yield HaltStep.MAP_PROCESSED
            self._halting = self.dirty.any()
        # Transactions that never had a block (flushes) are complete too (530).
        self.log.remove_extents(Runs.none())
        yield HaltStep.LOG_EMPTY

    def _process_maps(self, indices: list[int]) -> None:
        """Steps 630-670 for some small maps at once: every set bit's block goes through Fig. 5."""
        parts = [self.dirty.chunk_extents(index) for index in indices]
        firsts = np.concatenate([part.firsts for part in parts])
        extents = Runs.of_ranges(firsts, firsts + np.concatenate([part.counts for part in parts]))
        self.pending.set_extents(*extents)
        self.log.remove_extents(extents)
        self.dirty.clear_extents(*extents)

    # Status.

    def out_of_sync_blocks(self) -> int:
        """How many blocks differ or may differ from the secondary's."""
        return self.dirty.count_union(self.pending)

    def check(self) -> None:
        """Assert what must hold between any two calls. For tests: it looks at everything."""
        dirty, log = self.dirty.extents(), self.log
        if self._halting:
            assert not len(self.lists), "an update is listed while replication is halted"
        else:
            assert _equal(dirty, self.lists.blocks()), "a bit is set without a list entry, or the other way round"
        assert not log.remaining_extents().minus(dirty).total(), "an active transaction waits for a clean block"
        active = [record for record in log.records() if record.active]
        assert len({record.transaction for record in active}) == log.active_transactions
        oldest = active[0].position if active else log.end_position
        assert log.start_position == oldest, "the start of the log is not at the oldest active transaction"
        assert log.used_slots + log.active_transactions <= log.capacity_slots, "a DONE record has no slot in reserve"


def _equal(one: Runs, other: Runs) -> bool:
    return np.array_equal(one.firsts, other.firsts) and np.array_equal(one.counts, other.counts)
