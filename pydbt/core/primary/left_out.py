"""Blocks whose content counts for nobody, and that the secondary was not given: it may hold anything there.

Free space that the first copy left out, and discarded space of which a device promises nothing. A block leaves the map when it is
written as a whole, read for a resynchronization, or found equal. What differs in one is no difference: it is filled in, and
counted apart.

Of a block that was written since, a difference counts, also after a kill. So the kernel's bitmaps remember each written block
until the map on disk does not name it any more (``QuietBitmap.retire``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import BlockNumbers, Mask, Runs
from pydbt.core.tracking.capture_record import Operation, Records
from pydbt.core.units import Geometry


@dataclass(frozen=True, slots=True)
class KeepLeftOut:
    """An effect: write what was left out as it is now to disk. Answers ``LeftOutKept``, some time later."""


@dataclass(frozen=True, slots=True)
class LeftOutKept:
    """An event: the map of what was left out is on disk, or ``error`` says why not."""

    error: str = ""


class LeftOut:
    """``grew``: this is to be written down soon. ``unsaved``: the map on disk may name blocks that have left."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self.blocks = DirtyMap(geometry.block_count)
        self.grew = self.unsaved = False

    def take_grown(self) -> bool:
        """Whether it is to be written down since the last time: the caller has all of it written down."""
        grew, self.grew = self.grew, False
        return grew

    def add(self, runs: Runs) -> None:
        """These count for nobody."""
        if runs.total():
            self.blocks.set_extents(*runs)
            self.grew = True

    def found(self, free: Runs, in_use: Runs) -> None:
        """Of free space that is left out nothing was written down until now; of the blocks in use the content counts.

        No bitmap remembers these until they are written down: what was written to them was not seen.
        """
        self.add(free)
        self.given(in_use)
        self.grew |= self.unsaved

    def all_but(self, used: Runs) -> None:
        """A copy of these blocks begins, and of no others."""
        self.blocks.clear()
        everything = Runs(np.zeros(1, np.int64), np.array([self._geometry.block_count], np.int64))
        self.blocks.set_extents(*everything.minus(Runs.of_ranges(used.firsts, used.ends())))
        self.grew = True

    def written(self, records: Records) -> None:
        """Write requests were captured: what they cover as a whole is sent, or is in a map of blocks that differ."""
        if not self.blocks.any() or not len(records):
            return
        op = records["op"]
        writes = records[(op == Operation.WRITE) | (op == Operation.WRITE_ZEROES)]
        per_block, geometry = self._geometry.block_sectors, self._geometry
        sectors = writes["sector"].astype(np.int64)
        ends = sectors + writes["sectors"]
        firsts = -(-sectors // per_block)
        whole_ends = np.where(ends == geometry.size_sectors, geometry.block_count, ends // per_block)
        self.given(Runs.of_ranges(firsts, whole_ends))

    def given(self, runs: Runs) -> None:
        """The secondary has these, or a map has them."""
        if self.blocks.any() and self.blocks.meets(*runs):
            self.blocks.clear_extents(*runs)
            self.unsaved = True

    def mask(self, blocks: BlockNumbers) -> Mask:
        """Which of the blocks these are."""
        return self.blocks.test_blocks(blocks) if self.blocks.any() else np.zeros(blocks.shape, np.bool_)
