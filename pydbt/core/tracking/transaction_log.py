"""The circular transaction log of Fig. 2 (US 7,039,661 ¶49-53), and the processing of transactions of Fig. 5.

A transaction is one write request, of as many blocks as it has; it stands in the log as one record for each
extent. The file system's own transactions (a commit of ext4's journal, of XFS's log) are records of another
kind in the same ring, with the blocks that belong to them.

Positions count slots from the beginning of time; the slot of a position is ``position % capacity``. So start and
end never fall, and a full log cannot be taken for an empty one.

Every active transaction holds one slot in reserve for its DONE record: a log that is full of waiting transactions
can always be emptied. It is full when nothing but that reserve lies between end and start.

A full log takes nothing: ``append`` returns how much of a batch it took, whole transactions from the front. Its caller
must treat the taken rows and the others differently at once (list and map for the one, unsynchronized mode for
the other, Fig. 4, 452); an exception would have to carry that.

Invariants: records are in order of transaction and sequence numbers; start is the end, or the first record of the
oldest active transaction; used + active <= capacity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import BlockNumbers, Runs, among, distinct
from pydbt.core.tracking.update_list import Sequences

SLOT_BYTES = 64
MIN_CAPACITY_SLOTS = 2

# How many slots the search for the next active transaction looks at first; it doubles from there.
_SEARCH_SLOTS = 64


LogRecordKinds = npt.NDArray[np.uint8]
"""A ``LogRecordKind`` for each row."""


class LogRecordKind(IntEnum):
    """The content of a slot. Kinds other than DONE are updates: a new kind of transaction is a new number here."""

    DONE = 0
    WRITE = 1
    FILE_SYSTEM = 2


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One slot, for people and tests. A DONE record covers ``count`` transactions from ``transaction`` on."""

    position: int
    kind: LogRecordKind
    transaction: int
    sequence: int
    first_block: int
    count: int
    remaining: int
    active: bool


