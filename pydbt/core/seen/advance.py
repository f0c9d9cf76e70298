"""Progress that goes back says why: more is to be done than before, or it begins anew."""

from __future__ import annotations

from dataclasses import dataclass

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


def _percent(done: int, total: int) -> int:
    return min(100 * done // total, 100) if total else 0
