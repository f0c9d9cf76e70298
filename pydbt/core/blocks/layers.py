"""The maps of one secondary at a moment, for another thread to count: copies that share what does not change."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import BlockNumbers, Runs


@dataclass(frozen=True, slots=True)
class Layers:
    """``maps``: a block that is in any of them is out of sync. ``known``: no other block can be, but for those that the kernel's
    bitmaps name where ``unmerged``. ``swept``: blocks on their way in a resynchronization, read or to be read; ``staged``: those
    that are durable on the secondary and part of no image before its COMMIT. ``sweep_block``: where this pass goes on; None
    without a resynchronization. ``unreadable``: blocks of the source, in order.
    """

    maps: tuple[DirtyMap, ...]
    known: bool
    unmerged: bool
    swept: Runs
    staged: DirtyMap
    sweep_block: int | None
    unreadable: BlockNumbers
