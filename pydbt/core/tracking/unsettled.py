"""Blocks whose content on the primary's disk may differ from what was captured, until they are read again.

What unsettles a block although its write was captured, above all: two writes to it in flight at once (the
disk may have done them in either order), a page changed while it was being written, and a write that
failed. The replica then holds one legal outcome and the disk perhaps another; the block counts as out of
sync until it was read while nothing touched it, and compared.

Or until it is written anew, as a whole: a block that is rewritten faster than it can be read would else never be settled.
A write that is submitted to it while nothing is in flight comes after everything that had unsettled it, on the disk as in
the stream. Once it is durable on the secondary, nothing older than it is in doubt; the block is as any other that is written.
A race or a failure of that write, or of a later one, makes the block unsettled again, from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pydbt.core.blocks.runs import BlockNumbers, Integers, Mask, among, distinct

# A page changed in flight is dirty and will be written again soon; reading at once would often be for nothing.
SETTLE_DELAY_S = 1.0
MAX_UPDATE_BLOCKS = 256
# In the place of a sequence number: the write is unknown, so every wait is for this block too.
DIFFERS_SINCE_EVER = 0
# The same for free space that is filled in: no wait is for it.
FREE_SPACE = (1 << 63) - 1
# The same of a block that could not be read; it need not differ.
UNREAD_SINCE_EVER = -1
# A block that is touched again and again delays a wait by no more than this.
RETRY_DELAY_S = 0.5


@dataclass(slots=True)
class Reading:
    """Unsettled blocks that are read and compared together; ``touched`` were written meanwhile."""

    blocks: BlockNumbers
    touched: set[int]
    position: int | None = None
    compared: bool = False


class Unsettled:
    """The set, and the readings under way. The brain asks for them, the shell reads."""

    def __init__(self, update_blocks: int = MAX_UPDATE_BLOCKS) -> None:
        self._update_blocks = update_blocks
        self._due: dict[int, float] = {}
        self._since: dict[int, int] = {}
        self._readings: dict[int, Reading] = {}
        self._sent: dict[int, int] = {}  # updates that leave nothing before them in doubt, once they are durable
        self._anew: dict[int, int] = {}  # of blocks in ``_sent``: what unsettled them after that update
        # When they were unsettled, of all blocks, and of those in ``_anew`` after that update.
        self._at: dict[int, float] = {}
        self._anew_at: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._since)

    def add(self, blocks: BlockNumbers, sequence: int, now: float, since: float | None = None) -> None:
        """Mark blocks as unsettled by writes up to ``sequence``; a block keeps the earliest it goes back to.

        ``since``: when that was, if it is heard of only now.
        """
        at = now if since is None else since
        for block in blocks.tolist():
            if self._sent.get(block, sequence + 1) <= sequence:
                self._anew[block] = min(self._anew.get(block, sequence), sequence)
                self._anew_at.setdefault(block, at)
            else:
                self._sent.pop(block, None)
                self._anew.pop(block, None)
                self._anew_at.pop(block, None)
                self._at.setdefault(block, at)
                self._since[block] = min(self._since.get(block, sequence), sequence)
            self._due[block] = now + SETTLE_DELAY_S
        self.touch(blocks)

    def rewritten(self, blocks: BlockNumbers, sequences: Integers) -> None:
        """Blocks were written anew as a whole, by updates that were submitted while nothing was in flight to them."""
        for block, sequence in zip(blocks.tolist(), sequences.tolist(), strict=True):
            # One such update at a time: were it replaced by each later one, none might ever be durable.
            if block in self._since and block not in self._sent:
                self._settled_by(block, sequence)

    def _settled_by(self, block: int, sequence: int) -> None:
        self._sent[block] = sequence
        self._due.pop(block, None)

    def touch(self, blocks: BlockNumbers) -> None:
        """Blocks were submitted for writing: a read of them that is under way is of no use."""
        for reading in self._readings.values():
            hit = distinct(reading.blocks[among(reading.blocks, blocks)])
            if len(hit):
                reading.touched.update(hit.tolist())

    def blocks(self) -> BlockNumbers:
        return np.fromiter(self._since, dtype=np.int64, count=len(self._since))

    def take_due(self, now: float, in_flight: Callable[[BlockNumbers], Mask], hurry: bool) -> BlockNumbers:
        """Blocks whose time has come and that no write is in flight to; they are being read from here on.

        ``in_flight`` maps an array of blocks to a mask; ``hurry`` ignores the delay (somebody waits).
        """
        reading = set()
        for batch in self._readings.values():
            reading.update(batch.blocks.tolist())
        due = [block for block, when in self._due.items() if block not in reading and (hurry or when <= now)]
        blocks = np.array(sorted(due)[: self._update_blocks], dtype=np.int64)
        return blocks[~in_flight(blocks)] if len(blocks) else blocks

    def begin(self, batch: int, blocks: BlockNumbers) -> None:
        self._readings[batch] = Reading(blocks, set())

    def reading(self, batch: int) -> Reading | None:
        return self._readings.get(batch)

    def readings(self) -> list[tuple[int, Reading]]:
        return list(self._readings.items())

    def finish(self, batch: int, differing: BlockNumbers, now: float) -> BlockNumbers:
        """End a reading: the untouched blocks that differ, to be sent. The equal ones leave the set.

        A block that was touched meanwhile is read again.
        """
        reading = self._readings.pop(batch)
        again = np.array(sorted(reading.touched), dtype=np.int64)
        for block in again.tolist():
            if block in self._since and (block not in self._sent or block in self._anew):  # not settled meanwhile
                self._due[block] = now + RETRY_DELAY_S
        settled = distinct(reading.blocks[~among(reading.blocks, again)])
        differs = among(settled, differing)
        for block in settled[~differs].tolist():
            self._forget(block)
        return settled[differs]

    def leave_out(self, batch: int, blocks: BlockNumbers) -> None:
        """These could not be read: they leave the reading and the set, and the caller answers for them."""
        reading = self._readings[batch]
        reading.blocks = distinct(reading.blocks[~among(reading.blocks, blocks)])
        reading.touched.difference_update(blocks.tolist())
        for block in blocks.tolist():
            self._forget(block)

    def sent(self, blocks: BlockNumbers, sequence: int) -> None:
        """What was read of these blocks is update ``sequence``: they are settled once that is durable."""
        for block in blocks.tolist():
            self._anew.pop(block, None)
            self._anew_at.pop(block, None)
            self._settled_by(block, sequence)

    def durable_through(self, sequence: int) -> None:
        """Updates up to ``sequence`` are on the secondary."""
        for block in [block for block, sent in self._sent.items() if sent <= sequence]:
            del self._sent[block]
            anew = self._anew.pop(block, None)
            if anew is None:
                self._forget(block)
            else:
                self._since[block], self._at[block] = anew, self._anew_at.pop(block)

    def _forget(self, block: int) -> None:
        self._since.pop(block, None)
        self._sent.pop(block, None)
        self._anew.pop(block, None)
        for times in (self._due, self._at, self._anew_at):
            times.pop(block, None)

    @property
    def repairing(self) -> bool:
        """Whether a block that was found to differ is not on the secondary yet."""
        return DIFFERS_SINCE_EVER in self._since.values()

    def oldest_sequence(self) -> int | None:
        """The earliest sequence number that any unsettled block goes back to."""
        return min(self._since.values(), default=None)

    def oldest_time(self) -> float | None:
        """Since when some block has been unsettled without a break; free space that is filled in does not count."""
        free = FREE_SPACE
        return min((at for block, at in self._at.items() if self._since.get(block) != free), default=None)

    def count_free(self) -> int:
        """How many of the blocks are free space that is filled in."""
        return sum(since == FREE_SPACE for since in self._since.values())

    def next_due(self) -> float | None:
        return min(self._due.values(), default=None)

    def clear(self) -> tuple[BlockNumbers, list[int]]:
        """Forget everything: (the blocks, batches still being read)."""
        blocks, batches = self.blocks(), list(self._readings)
        for kept in (self._due, self._since, self._readings, self._sent, self._anew, self._at, self._anew_at):
            kept.clear()
        return blocks, batches
