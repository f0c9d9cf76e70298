"""Whether one process writes faster than the link carries, so that the replica cannot follow for as long as it goes on.

The link's rate is not asked from the network: it is what is written less what the backlog grows by, over the last seconds. So it
is in bytes of the volume, whatever is compressed, left out or written twice; and it is known only while the backlog grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from pydbt.core.seen.backlog import LEAST_GROWTH_BYTES_PER_S
from pydbt.core.seen.writers.reading import Process

OUTRUN_WINDOW_S = 10.0
"""Rates are taken over this long, and it must hold for as much time before it is told."""
OUTRUN_CALM_S = 20.0
"""It is over when it did not hold for this long: a writer that pauses to breathe is told once."""
STILL_FASTER = 0.8
"""Once told, it holds while the process writes at 80 % of the link's rate or more: at the border it does not flicker."""
LEFT_S = 5.0
"""And while the backlog is this much work for the link: it stops growing where the same blocks are written again."""
TOLD_CHANGE = 0.25
"""A rate that was told is told anew when it has changed by a quarter."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. ``backlog_bytes`` None: it is not known how far the replica is behind. ``written``: by each process, so far."""

    moment: float
    connected: bool
    backlog_bytes: int | None
    written_bytes: int
    written: Mapping[Process, int]


@dataclass(frozen=True, slots=True)
class Outrun:
    """``process`` writes ``rate_bytes`` per second, the link carries ``link_rate_bytes``; ``since``: of the same clock."""

    process: Process
    rate_bytes: int
    link_rate_bytes: int
    since: float


class OutrunWatch:
    """``look`` at each sample; ``found`` is the present answer."""

    def __init__(self) -> None:
        self.found: Outrun | None = None
        self._samples: deque[Sample] = deque()
        self._suspect: tuple[Process, float] | None = None
        self._held_at = 0.0

    def look(self, sample: Sample) -> Outrun | None:
        samples = self._samples
        if not sample.connected or sample.backlog_bytes is None:
            samples.clear()  # no link carries anything: nobody outruns it
        else:
            if samples and samples[-1].written_bytes > sample.written_bytes:
                samples.clear()  # counted anew
            samples.append(sample)
        while len(samples) > 2 and samples[1].moment <= sample.moment - OUTRUN_WINDOW_S:
            samples.popleft()
        self._judge(sample.moment, self._fastest())
        return self.found

    def forget(self) -> None:
        """Nobody counts any more."""
        self.found = self._suspect = None
        self._samples.clear()

    def _judge(self, now: float, fastest: Outrun | None) -> None:
        if fastest is None:
            self._suspect = None
            if self.found is not None and now - self._held_at >= OUTRUN_CALM_S:
                self.found = None
            return
        if self._suspect is None or self._suspect[0] != fastest.process:
            self._suspect = fastest.process, fastest.since
        if self.found is not None and self.found.process == fastest.process:
            self._held_at = now
            self.found = self._told(self.found, fastest)
        elif now - self._suspect[1] >= OUTRUN_WINDOW_S:
            self._held_at = now
            self.found = Outrun(fastest.process, fastest.rate_bytes, fastest.link_rate_bytes, self._suspect[1])

    @staticmethod
    def _told(told: Outrun, now: Outrun) -> Outrun:
        def moved(before: int, after: int) -> bool:
            return abs(after - before) > TOLD_CHANGE * max(before, 1)

        if moved(told.rate_bytes, now.rate_bytes) or moved(told.link_rate_bytes, now.link_rate_bytes):
            return Outrun(told.process, now.rate_bytes, now.link_rate_bytes, told.since)
        return told

    def _fastest(self) -> Outrun | None:
        """The process that alone writes more than the link carries, over the samples that are kept."""
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        seconds = last.moment - first.moment
        if seconds <= 0 or not last.written:
            return None
        process = max(last.written, key=lambda one: last.written[one] - first.written.get(one, 0))
        rate = (last.written[process] - first.written.get(process, 0)) / seconds
        backlog = last.backlog_bytes or 0
        growth = (backlog - (first.backlog_bytes or 0)) / seconds
        carried = max((last.written_bytes - first.written_bytes) / seconds - growth, 0.0)
        grew_last = backlog > (self._samples[-2].backlog_bytes or 0)  # a burst that is over is none
        if growth >= LEAST_GROWTH_BYTES_PER_S and grew_last and rate > carried:
            return Outrun(process, round(rate), round(carried), last.moment)
        if (told := self.found) is None or told.process != process or growth < 0:
            return None
        still = rate >= STILL_FASTER * told.link_rate_bytes and backlog >= LEFT_S * told.link_rate_bytes
        return Outrun(process, round(rate), told.link_rate_bytes, told.since) if still else None
