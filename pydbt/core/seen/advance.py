"""Progress that goes back says why: more is to be done than before, or it begins anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes


@dataclass(slots=True)
class Advance:
    """Of one thing that advances, as it is shown to one reader. ``look`` is called for each line that is shown."""

    _done: int = 0
    _total: int = 0
    _kind: str = ""

    def look(self, progress: View, kind: str = "") -> str:
        """Why less of it is done than in the line before, in words; empty when it is not less. ``kind``: a mode."""
        total, done = progress.whole("total_bytes") or 0, progress.whole("done_bytes") or 0
        if not total:
            return ""
        before_done, before_total, before_kind = self._done, self._total, self._kind
        self._done, self._total, self._kind = done, total, kind
        before, now = _percent(before_done, before_total), _percent(done, total)
        if not before_total or now >= before:
            return ""
        if kind != before_kind:
            return f"back from {before} %: {kind} has begun"
        if done < before_done:
            return f"back from {before} %: it has begun anew"
        return f"back from {before} %: {format_bytes(total - before_total)} more is to be done"


READ_S = 5.0
"""Long enough to be read."""


@dataclass(slots=True)
class LastingAdvance:
    """For a picture that is drawn again and again: the reason stays in it for a while."""

    _advance: Advance = field(default_factory=Advance)
    _words: str = ""
    _until: float = 0.0

    def look(self, progress: View, kind: str, now: float) -> str:
        """As ``Advance.look``, or what that has told a moment ago. ``now``: of a clock that only goes forward."""
        if words := self._advance.look(progress, kind):
            self._words, self._until = words, now + READ_S
        return self._words if now < self._until else ""


def _percent(done: int, total: int) -> int:
    return min(100 * done // total, 100) if total else 0
