"""When the next thing is due for a secondary's brain, and whether it has nothing going on, so that the loop may sleep."""

from __future__ import annotations

from math import inf

from pydbt.core.primary.landing import Landing
from pydbt.core.primary.link import Link
from pydbt.core.primary.modes import FOLLOWING_MODES, Mode, Phase
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.settler import Settler
from pydbt.core.primary.snapshot_comparison import SnapshotComparison
from pydbt.core.primary.state import State
from pydbt.core.primary.verifier import Verifier


class Calm:
    """Looks at the parts, and changes nothing. ``resync``: the resynchronization under way; ``next_merge``: of the maps."""

    def __init__(
        self,
        state: State,
        link: Link,
        quiet: QuietBitmap,
        settler: Settler,
        verifier: Verifier | SnapshotComparison,
        landing: Landing,
    ) -> None:
        self._state, self._link, self._quiet = state, link, quiet
        self._settler, self._verifier, self._landing = settler, verifier, landing

    def deadline(self, resync: Resync | None, next_merge: float) -> float:
        """When a tick is due at the latest. It may lie in the past for long."""
        return min(
            self._quiet.next_retire,
            next_merge,
            self._link.deadline(),
            self._settler.deadline(),
            self._verifier.deadline(),
            self._landing.deadline(),
            inf if resync is None else resync.deadline(),
        )

    def until(self, resync: Resync | None, next_merge: float) -> float:
        """When something is due although nothing happens; until then records, frames and answers alone bring something new.

        Minus infinity while something goes on that has to be looked at. It does not lie in the past without a reason.
        """
        state, link = self._state, self._link
        if resync is not None or self._verifier.current is not None or state.phase is not Phase.IDLE:
            return -inf
        if not (state.in_flight.certain and state.in_flight.empty):
            return -inf
        due = [self._settler.deadline(), self._landing.deadline()]
        if link.up or state.mode is Mode.UNSYNCHRONIZED:
            due.append(link.deadline())
        if state.mode not in FOLLOWING_MODES and state.replica.scanned:
            due.append(next_merge)
        return min(due)  # in mode normal the heartbeat is due sooner than a flip of the bitmaps
