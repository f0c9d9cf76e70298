"""When the primary's generations change: the first write that its secondary cannot have, and each COMMIT.

And each run, and each day of a long one: else a primary that was put back to an earlier state, its state directory with it,
would find its own last name on the secondary, take that for one that is behind, and overwrite what is newer.
"""

from __future__ import annotations

from pydbt.core.primary.events import KeepGenerations, SendFrame
from pydbt.core.primary.modes import FOLLOWING_MODES, Phase
from pydbt.core.primary.state import State
from pydbt.core.protocol.frames import Generation
from pydbt.core.protocol.generations import Generations, generation_name

# A name in use for longer gets a successor, so that this is how much may be lost unnoticed when an earlier state is put back.
NAME_LASTS_S = 86400.0


class Ancestry:
    """Changes ``state.generations``. Every change is written down before an effect that depends on it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._named = 0
        self._told_at: float | None = None  # since when a secondary may hold the current name, if that is of this run

    @property
    def followed(self) -> bool:
        """Whether a write follows, in the stream or with the next snapshot, an image that was committed or is to be."""
        return self._state.mode in FOLLOWING_MODES or self._state.phase is Phase.COMMITTING

    def written(self) -> None:
        """The volume is written: by itself alone, unless the write follows in the stream, or a snapshot, after a COMMIT."""
        if not self.followed:
            self.written_alone()

    def renamed(self, name: int) -> None:
        """Another secondary cannot have what is written now. One that follows is told ahead of the first such write."""
        followed = self.followed
        self._become(self._state.generations.renamed(name, followed=followed))
        if followed:
            self._told_at = self._state.now
            self._state.effects.add(SendFrame(Generation(self._state.generations)))

    def written_alone(self) -> None:
        """From here on, if not before, the volume holds what the secondary has not got."""
        if self._state.generations.shared:
            self._become(self._state.generations.written_alone(self._next_name()))

    def offer(self) -> None:
        """A COMMIT follows: whether its acknowledgement comes or not, the secondary may hold this generation then."""
        if self._is_old():
            self.written_alone()
            self._told_at = self._state.now
        self._become(self._state.generations.offered())
        self._state.effects.add(SendFrame(Generation(self._state.generations)))

    def renew(self) -> None:
        """In mode normal: what follows in the stream has another name than what followed the day before."""
        if self._told_at is not None and self._is_old():
            self.renamed(self._next_name())

    def in_sync(self) -> None:
        """The COMMIT was acknowledged."""
        self._become(self._state.generations.in_sync())

    def _is_old(self) -> bool:
        return self._told_at is None or self._state.now - self._told_at >= NAME_LASTS_S

    def _next_name(self) -> int:
        self._named += 1  # 0 is the start-up's
        return generation_name(self._state.config.generation_seed, self._named)

    def _become(self, generations: Generations) -> None:
        if generations != self._state.generations:
            self._state.generations = generations
            self._state.effects.add(KeepGenerations(generations))
