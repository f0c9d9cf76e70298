"""Times out of normal: each is counted, and a short one that the load caused is told in one line, when it is over.

A burst of writes that fills the log ends the stream for a second or two. Six lines for each of those would hide whatever else
the log has to tell.
"""

from __future__ import annotations

from pydbt.core.primary.modes import FOLLOWING_MODES, Mode

# One that lasts longer is told while it lasts.
BRIEF_S = 5.0


class Excursions:
    """``count`` of this run. ``level`` of lines about it: ``debug`` while it is brief and its cause is the load."""

    def __init__(self) -> None:
        self.count = 0
        self.level = "info"
        self._reason = ""
        self._left_at: float | None = None

    def moved(self, before: Mode, after: Mode, reason: str, now: float, *, by_load: bool) -> list[tuple[str, str]]:
        """The lines for a change of mode, as (level, line). ``by_load``: only the rate of writes is to blame."""
        if before in FOLLOWING_MODES and after not in FOLLOWING_MODES:
            self.count += 1
            self._left_at, self._reason = now, reason
            self.level = "debug" if by_load else "info"
            if after is Mode.UNSYNCHRONIZED and not by_load:
                return [("warning", f"{before} -> {after}: {reason}")]  # the secondary is lost
        elif self.level == "debug" and after not in FOLLOWING_MODES and not self._is_on_its_way(after):
            return [*self._told(now), ("info", f"{before} -> {after}: {reason}")]
        if after in FOLLOWING_MODES and self._left_at is not None:
            return [self._returned(before, after, reason, now)]
        return [(self.level, f"{before} -> {after}: {reason}")]

    @staticmethod
    def _is_on_its_way(mode: Mode) -> bool:
        return mode in (Mode.UNSYNCHRONIZED, Mode.RESYNCHRONIZING)

    def _returned(self, before: Mode, after: Mode, reason: str, now: float) -> tuple[str, str]:
        assert self._left_at is not None
        seconds, was_brief = now - self._left_at, self.level == "debug"
        self._left_at, self.level = None, "info"
        counted = (
            f"{self.count} times out of {after} in this run" if self.count > 1 else f"once out of {after} in this run"
        )
        if was_brief:
            return "info", f"{after} again after {seconds:.1f} s ({self._reason}); {counted}"
        return "info", f"{before} -> {after}: {reason}, after {seconds:.1f} s; {counted}"

    def overdue(self, now: float) -> list[tuple[str, str]]:
        """The line for one that is not brief any more; nothing otherwise."""
        if self.level == "info" or self._left_at is None or now - self._left_at <= BRIEF_S:
            return []
        return self._told(now)

    def _told(self, now: float) -> list[tuple[str, str]]:
        seconds = now - self._left_at if self._left_at is not None else 0.0
        self.level = "info"
        return [("info", f"not in sync for {seconds:.1f} s: {self._reason}")]
