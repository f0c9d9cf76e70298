"""A verification with addresses only: the blocks asked for join the next snapshot, which compares and copies what differs."""

from __future__ import annotations

from math import inf

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Integers, Runs
from pydbt.core.primary.events import BlocksRead, VerifyEnded
from pydbt.core.primary.state import State
from pydbt.core.primary.verifier import SHOWN_RUNS, Findings, Verification, VerifyProgress, may_verify
from pydbt.core.protocol.frames import Want
from pydbt.core.units import format_bytes


class SnapshotComparison:
    """In the place of ``Verifier``. ``current`` ends with the snapshot that compared all of it.

    What was written since the snapshot before differs by right, and is not counted: only what the secondary wanted of
    blocks that nobody had touched. ``under_way``: the resynchronization under way compares each block that it reads.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.current: Verification | None = None
        self.under_way = False
        self._touched = DirtyMap(state.geometry.block_count)
        self._wanted = DirtyMap(state.geometry.block_count)
        self._free = DirtyMap(state.geometry.block_count)  # what the secondary was never given

    # --- the face of a Verifier ---------------------------------------------------------------------------
    def begin(
        self, asked: Runs, repair: bool, rate_limit_bytes: int | None, now: float, answers: tuple[int, ...] = ()
    ) -> None:
        """Compare these runs with the next snapshot; a verification that waits for it already is dropped for this one.

        A snapshot under way compares for the verification that it began with, and for no later one.
        """
        self.cancel()
        if not may_verify(self._state):
            return
        self.current = Verification.of(asked, repair, rate_limit_bytes, answers, now)

    def cancel(self) -> None:
        """Forget the verification under way, if any."""
        self.current, self.under_way = None, False

    def resume_block(self) -> int:
        """Nothing counts as compared before all of it is."""
        runs = self.current.runs if self.current is not None else []
        return next((first for first, _ in runs), self._state.geometry.block_count)

    def progress(self) -> VerifyProgress | None:
        """None when none is under way."""
        return None if self.current is None else self.current.progress(self._state.geometry)

    # The resynchronization reads and compares: a verification has nothing under way of its own.
    awaiting = False

    def pause(self, now: float) -> None: ...

    def touch(self, written: Runs) -> None: ...

    def read(self, event: BlocksRead, now: float) -> bool:
        return False

    def want(self, want: Want, now: float) -> Integers | None:
        return None

    def advance(self, now: float) -> Findings | None:
        return None

    def deadline(self) -> float:
        return inf

    # --- with the next snapshot ---------------------------------------------------------------------------
    def join(self) -> tuple[int, ...]:
        """The next resynchronization begins: its map is taken after this. The numbers of the taints that its landing answers."""
        if self.current is not None and not may_verify(self._state):
            self.cancel()  # it was begun while the secondary had a newer program
        self.under_way = self.current is not None
        self._touched.clear()
        self._wanted.clear()
        self._free = self._state.left_out.blocks.copy()
        if self.current is None:
            return ()
        pending = self._state.tracker.pending
        self._touched.merge(pending)
        runs = np.array(self.current.runs, dtype=np.int64).reshape(-1, 2)
        pending.set_extents(runs[:, 0], runs[:, 1])
        return self.current.answers

    def touched(self, words: npt.NDArray[np.uint64]) -> None:
        """A bitmap of blocks that were written."""
        if self.under_way:
            self._touched.merge_words(words)

    def wanted(self, blocks: Integers) -> None:
        """The secondary holds something else of these."""
        if self.under_way and self.current is not None:
            self._wanted.set_blocks(blocks)
            self.current.done_blocks = max(0, self.current.total_blocks - self._state.tracker.pending.count())

    def committed(self) -> None:
        """The snapshot is on the secondary."""
        current = self.current
        if not self.under_way or current is None:
            return
        self.under_way, self.current = False, None
        wanted = self._wanted.extents().minus(self._touched.extents())
        found = wanted.minus(self._free.extents())
        filled = wanted.total() - found.total()
        block_bytes = self._state.geometry.block_bytes
        log = self._state.effects.log
        if size := found.total() * block_bytes:
            log("warning", f"verified: {format_bytes(size)} differed and were copied")
        else:
            compared_bytes = current.total_blocks * block_bytes
            log("info", f"verified: {format_bytes(compared_bytes)} were compared and are the same on both sides")
        places = tuple(zip(found.firsts[:SHOWN_RUNS].tolist(), found.counts[:SHOWN_RUNS].tolist(), strict=True))
        self._state.effects.add(VerifyEnded(current.total_blocks, found.total(), places, filled))
