"""Where a volume that lost power differs from its replica most likely, and which of that is compared first (¶98.3).

Two sources tell of it. The volume's own log tells what the replica may lack. The secondary tells which blocks it got last: its
image may have writes that the disk of the primary has lost, and no log of that disk knows of those.
"""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.protocol.recent import Recall, Recent
from pydbt.core.units import GIB, Geometry

LATEST_PART = 256
"""The latest writes come before the log, up to this part of the volume: many of them would put off the log."""
ASKED_PART = 64
"""A secondary is asked for no more than this part of the volume: more would be no order any more."""


class Likely:
    """``runs``: in the order in which they are to be compared, perhaps overlapping. It is another object after each change."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self.forget()

    def forget(self) -> None:
        """Everything was compared."""
        self._by_log = self._written_last = self.runs = Runs.none()

    @property
    def question(self) -> Recall:
        """For a secondary that can tell what it got last."""
        return Recall(min(self._geometry.size_bytes // ASKED_PART, GIB))

    def by_log(self, runs: Runs) -> None:
        """Blocks that the log of the file system names, in this order."""
        self._by_log = runs
        self._put_in_order()

    def written_last(self, told: Recent) -> None:
        """The secondary's answer."""
        per_block = max(1, self._geometry.block_bytes // told.unit_bytes)
        per_unit = max(1, told.unit_bytes // self._geometry.block_bytes)
        firsts = told.units.firsts // per_block * per_unit
        ends = -(-told.units.ends() // per_block) * per_unit
        self._written_last = Runs(firsts, ends - firsts)
        self._put_in_order()

    def _put_in_order(self) -> None:
        log, last = self._by_log, self._written_last
        ahead = int(np.searchsorted(np.cumsum(last.counts), self._geometry.block_count // LATEST_PART, side="right"))
        self.runs = Runs(
            np.concatenate((last.firsts[:ahead], log.firsts, last.firsts[ahead:])),
            np.concatenate((last.counts[:ahead], log.counts, last.counts[ahead:])),
        )
