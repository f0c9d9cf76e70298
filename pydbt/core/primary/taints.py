"""Why the maps may not tell all that differs, and which comparison answers each reason.

A taint has a number, and a new one each time that it comes up: what was compared by then may differ again. A comparison answers
the numbers that were there when it was begun, and no later one.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.state import State
from pydbt.core.primary.verifier import NO_KEY


class Taints:
    """Changes ``state.taints`` when the brain tells it to."""

    def __init__(self, state: State) -> None:
        self._state = state
        answered = state.config.answered
        # By the comparison that the next landing completes; and by a search for the blocks in use, which is older.
        self._answered = frozenset(number for reason, number in state.taints.items() if reason in answered)
        self._at_search = frozenset(state.taint_numbers)

    def add(self, reason: str) -> None:
        """Nothing is called up to date before everything was compared. A reason that is known already is not told again."""
        state = self._state
        if reason not in state.taints:
            state.effects.log(
                "error", f"tainted: {reason}; the replica is not called up to date before it was compared"
            )
        state.last_taint += 1
        state.taints[reason] = state.last_taint

    @property
    def unanswered(self) -> bool:
        """Whether a taint stands for blocks that are not on the map: nobody knows how much is out of sync."""
        return any(number not in self._answered for number in self._state.taint_numbers)

    def clear(self, numbers: Iterable[int]) -> None:
        """Everything was compared after these had come up, and what differed is in sync or known to be out of it."""
        state, answered = self._state, frozenset(numbers)
        left = {reason: number for reason, number in state.taints.items() if number not in answered}
        if answered and state.taints:
            still = "still tainted, by what came up after that comparison had begun"
            state.effects.log("info", still if left else "not tainted any more: everything was compared")
        if answered_now := [reason for reason in state.taints if reason not in left]:
            state.unwritten.add(*answered_now)
        state.taints = left

    def search_begins(self) -> None:
        """The blocks in use are looked for: what is written unseen from here on may be in others."""
        self._at_search = frozenset(self._state.taint_numbers)

    def answered_by_scan(self) -> None:
        """Every block in use is pending: the next landing completes a comparison of everything."""
        self._answered |= self._at_search

    def answered_by_copy(self, runs: Runs, numbers: tuple[int, ...]) -> bool:
        """Whether taints are to be answered and the secondary compares nothing: all that would be compared is pending then, and
        the next landing copies it."""
        if not numbers or self._state.replica.compares:
            return False
        self._state.effects.log("warning", f"{NO_KEY}; blocks that would be compared are copied")
        self._state.tracker.pending.set_extents(*runs)
        self._answered |= frozenset(numbers)
        return True

    def answered_by_landing(self, numbers: Iterable[int]) -> None:
        """The next landing completes a comparison of everything, as far as these are concerned."""
        self._answered |= frozenset(numbers)

    def landed(self) -> None:
        """That landing is complete."""
        self.clear(self._answered)
        self._answered = frozenset()
