"""Why the maps may not tell all that differs, and which comparison answers each reason."""

from __future__ import annotations

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.state import State
from pydbt.core.primary.verifier import NO_KEY


class Taints:
    """Changes ``state.taints`` when the brain tells it to."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._answered = state.config.answered  # by the comparison that the next landing completes

    def add(self, reason: str) -> None:
        """Nothing is called up to date before everything was compared."""
        if reason not in self._state.taints:
            self._state.taints.append(reason)
            self._state.effects.log(
                "error", f"tainted: {reason}; the replica is not called up to date before it was compared"
            )

    @property
    def unanswered(self) -> bool:
        """Whether a taint stands for blocks that are not on the map: nobody knows how much is out of sync."""
        return any(reason not in self._answered for reason in self._state.taints)

    def clear(self, reasons: tuple[str, ...]) -> None:
        """Everything was compared after these had come up, and what differed is in sync or known to be out of it."""
        state = self._state
        if any(reason in state.taints for reason in reasons):
            state.taints = [reason for reason in state.taints if reason not in reasons]
            words = "still tainted" if state.taints else "not tainted any more: everything was compared"
            state.effects.log("info", words)

    def answered_by_scan(self) -> None:
        """Every block in use is pending: the next landing completes a comparison of everything."""
        self._answered = tuple(self._state.taints)

    def answered_by_copy(self, runs: Runs) -> bool:
        """Whether the secondary compares nothing: all that would be compared is pending then, and the next landing copies it."""
        if self._state.replica.compares:
            return False
        self._state.effects.log("warning", f"{NO_KEY}; what would be compared is copied")
        self._state.tracker.pending.set_extents(*runs)
        self._answered = tuple(self._state.taints)
        return True

    def answered_by_landing(self, reasons: tuple[str, ...]) -> None:
        """The next landing completes a comparison of everything, as far as these are concerned."""
        self._answered = tuple(dict.fromkeys((*self._answered, *reasons)))

    def landed(self) -> None:
        """That landing is complete."""
        self.clear(self._answered)
        self._answered = ()
