"""The layers of a brain have every block that it counts as out of sync, as it is at one moment."""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig, SavedMaps
from pydbt.core.primary.layers import layers_of
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.resync import Resync
from pydbt.core.seen.heat import Cells, in_maps
from tests.core.seen.test_heat import SMALL, map_of


def test_every_block_that_a_brain_counts_as_out_of_sync_is_in_its_layers() -> None:
    config = PrimaryConfig(SMALL, epoch=1, initial=False, scan_used=False)
    brain = Primary(config, 0.0, SavedMaps(map_of(1), map_of(2), None))
    brain.state.tracker.dirty.set_range(3, 1)
    brain.state.unsettled.add(np.array([4]), 1, 0.0)
    brain.state.unreadable.add(np.array([5]), 0.0)
    brain.state.replica.unwritable = Runs(np.array([6], np.int64), np.array([1], np.int64))
    layers = layers_of(brain, 0.0)
    cells = Cells.over(SMALL, 0, SMALL.size_bytes, 64)
    assert np.flatnonzero(in_maps(cells, layers.maps)).tolist() == [1, 2, 3, 4, 5, 6]
    assert layers.known and layers.unmerged and layers.sweep_block is None and layers.unreadable.tolist() == [5]
    brain.state.tracker.pending.set_range(20, 1)
    assert not in_maps(cells, layers.maps)[20], "the copies stay as they are"
    brain.state.mode = Mode.NORMAL
    assert not layers_of(brain, 0.0).unmerged


def test_what_a_resynchronization_has_taken_up_or_staged_is_out_of_sync_until_its_commit() -> None:
    config = PrimaryConfig(SMALL, epoch=1, initial=False, scan_used=False)
    brain = Primary(config, 0.0, SavedMaps(map_of(1, 2, 9), map_of(30, 31), None))
    brain.state.replica.goes_back = True
    brain.resync = Resync(brain.state, brain.quiet, 1, 0.0)
    taken = brain.resync.sweep.next_reading(0.0)
    assert taken is not None
    brain.state.tracker.pending.set_range(2, 1)  # written while it is read
    layers = layers_of(brain, 0.0)
    cells = Cells.over(SMALL, 0, SMALL.size_bytes, 64)
    assert layers.swept.blocks().tolist() == [1, 2, 9] and layers.sweep_block == 10
    assert np.flatnonzero(in_maps(cells, layers.maps)).tolist() == [1, 2, 9, 30, 31]
    assert layers.staged.extents().blocks().tolist() == [30, 31]
    brain.state.replica.goes_back = False
    layers = layers_of(brain, 0.0)
    assert np.flatnonzero(in_maps(cells, layers.maps)).tolist() == [1, 2, 9], "there is no earlier image to go back to"
