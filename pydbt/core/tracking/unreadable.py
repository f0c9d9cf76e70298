"""Blocks of the source that cannot be read: a medium error, as a disk reports it for single sectors.

Everything else goes on without them. They stay out of sync until they are read after all, or until a write covers them as a
whole: most disks put another sector in the place of a bad one when it is written.
"""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import BlockNumbers

# A disk tries for seconds to read a bad sector, and all programs on it wait meanwhile.
TRY_AGAIN_S = 60.0
# More than this is no bad sector but a failing disk, or one whose path is down: all of it is read again soon.
MAX_UNREADABLE_BLOCKS = 65536


class Unreadable:
    """The set. ``unsaved``: no map on disk has the newest of them yet, or of those that the secondary cannot write."""

    def __init__(self) -> None:
        self._again_at: dict[int, float] = {}
        self._told: set[int] = set()
        self.unsaved = False

    def __len__(self) -> int:
        return len(self._again_at)

    def blocks(self) -> BlockNumbers:
        """In ascending order."""
        return np.sort(np.fromiter(self._again_at, dtype=np.int64, count=len(self._again_at)))

    def has_room(self, count: int) -> bool:
        return len(self) + count <= MAX_UNREADABLE_BLOCKS

    def add(self, blocks: BlockNumbers, now: float) -> int:
        """They could not be read. How many of them were never told of."""
        known = len(self._told)
        for block in blocks.tolist():
            self._again_at[block] = now + TRY_AGAIN_S
            self._told.add(block)
        self.unsaved = True
        return len(self._told) - known

    def remove(self, blocks: BlockNumbers) -> None:
        """They were read after all, or written as a whole."""
        if self._told:
            for block in blocks.tolist():
                self._again_at.pop(block, None)
                self._told.discard(block)

    def take_due(self, now: float) -> BlockNumbers:
        """Those that are to be read again now. They leave the set: the caller answers for them."""
        if not self._again_at:
            return np.empty(0, np.int64)
        due = np.array(sorted(block for block, at in self._again_at.items() if at <= now), dtype=np.int64)
        for block in due.tolist():
            del self._again_at[block]
        return due

    def take_all(self) -> BlockNumbers:
        """Replication halts. They leave the set: the caller answers for them."""
        blocks = self.blocks()
        self._again_at.clear()
        return blocks

    def next_due(self) -> float | None:
        return min(self._again_at.values(), default=None)
