"""The maps of one secondary at a moment, for another thread to count: copies that share what does not change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import BlockNumbers, Runs
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.modes import Mode


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


def layers_of(brain: Primary, now: float) -> Layers:
    """Call it where the brain is called. It takes no longer for a large map than to copy the list of its parts."""
    state, resync = brain.state, brain.resync
    transits = [] if resync is None else [transit.runs for transit in resync.in_transit()]
    swept = Runs.of_ranges(
        np.concatenate([np.zeros(0, np.int64), *(runs.firsts for runs in transits)]),
        np.concatenate([np.zeros(0, np.int64), *(runs.ends() for runs in transits)]),
    )
    few = DirtyMap(state.geometry.block_count)
    few.set_extents(*swept)
    for blocks in (state.unsettled.blocks(), state.unreadable.blocks(), state.replica.lacking().blocks()):
        few.set_blocks(np.asarray(blocks, np.int64))
    large = [state.tracker.pending, state.tracker.dirty, *brain.landing.unproved]
    if state.rolled_back is not None:
        large.append(state.rolled_back)
    return Layers(
        maps=(few, *(one.copy() for one in large if one.any())),
        known=brain.status(now).known,
        unmerged=brain.mode is not Mode.NORMAL,
        swept=swept,
        staged=state.staged.copy(),
        sweep_block=None if resync is None else resync.sweep.position,
        unreadable=state.unreadable.blocks(),
    )
