"""The maps of a brain as they are now, copied for whoever counts them."""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.layers import Layers
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.modes import Mode


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
