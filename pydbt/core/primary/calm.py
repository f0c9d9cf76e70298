"""When the next thing is due for a secondary's brain, and whether it has nothing going on, so that the loop may sleep."""

from __future__ import annotations

from math import inf

from pydbt.core.primary.modes import FOLLOWING_MODES, Mode, Phase
from pydbt.core.primary.parts import Parts
from pydbt.core.primary.resync import Resync


class Calm:
    """Looks at the parts, and changes nothing. ``resync``: the resynchronization under way; ``next_merge``: of the maps."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def deadline(self, resync: Resync | None, next_merge: float) -> float:
        """When a tick is due at the latest. It may lie in the past for long."""
        parts = self._parts
        return min(
            parts.quiet.next_retire,
            next_merge,
            parts.link.deadline(),
            parts.settler.deadline(),
            parts.verifier.deadline(),
            parts.landing.deadline(),
            inf if resync is None else resync.deadline(),
        )

    def until(self, resync: Resync | None, next_merge: float) -> float:
        """When something is due although nothing happens; until then records, frames and answers alone bring something new.

        Minus infinity while something goes on that has to be looked at. It does not lie in the past without a reason.
        """
        parts, state, link = self._parts, self._parts.state, self._parts.link
        if resync is not None or parts.verifier.current is not None or state.phase is not Phase.IDLE:
            return -inf
        if not (state.in_flight.certain and state.in_flight.empty):
            return -inf
        due = [parts.settler.deadline(), parts.landing.deadline()]
        if link.up or state.mode is Mode.UNSYNCHRONIZED:
            due.append(link.deadline())
        if state.mode not in FOLLOWING_MODES and state.replica.scanned:
            due.append(next_merge)
        return min(due)  # in mode normal the heartbeat is due sooner than a flip of the bitmaps
