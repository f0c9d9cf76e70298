"""Blocks whose content on the primary's disk may differ from what was captured, until they are read again.

Three things unsettle a block although its write was captured: two writes to it in flight at once (the
disk may have done them in either order), a page changed while it was being written, and a write that
failed. The replica then holds one legal outcome and the disk perhaps another; the block counts as out of
sync until it was read while nothing touched it, and compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A page changed in flight is dirty and will be written again soon; reading at once would often be for nothing.
SETTLE_DELAY_S = 1.0
MAX_BATCH_BLOCKS = 256
# In the place of a sequence number: nobody knows which write it was, so every wait is for this block too.
DIFFERS_SINCE_EVER = 0
# Nobody is kept waiting longer than this by a block that is touched again and again.
RETRY_DELAY_S = 0.5


@dataclass(slots=True)
class Reading:
    """A batch of unsettled blocks being read or compared; ``touched`` were written meanwhile."""

    blocks: np.ndarray
    touched: set[int]
    position: int | None = None
    compared: bool = False


class Unsettled:
    """The set, and the readings under way. Pure bookkeeping: the brain asks, the shell reads."""

    def __init__(self, batch_blocks: int = MAX_BATCH_BLOCKS) -> None:
        self._batch_blocks = batch_blocks
        self._due: dict[int, float] = {}
        self._since: dict[int, int] = {}
        self._readings: dict[int, Reading] = {}
        self._sent: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._since)

    def add(self, blocks: np.ndarray, sequence: int, now: float) -> None:
        """Mark blocks as unsettled by writes up to ``sequence``; a block keeps the earliest it goes back to."""
        for block in blocks.tolist():
            self._since[block] = min(self._since.get(block, sequence), sequence)
            self._due[block] = now + SETTLE_DELAY_S
        self.touch(blocks)

    def touch(self, blocks: np.ndarray) -> None:
        """Blocks were submitted for writing: what is being read of them is of no use."""
        for reading in self._readings.values():
            hit = np.intersect1d(reading.blocks, blocks)
            if len(hit):
                reading.touched.update(hit.tolist())

    def blocks(self) -> np.ndarray:
        return np.fromiter(self._since, dtype=np.int64, count=len(self._since))

    def take_due(self, now: float, in_flight, hurry: bool) -> np.ndarray:
        """Blocks whose time has come and that no write is in flight to; they are being read from here on.

        ``in_flight`` maps an array of blocks to a mask; ``hurry`` ignores the delay (somebody waits).
        """
        reading = set()
        for batch in self._readings.values():
            reading.update(batch.blocks.tolist())
        due = [block for block, when in self._due.items() if block not in reading and (hurry or when <= now)]
        blocks = np.array(sorted(due)[: self._batch_blocks], dtype=np.int64)
        return blocks[~in_flight(blocks)] if len(blocks) else blocks

    def begin(self, batch: int, blocks: np.ndarray) -> None:
        self._readings[batch] = Reading(blocks, set())

    def reading(self, batch: int) -> Reading | None:
        return self._readings.get(batch)

    def readings(self) -> list[tuple[int, Reading]]:
        return list(self._readings.items())

    def finish(self, batch: int, differing: np.ndarray, now: float) -> np.ndarray:
        """End a reading: the untouched blocks that differ, to be sent. The equal ones leave the set.

        A block that was touched meanwhile is read again.
        """
        reading = self._readings.pop(batch)
        again = np.array(sorted(reading.touched), dtype=np.int64)
        for block in again.tolist():
            self._due[block] = now + RETRY_DELAY_S
        settled = np.setdiff1d(reading.blocks, again)
        for block in np.setdiff1d(settled, differing).tolist():
            self._forget(block)
        return np.intersect1d(settled, differing)

    def sent(self, blocks: np.ndarray, sequence: int) -> None:
        """What was read of these blocks is update ``sequence``: they are settled once that is durable."""
        for block in blocks.tolist():
            self._sent[block] = sequence
            self._due.pop(block, None)

    def durable_through(self, sequence: int) -> None:
        """Updates up to ``sequence`` are on the secondary."""
        for block in [block for block, sent in self._sent.items() if sent <= sequence]:
            del self._sent[block]
            if block not in self._due:  # not unsettled anew meanwhile
                self._forget(block)

    def _forget(self, block: int) -> None:
        self._since.pop(block, None)
        self._due.pop(block, None)

    def oldest_sequence(self) -> int | None:
        """The earliest sequence number that any unsettled block goes back to."""
        return min(self._since.values(), default=None)

    def next_due(self) -> float | None:
        return min(self._due.values(), default=None)

    def clear(self) -> tuple[np.ndarray, list[int]]:
        """Forget everything: (the blocks, batches still being read)."""
        blocks, batches = self.blocks(), list(self._readings)
        self._due.clear()
        self._since.clear()
        self._readings.clear()
        self._sent.clear()
        return blocks, batches
