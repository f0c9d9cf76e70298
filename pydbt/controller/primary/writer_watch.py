"""The answer to ``writers``, and what of it the status tells: the programs that see who writes, read once per second.

A thread of its own does all of it (``WhileWatched``). The loop tells it how the volume stands, takes what it has found, and never
waits for it.
"""

from __future__ import annotations

import time
from math import inf
from typing import Any

from pydbt.controller.primary.report import AttributionReport, OutrunReport, VolumeReport, WriterReport
from pydbt.controller.primary.volume import Volume
from pydbt.controller.primary.watched import WATCHED_S, WhileWatched
from pydbt.controller.primary.writer_collector import VolumeStanding, WriterCollector
from pydbt.core.primary.modes import FOLLOWING_MODES
from pydbt.core.seen.writers.attachment import Attachment

_TOP = 3
_OLD_S = 10.0


class WriterWatch:
    """``answer`` is called by threads of the control socket; ``note``, ``told`` and ``close`` by the loop's thread."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._attachment = Attachment(volume.options.attribution)
        self._standing: VolumeStanding | None = None
        self._looked_at = -inf
        self._watched = WhileWatched("writers", self._begin)

    def _begin(self) -> WriterCollector:
        return WriterCollector(self._volume.device, self._volume.capture, lambda: self._standing, self._is_looked_at)

    def _is_looked_at(self) -> bool:
        return time.monotonic() < self._looked_at + WATCHED_S

    @property
    def is_off(self) -> bool:
        return self._attachment.attribution == "off"

    def answer(self) -> dict[str, Any]:
        """The last report (docs/operating/who-writes.md has its entries); nothing is attached where the option is ``off``."""
        if self.is_off:
            return {
                "problem": 'who writes is not watched: this volume runs with attribution = "off"',
                "starting": False,
            }
        self._looked_at = time.monotonic()
        return _aged(self._watched.answer())

    def note(self, now: float) -> None:
        """Once per second: attach, and keep attached, what is wanted without anybody's look."""
        follows = all(brain.mode in FOLLOWING_MODES for brain in self._volume.brains)
        self._attachment.moved(now, follows=follows)
        if self._attachment.is_wanted(now):
            self._watched.keep()

    def stands(self, report: VolumeReport, now: float) -> None:
        """How the volume stands, for those who look for a process that outruns the link."""
        together = report.together
        self._standing = VolumeStanding(
            now,
            connected=together.connected and together.epochs is None,
            backlog_bytes=together.lag_bytes,
            out_of_sync_bytes=together.out_of_sync_bytes,
            out_of_normal_for_s=None if (left := self._attachment.left_normal_at) is None else now - left,
        )

    def told(self) -> AttributionReport:
        """For the status."""
        if self.is_off:
            return AttributionReport("off")
        report = _aged(self._watched.last())
        if "since" not in report:
            problem = report.get("problem", "")
            return AttributionReport("starting" if report.get("running") and not problem else "idle", None, problem)
        outrun = None if report["problem"] else report["outrun"]  # figures that are old tell nothing of now
        return AttributionReport(
            "attached",
            report["since"],
            report["problem"],
            None if outrun is None else OutrunReport(**outrun),
            _those_that_write(report["processes"]),
        )

    def close(self) -> None:
        """Detach. Where the thread does not end, its programs end with this process."""
        self._watched.close()


def _aged(report: dict[str, Any]) -> dict[str, Any]:
    """Without the moment of the reading; one that is old is a problem of its own."""
    age_s = time.monotonic() - report.pop("read_at", inf)
    if age_s <= _OLD_S or report["problem"]:
        return report
    return report | {"problem": f"the figures are {age_s:.0f} s old: reading them takes this long"}


def _those_that_write(rows: list[dict[str, Any]]) -> tuple[WriterReport, ...]:
    writers = (_writer(row) for row in rows)
    return tuple(one for one in writers if one.written_rate_bytes or one.written_bytes)[:_TOP]


def _writer(row: dict[str, Any]) -> WriterReport:
    return WriterReport(
        row["kind"],
        row["name"],
        row.get("process"),
        row.get("group", ""),
        row["written_bytes"],
        row["written_rate_bytes"],
    )
