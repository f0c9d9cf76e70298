"""The blocks of the last updates of the stream, of which a primary that lost power may lack some (US 7,039,661, ¶98.3)."""

from __future__ import annotations

from collections import deque

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import ExtentKind, SectorTable
from pydbt.core.protocol.recent import Recall, Recent
from pydbt.core.protocol.unit_rows import MAX_DIGESTS
from pydbt.core.units import MAX_COMPARED_BYTES, Geometry

MAX_RECENT_EXTENTS = 65_536
"""1 MiB. One STREAM frame has fewer."""
LONGEST_UNITS = 2048
"""8 MiB: what is longer is zeros, and its beginning stands for all of it."""


class RecentWrites:
    """Lives longer than a brain, as ``PrimaryWatch`` does. Without discards, which are long and leave nothing to be lost."""

    def __init__(self) -> None:
        self._tables: deque[SectorTable] = deque()
        self._count = 0

    def written(self, extents: SectorTable) -> None:
        """Of a frame or a record of the stream, behind all before it."""
        kept = extents[extents.kinds != ExtentKind.DISCARD]  # a copy: the frame lies in memory that is used again
        if not len(kept):
            return
        self._tables.append(kept)
        self._count += len(kept)
        while self._count > MAX_RECENT_EXTENTS:
            self._count -= len(self._tables.popleft())

    def told(self, asked: Recall, size_bytes: int) -> Recent:
        """The answer to a primary whose volume has this size."""
        most = min(asked.limit_bytes // MAX_COMPARED_BYTES, MAX_DIGESTS)
        return Recent(self._newest(most, Geometry(size_bytes, MAX_COMPARED_BYTES)), MAX_COMPARED_BYTES)

    def _newest(self, most: int, units: Geometry) -> Runs:
        if not self._tables:
            return Runs.none()
        table = SectorTable.joined(self._tables)
        runs = Runs.of_sectors(table.first_sectors[::-1], table.lengths_sectors[::-1], units)
        counts = np.minimum(runs.counts, LONGEST_UNITS)
        looked_at = np.cumsum(counts) <= MAX_DIGESTS  # each of them counts again where it was written again
        numbers = Runs(runs.firsts[looked_at], counts[looked_at]).blocks()
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        firsts = order[np.append(True, ordered[1:] != ordered[:-1])[: len(order)]]
        newest = numbers[np.sort(firsts)][:most]
        opens = np.flatnonzero(np.append(True, newest[1:] != newest[:-1] + 1)[: len(newest)])
        return Runs(newest[opens], np.diff(np.append(opens, len(newest))))