class TransactionLog:
    """A ring of ``capacity_slots`` records. Transaction numbers count up from 1."""

    def __init__(self, capacity_slots: int) -> None:
        if capacity_slots < MIN_CAPACITY_SLOTS:
            raise ValueError(
                f"a log of {capacity_slots} slots cannot hold a record and its DONE: at least {MIN_CAPACITY_SLOTS}"
            )
        self.capacity_slots = capacity_slots
        self.start_position = 0
        self.end_position = 0
        self.active_transactions = 0
        self._next_transaction = 1
        self._kind = np.zeros(capacity_slots, np.uint8)
        self._active = np.zeros(capacity_slots, np.bool_)
        self._transaction = np.zeros(capacity_slots, np.int64)
        self._sequence = np.zeros(capacity_slots, np.uint64)
        self._first = np.zeros(capacity_slots, np.int64)
        self._count = np.zeros(capacity_slots, np.int64)
        self._remaining = np.zeros(capacity_slots, np.int64)
        self._uncommitted = np.zeros(capacity_slots, np.bool_)
        self._has_uncommitted = False
        # Position of a record of which some blocks are gone -> those blocks, counted from its first.
        self._removed: dict[int, DirtyMap] = {}

    # Status.

    @property
    def start(self) -> int:
        """The slot of the oldest active transaction ('start of log', 220)."""
        return self.start_position % self.capacity_slots

    @property
    def end(self) -> int:
        """The slot that the next record goes to ('end of log', 230)."""
        return self.end_position % self.capacity_slots

    @property
    def used_slots(self) -> int:
        return self.end_position - self.start_position

    @property
    def free_slots(self) -> int:
        """Slots that new records may take (240): neither used nor kept for a DONE record."""
        return self.capacity_slots - self.used_slots - self.active_transactions

    @property
    def capacity_bytes(self) -> int:
        return self.capacity_slots * SLOT_BYTES

    @property
    def used_bytes(self) -> int:
        return self.used_slots * SLOT_BYTES

    def records(self, newest: int | None = None) -> Iterator[LogRecord]:
        """Every record from start to end, or this many of the newest."""
        first = self.start_position if newest is None else max(self.start_position, self.end_position - newest)
        for position in range(first, self.end_position):
            slot = position % self.capacity_slots
            yield LogRecord(
                position,
                LogRecordKind(int(self._kind[slot])),
                int(self._transaction[slot]),
                int(self._sequence[slot]),
                int(self._first[slot]),
                int(self._count[slot]),
                int(self._remaining[slot]),
                bool(self._active[slot]),
            )

    def remaining_extents(self) -> Runs:
        """Every block that an active transaction still waits for."""
        slots = self._window()
        slots = slots[self._remaining[slots] > 0]
        firsts = self._first[slots]
        held = Runs.of_ranges(firsts, firsts + self._count[slots])
        if not self._removed:
            return held
        # Blocks of partly processed records go, unless another record still holds them.
        partly = np.array(sorted(self._removed), np.int64) % self.capacity_slots
        whole = distinct(slots[~among(slots, partly)])
        left = [Runs(self._first[whole], self._count[whole])]
        for position, gone in self._removed.items():
            slot = position % self.capacity_slots
            record = Runs(np.zeros(1, np.int64), self._count[slot : slot + 1]).minus(gone.extents())
            left.append(Runs(record.firsts + self._first[slot], record.counts))
        firsts = np.concatenate([extents.firsts for extents in left])
        return Runs.of_ranges(firsts, firsts + np.concatenate([extents.counts for extents in left]))

    # Writing (Fig. 4, 414).

    def append(
        self,
        sequences: Sequences,
        first_blocks: BlockNumbers,
        block_counts: BlockNumbers,
        kind: LogRecordKind | LogRecordKinds = LogRecordKind.WRITE,
        *,
        uncommitted: bool = False,
    ) -> int:
        """Log a batch of transactions (¶65); how many of its rows were taken, from the front, whole transactions.

        Neighbouring rows of one kind with one sequence number are the extents of one transaction; a transaction is not
        spread over two calls. Sequence numbers never fall while the log holds records. ``kind``: of all rows, or of each.
        ``uncommitted``: those of the file system are active until ``committed_through``, whatever is acknowledged.
        """
        rows = sequences.size
        if not rows:
            return 0
        kinds = np.broadcast_to(np.asarray(kind, np.uint8), rows)
        if (kinds == LogRecordKind.DONE).any():
            raise ValueError("DONE records are written by the log itself")
        self._check_order(sequences)
        opens = np.append(True, (sequences[1:] != sequences[:-1]) | (kinds[1:] != kinds[:-1]))
        numbers = np.cumsum(opens)
        taken = self._room_for(opens, numbers)
        if not taken:
            return 0
        slots = np.arange(self.end_position, self.end_position + taken) % self.capacity_slots
        self._kind[slots] = kinds[:taken]
        self._uncommitted[slots] = (kinds[:taken] == LogRecordKind.FILE_SYSTEM) & uncommitted
        self._has_uncommitted |= uncommitted
        self._active[slots] = True
        self._transaction[slots] = numbers[:taken] + (self._next_transaction - 1)
        self._sequence[slots] = sequences[:taken]
        self._first[slots] = first_blocks[:taken]
        self._count[slots] = block_counts[:taken]
        self._remaining[slots] = block_counts[:taken]
        self.end_position += taken
        self.active_transactions += int(numbers[taken - 1])
        self._next_transaction += int(numbers[taken - 1])
        return taken

    def _check_order(self, sequences: Sequences) -> None:
        before = self._sequence[(self.end_position - 1) % self.capacity_slots] if self.used_slots else 0
        if sequences[0] < before or (sequences[1:] < sequences[:-1]).any():
            raise ValueError(f"sequence number {int(sequences[0])} comes after {int(before)}: numbers must not fall")

    def _room_for(self, opens: npt.NDArray[np.bool_], numbers: BlockNumbers) -> int:
        """Rows of the longest run of whole transactions that fits, with a slot for the DONE of each."""
        needed = np.arange(1, opens.size + 1) + numbers
        if needed[-1] <= self.free_slots:
            return opens.size
        closes = np.append(opens[1:], True)
        fits = np.flatnonzero(closes & (needed <= self.free_slots))
        return int(fits[-1]) + 1 if fits.size else 0

    # Completing (Fig. 5, and ¶76 for many at once).

    def complete_through(self, sequence: int) -> int:
        """Complete every transaction up to and including ``sequence`` (¶76); how many that were.

        Right for cumulative acknowledgement: everything those transactions wrote is at the secondary. One DONE
        record stands for them all.
        """
        reach = self._first_after(sequence)
        slots = np.arange(self.start_position, reach) % self.capacity_slots
        slots = slots[self._active[slots]]
        if self._has_uncommitted:
            self._remaining[slots] = 0  # all of it has arrived, whether it is committed or not
            slots = slots[~self._uncommitted[slots]]
        return self._finish(slots)

    def committed_through(self, sequence: int, acknowledged: int, *, first: int = 0) -> int:
        """The commits of the file system's transactions from ``first`` to ``sequence`` have completed on the primary.

        Or they never will. How many transactions were completed by it: those that the secondary has ``acknowledged`` as well.
        """
        if not self._has_uncommitted:
            return 0
        slots = self._window()
        waiting = slots[self._uncommitted[slots]]
        numbers = self._sequence[waiting]
        self._uncommitted[waiting[(numbers >= np.uint64(first)) & (numbers <= np.uint64(sequence))]] = False
        self._has_uncommitted = bool(self._uncommitted[waiting].any())
        return self.complete_through(acknowledged)

    def abandon_uncommitted(self, acknowledged: int = 0) -> None:
        """Nobody waits for their commits any more: complete those that the secondary has ``acknowledged``."""
        if self._has_uncommitted:
            self._uncommitted[:] = False
            self._has_uncommitted = False
            self.complete_through(acknowledged)

    def remove_block(self, block: int) -> int:
        """Fig. 5 for one block (¶77): how many transactions were completed by it. Looks through the whole log."""
        return self.remove_extents(Runs(np.array([block], np.int64), np.ones(1, np.int64)))

    def remove_extents(self, extents: Runs) -> int:
        """Take blocks out of each active transaction (520); complete those with none left (530, 540).

        ``extents`` are disjoint and in block order. How many transactions were completed.
        """
        slots = self._window()
        slots = slots[self._active[slots]]
        if not slots.size:
            return 0
        firsts, counts = self._first[slots], self._count[slots]
        covered = extents.blocks_before(firsts + counts) - extents.blocks_before(firsts)
        whole = slots[covered == counts]
        self._remaining[whole] = 0
        if self._removed:
            for slot in whole:
                self._removed.pop(self._position_of(int(slot)), None)
        for place in np.flatnonzero((covered > 0) & (covered < counts) & (self._remaining[slots] > 0)):
            self._remove_part(int(slots[place]), extents)
        heads = np.flatnonzero(np.append(True, self._transaction[slots][1:] != self._transaction[slots][:-1]))
        left = np.add.reduceat(self._remaining[slots], heads)
        sizes = np.append(heads[1:], slots.size) - heads
        finished = slots[np.repeat(left == 0, sizes)]
        return self._finish(finished[~self._uncommitted[finished]] if self._has_uncommitted else finished)

    def _remove_part(self, slot: int, extents: Runs) -> None:
        first, count = int(self._first[slot]), int(self._count[slot])
        low = int(np.searchsorted(extents.ends(), first, side="right"))
        high = int(np.searchsorted(extents.firsts, first + count, side="left"))
        begins = np.maximum(extents.firsts[low:high] - first, 0)
        ends = np.minimum(extents.ends()[low:high] - first, count)
        gone = self._removed.setdefault(self._position_of(slot), DirtyMap(count))
        gone.set_extents(begins, ends - begins)
        self._remaining[slot] = count - gone.count()

    def _finish(self, slots: BlockNumbers) -> int:
        """Complete the transactions whose records are ``slots``, in log order: DONE records, then the new start."""
        if not slots.size:
            return 0
        numbers = self._transaction[slots]
        numbers = numbers[np.append(True, numbers[1:] != numbers[:-1])]
        self._active[slots] = False
        self._remaining[slots] = 0
        self.active_transactions -= numbers.size
        # A run of neighbours shares one DONE record. "Neighbours": no active transaction lies between them.
        heads = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1] + 1))
        done = np.arange(self.end_position, self.end_position + heads.size) % self.capacity_slots
        # A DONE record carries the last sequence number before it, so that they rise along the whole ring.
        last_sequence = self._sequence[(self.end_position - 1) % self.capacity_slots]
        self._kind[done] = LogRecordKind.DONE
        self._active[done] = False
        self._transaction[done] = numbers[heads]
        self._sequence[done] = last_sequence
        self._first[done] = 0
        self._count[done] = np.append(heads[1:], numbers.size) - heads
        self._remaining[done] = 0
        self.end_position += heads.size
        assert self.used_slots + self.active_transactions <= self.capacity_slots, "a DONE record had no slot"
        self._advance()
        return int(numbers.size)

    def _advance(self) -> None:
        """Move the start to the oldest active transaction (¶51), or to the end when there is none."""
        window = _SEARCH_SLOTS
        while self.start_position < self.end_position:
            stop = min(self.start_position + window, self.end_position)
            waiting = self._active[np.arange(self.start_position, stop) % self.capacity_slots]
            first = int(waiting.argmax())
            if waiting[first]:
                self.start_position += first
                break
            self.start_position = stop
            window *= 2
        if self._removed:
            self._removed = {
                position: gone
                for position, gone in self._removed.items()
                if position >= self.start_position and self._remaining[position % self.capacity_slots]
            }

    def _first_after(self, sequence: int) -> int:
        """The first position whose record is later than ``sequence``: sequence numbers rise along the ring."""
        position = self.start_position
        while position < self.end_position:
            low = position % self.capacity_slots
            high = min(low + self.end_position - position, self.capacity_slots)
            found = int(np.searchsorted(self._sequence[low:high], np.uint64(sequence), side="right"))
            position += found
            if low + found < high:
                break
        return position

    def _position_of(self, slot: int) -> int:
        """Of the record in a slot that is in use."""
        return self.start_position + (slot - self.start_position) % self.capacity_slots

    def _window(self) -> BlockNumbers:
        return np.arange(self.start_position, self.end_position) % self.capacity_slots
