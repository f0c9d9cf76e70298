"""The blocks that a first copy needs, as the event that the brain waits for."""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.units import Geometry
from pydbt.device.filesystem import used_extents
from pydbt.device.sysfs import BlockDevice


def scan(device: BlockDevice, geometry: Geometry, whole: bool) -> tuple[ev.UsedBlocks, bool]:
    """The blocks in use, or with ``whole`` all of them; and whether they are all."""
    if whole:
        everything = Runs(np.zeros(1, dtype=np.int64), np.array([geometry.block_count], dtype=np.int64))
        return ev.UsedBlocks(everything, "the whole device is compared or copied"), True
    used = used_extents(device)
    runs = blocks_of_bytes(used.firsts_bytes, used.lengths_bytes, geometry)
    return ev.UsedBlocks(runs, f"{used.total_bytes} bytes in use; {used.reason}"), used.whole


def blocks_of_bytes(firsts: np.ndarray, lengths: np.ndarray, geometry: Geometry) -> Runs:
    """Runs of bytes as runs of the blocks they touch, the last block of the volume at most."""
    block = geometry.block_bytes
    first_blocks = firsts // block
    return Runs(first_blocks, np.minimum(-(-(firsts + lengths) // block), geometry.block_count) - first_blocks)
