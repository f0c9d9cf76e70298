"""Whether a replica has lacked something for longer than the operator accepts, and whether it has everything again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydbt.core.seen.facts import IN_SYNC_STATE
from pydbt.core.seen.view import View

DEFAULT_LATE_AFTER_S = 60.0


class Timeliness(StrEnum):
    """``UNTOLD``: it has not been up to date in this run, and not too late either."""

    UNTOLD = "untold"
    LATE = "late"
    IN_SYNC = "in sync"


@dataclass(slots=True)
class Lateness:
    """Of one replica; ``look`` is given its status again and again. Times are of one clock, in seconds.

    Between late and in sync there is no way back but a status that is up to date: a replica that is still behind, and less than
    before, is late. ``lasted_s``: for how long it has lacked something; when it is up to date, for how long it had.
    """

    after_s: float
    now: Timeliness = Timeliness.UNTOLD
    lasted_s: float = 0.0
    _behind_since: float | None = None

    def look(self, status: View, at: float) -> Timeliness:
        """Where it stands. A primary tells how far behind its secondary is; a secondary knows since when it is not up to date."""
        if status.text("replica_state") == IN_SYNC_STATE:
            if self._behind_since is not None:
                self.lasted_s = max(at - self._behind_since, 0.0)
            self._behind_since, self.now = None, Timeliness.IN_SYNC
            return self.now
        if self._behind_since is None:
            self._behind_since = at
        lag = status.number("lag_seconds")
        if lag is not None:
            self._behind_since = min(self._behind_since, at - max(lag, 0.0))
        self.lasted_s = max(at - self._behind_since, 0.0)
        if self.lasted_s > self.after_s:
            self.now = Timeliness.LATE
        return self.now
