"""A verification with addresses only: the blocks asked for join the next epoch, which compares and copies what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.primary.events import VerifyEnded
from pydbt.core.primary.verifier import SHOWN_RUNS

if TYPE_CHECKING:
    from pydbt.core.primary.brain import Primary


class EpochComparison:
    """Part of the primary's brain. It looks at ``verifier.current``, which ends with the epoch that compared all of it.

    What was written since the epoch before differs by right, and is not counted: only what the secondary wanted of
    blocks that nobody had touched.
    """

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self.under_way = False
        self._touched = DirtyMap(primary.geometry.block_count)
        self._wanted = DirtyMap(primary.geometry.block_count)

    @property
    def asked(self) -> bool:
        """Whether somebody asked for one."""
        return self._primary.verifier.current is not None

    def begin(self) -> None:
        """The next resynchronization begins: its map is taken after this."""
        primary, current = self._primary, self._primary.verifier.current
        # With payload a verification rests meanwhile, and goes on by itself.
        self.under_way = current is not None and primary.epochs.on
        self._touched.clear()
        self._wanted.clear()
        if not self.under_way:
            return
        self._touched.merge(primary.tracker.pending)
        runs = np.array(current.runs, dtype=np.int64).reshape(-1, 2)
        primary.tracker.pending.set_extents(runs[:, 0], runs[:, 1])
        primary.answer_taints(current.taints)

    def touched(self, words: npt.NDArray[np.uint64]) -> None:
        """A bitmap of blocks that were written."""
        if self.under_way:
            self._touched.merge_words(words)

    def wanted(self, blocks: np.ndarray) -> None:
        """The secondary holds something else of these."""
        current = self._primary.verifier.current
        if self.under_way and current is not None:
            self._wanted.set_blocks(blocks)
            current.done_blocks = max(0, current.total_blocks - self._primary.tracker.pending.count())

    def committed(self) -> None:
        """The epoch is on the secondary."""
        primary, current = self._primary, self._primary.verifier.current
        if not self.under_way or current is None:
            return
        self.under_way = False
        found = self._wanted.extents().minus(self._touched.extents())
        primary.verifier.current = None
        size = found.total() * primary.geometry.block_bytes
        compared_bytes = current.total_blocks * primary.geometry.block_bytes
        if size:
            primary.effects.log("warning", f"verified: {size} bytes differed and were copied")
        else:
            primary.effects.log(
                "info", f"verified: {compared_bytes} bytes were compared and are the same on both sides"
            )
        places = tuple(zip(found.firsts[:SHOWN_RUNS].tolist(), found.counts[:SHOWN_RUNS].tolist(), strict=True))
        primary.effects.add(VerifyEnded(True, current.total_blocks, found.total(), places))
