"""The block update lists of Fig. 3 (US 7,039,661 ¶59-60): which updates of a block are not acknowledged yet.

One hash table serves all lists (¶60). It holds, for a block, only the sequence number of its *last* update;
the updates themselves wait, in sequence order, in the arrays in which they came. That is enough for cumulative
acknowledgement: a block's list is empty as soon as its last update is acknowledged. A wide update (a discard
of a million blocks) is one range in a list of its own and is never spelled out block by block.

Memory is in proportion to the pending updates: 200 bytes in all were measured for an update of one block.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.runs import BlockNumbers, Runs, distinct

# Wider updates are kept as a range: half a MiB at 4 KiB per block, where a range begins to cost less than its blocks.
WIDE_BLOCKS = 128

Sequences = npt.NDArray[np.uint64]

_REMOVED = -1
# Rows of (sequence, first block, end block), in sequence order.
_NO_WIDE = np.empty((0, 3), np.int64)


class _Batch:
    """Entries in sequence order: parallel arrays, of which the first ``head`` are acknowledged."""

    __slots__ = ("blocks", "head", "sequences")

    def __init__(self, blocks: BlockNumbers, sequences: Sequences) -> None:
        self.blocks = blocks
        self.sequences = sequences
        self.head = 0

    def waiting(self) -> BlockNumbers:
        left = self.blocks[self.head :]
        waiting: BlockNumbers = left[left != _REMOVED]
        return waiting


class UpdateLists:
    """All block update lists of one volume. Sequence numbers never fall from one insert to the next.

    An update is named by its block and its sequence number (¶67); ``len`` counts the updates that wait.
    """

    __slots__ = ("_batches", "_last_sequence", "_latest", "_narrow", "_wide")

    def __init__(self) -> None:
        self._latest: dict[int, int] = {}
        self._batches: deque[_Batch] = deque()
        self._narrow = 0
        self._wide = _NO_WIDE
        self._last_sequence = 0

    def insert(self, blocks: BlockNumbers, sequences: Sequences) -> None:
        """Append updates, one block each, to the lists of their blocks (¶66)."""
        self._accept(sequences)
        self._insert_narrow(np.array(blocks, np.int64), np.array(sequences, np.uint64))

    def insert_extents(self, firsts: BlockNumbers, counts: BlockNumbers, sequences: Sequences) -> None:
        """Append updates of many blocks each; a count of zero appends nothing."""
        self._accept(sequences)
        wide = counts > WIDE_BLOCKS
        if wide.any():
            rows = np.column_stack((sequences[wide].astype(np.int64), firsts[wide], firsts[wide] + counts[wide]))
            self._wide = np.concatenate((self._wide, rows))
            firsts, counts, sequences = firsts[~wide], counts[~wide], sequences[~wide]
        blocks = Runs(firsts.astype(np.int64), counts.astype(np.int64)).blocks()
        self._insert_narrow(blocks, np.repeat(sequences.astype(np.uint64), counts))

    def delete(self, block: int, sequence: int) -> bool:
        """Remove one update (¶74); True when the block's list is empty now. KeyError if there is no such update."""
        if not self._delete_narrow(block, sequence) and not self._delete_wide(block, sequence):
            raise KeyError(f"no update {sequence} of block {block} is waiting")
        return not self.contains(block)

    def acknowledge(self, sequence: int) -> Runs:
        """Remove every update up to and including ``sequence``; the blocks whose lists became empty."""
        freed = self._acknowledge_narrow(sequence)
        if not self._wide.size:
            return Runs.of_blocks(freed)
        done = int(np.searchsorted(self._wide[:, 0], sequence, side="right"))
        _, firsts, ends = self._wide.T
        emptied = Runs.of_ranges(np.append(freed, firsts[:done]), np.append(freed + 1, ends[:done]))
        emptied = emptied.minus(Runs.of_ranges(firsts[done:], ends[done:]))
        self._wide = self._wide[done:].copy()
        if not done:
            return emptied
        waiting = self._waiting()
        return emptied.minus(Runs.of_blocks(waiting[emptied.mask(waiting)]))

    def contains(self, block: int) -> bool:
        """Whether any update of ``block`` waits."""
        return block in self._latest or bool(self._covering(block).size)

    def entries(self, block: int) -> list[int]:
        """The sequence numbers in the block's list, oldest first. Looks through all that is pending."""
        found = self._wide[self._covering(block), 0].tolist()
        for batch in self._batches:
            found += batch.sequences[batch.head :][batch.blocks[batch.head :] == block].tolist()
        return sorted(set(found))

    def newest(self, limit: int) -> list[tuple[int, int, int]]:
        """At most this many updates that wait, the newest first: (first block, count of blocks, sequence number)."""
        found: list[tuple[int, int, int]] = []
        for batch in reversed(self._batches):
            tail = slice(max(batch.head, batch.blocks.size - (limit - len(found))), None)
            pairs = zip(batch.blocks[tail].tolist(), batch.sequences[tail].tolist(), strict=True)
            found += [(block, 1, sequence) for block, sequence in pairs if block != _REMOVED][::-1]
            if len(found) >= limit:
                break
        found += [(first, end - first, sequence) for sequence, first, end in self._wide[-limit:].tolist()]
        return sorted(found, key=lambda update: -update[2])[:limit]

    def blocks(self) -> Runs:
        """Every block whose list is not empty."""
        narrow = np.fromiter(self._latest, np.int64, len(self._latest))
        _, firsts, ends = self._wide.T
        return Runs.of_ranges(np.append(narrow, firsts), np.append(narrow + 1, ends))

    def block_count(self) -> int:
        """How many blocks have a list that is not empty."""
        return self.blocks().total() if self._wide.size else len(self._latest)

    def __len__(self) -> int:
        return self._narrow + int((self._wide[:, 2] - self._wide[:, 1]).sum())

    def clear(self) -> None:
        """Forget every update, and the order too: the next sequence number may be any."""
        self._latest = {}
        self._batches.clear()
        self._narrow = 0
        self._wide = _NO_WIDE
        self._last_sequence = 0

    def _accept(self, sequences: Sequences) -> None:
        if not sequences.size:
            return
        if int(sequences[0]) < self._last_sequence or (sequences[1:] < sequences[:-1]).any():
            raise ValueError(f"update {int(sequences[0])} comes after {self._last_sequence}: numbers must not fall")
        self._last_sequence = int(sequences[-1])

    def _insert_narrow(self, blocks: BlockNumbers, sequences: Sequences) -> None:
        if not blocks.size:
            return
        if blocks.min() < 0:
            raise ValueError("a block number is negative")
        self._latest.update(zip(blocks.tolist(), sequences.tolist(), strict=True))
        self._batches.append(_Batch(blocks, sequences))
        self._narrow += blocks.size

    def _acknowledge_narrow(self, sequence: int) -> BlockNumbers:
        acknowledged: list[BlockNumbers] = []
        while self._batches:
            batch = self._batches[0]
            reach = int(np.searchsorted(batch.sequences, np.uint64(sequence), side="right"))
            if reach > batch.head:
                part = batch.blocks[batch.head : reach]
                acknowledged.append(part[part != _REMOVED])
                batch.head = reach
            if reach < batch.blocks.size:
                break
            self._batches.popleft()
        blocks = np.concatenate(acknowledged) if acknowledged else np.empty(0, np.int64)
        self._narrow -= blocks.size
        latest = np.fromiter(map(self._latest.__getitem__, blocks.tolist()), np.uint64, blocks.size)
        freed = distinct(blocks[latest <= np.uint64(sequence)])
        # A loop in C: pop each key, drop the value.
        deque(map(self._latest.pop, freed.tolist(), repeat(None)), maxlen=0)
        return freed

    def _waiting(self) -> BlockNumbers:
        parts = [batch.waiting() for batch in self._batches]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _delete_narrow(self, block: int, sequence: int) -> bool:
        removed = 0
        previous = -1
        for batch in self._batches:
            places = batch.head + np.flatnonzero(batch.blocks[batch.head :] == block)
            match = batch.sequences[places] == np.uint64(sequence)
            batch.blocks[places[match]] = _REMOVED
            removed += int(match.sum())
            previous = max(previous, *batch.sequences[places[~match]].tolist(), -1)
        self._narrow -= removed
        if previous >= 0:
            self._latest[block] = previous
        else:
            self._latest.pop(block, None)
        return removed > 0

    def _delete_wide(self, block: int, sequence: int) -> bool:
        for place in self._covering(block).tolist():
            number, first, end = self._wide[place].tolist()
            if number == sequence:
                rest = np.array([(number, first, block), (number, block + 1, end)], np.int64)
                rest = rest[rest[:, 1] < rest[:, 2]]
                self._wide = np.concatenate((self._wide[:place], rest, self._wide[place + 1 :]))
                return True
        return False

    def _covering(self, block: int) -> BlockNumbers:
        """Which rows of the wide updates hold ``block``."""
        return np.flatnonzero((self._wide[:, 1] <= block) & (block < self._wide[:, 2]))
