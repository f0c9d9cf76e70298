"""Where a volume that lost power differs from its replica most likely, by its own log (US 7,039,661, ¶98.3)."""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.transactions.ext4_volume import Read
from pydbt.core.transactions.on_disk import read_changes
from pydbt.core.units import Geometry

MAX_LIKELY_RUNS = 65_536
"""1 MiB. More of them would be no order any more."""
FILES_PART = 256
"""Files make up no more than this part of the volume: a large one that was changed in one place would put off the log."""


def likely_changes(read: Read, geometry: Geometry) -> Runs:
    """Runs of blocks, the likeliest first, perhaps overlapping. NotUnderstood where there is no log that can be read.

    First the superblock, and where the log goes on: what was written last is what the disk or the replica lacks. Then the data of
    files that were changed last; each transaction from the newest on, with its blocks of the log and the home blocks that it
    names; and the rest of the log.
    """
    changes = read_changes(read, geometry.size_bytes)
    found: list[tuple[int, int]] = [(0, geometry.block_bytes), *changes.head]
    found += _first_of(changes.files, geometry.size_bytes // FILES_PART)
    for of_log, named in changes.recent:
        found += of_log
        found += (tuple(run) for run in named.together().tolist())
        if len(found) >= MAX_LIKELY_RUNS:
            break
    found += changes.log
    return _blocks(found[:MAX_LIKELY_RUNS], geometry)


def _first_of(runs: list[tuple[int, int]], most_bytes: int) -> list[tuple[int, int]]:
    found = []
    for run in runs:
        most_bytes -= run[1]
        if most_bytes < 0:
            break
        found.append(run)
    return found


def _blocks(runs: list[tuple[int, int]], geometry: Geometry) -> Runs:
    """Runs of bytes as runs of the blocks that they touch, without those that reach beyond the volume."""
    offsets, lengths = np.array(runs, np.int64).reshape(-1, 2).T
    inside = (offsets >= 0) & (lengths > 0) & (offsets <= geometry.size_bytes - lengths)
    offsets, ends = offsets[inside], (offsets + lengths)[inside]
    firsts = offsets // geometry.block_bytes
    return Runs(firsts, -(-ends // geometry.block_bytes) - firsts)
