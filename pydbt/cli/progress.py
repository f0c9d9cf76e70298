"""The progress that ``controller run`` shows: a live line on a terminal, a line of the log now and then otherwise."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from pydbt.cli.render import summary
from pydbt.core.seen.advance import Advance, LastingAdvance
from pydbt.core.seen.headline import progress_words
from pydbt.core.seen.view import View

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_log = logging.getLogger("pydbt")

_LIVE_INTERVAL_S = 0.25
# Without a terminal: often enough to see that it moves, seldom enough for a log.
_SYNC_INTERVAL_S = 10.0
_QUIET_INTERVAL_S = 300.0
# A burst of writes ends mode normal for a moment, again and again: what is over sooner is not worth a line.
_LASTS_S = 3.0
_BAR_WIDTH = 30  # characters


class ProgressReporter:
    """Shows one report after another; call ``update`` as often as you like, and ``close`` at the end.

    On a terminal the line stays at the bottom, and what is logged to ``sys.stderr`` appears above it.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic, *, live: bool = True) -> None:
        """``live``: show a live line when ``stream`` is a terminal."""
        self._stream = stream
        self._clock = clock
        self._live: Live | None = None
        self._next = float("-inf")
        self._shown: tuple[object, ...] = ()
        self._coming: tuple[tuple[object, ...], float] | None = None  # another state, and since when
        self._line = ""
        self._advance, self._lasting = Advance(), LastingAdvance()
        self._terminal = live and stream.isatty()

    def update(self, report: View) -> None:
        """Show a report, unless the last one was shown only a moment ago."""
        now = self._clock()
        state = report.text("mode"), report.text("replica_state"), bool(report.flag("tainted"))
        changed = self._has_changed(state, now)
        if now < self._next and not changed:
            return
        self._shown, self._coming = state, None
        if self._terminal:
            self._next = now + _LIVE_INTERVAL_S
            self._show_live(report)
            return
        self._next = now + (_SYNC_INTERVAL_S if progress_words(report.part("progress")) else _QUIET_INTERVAL_S)
        back = self._advance.look(report.part("progress"), report.text("mode") or "")
        line = f"{_line(report)}; {back}" if back else _line(report)
        if changed or line != self._line:
            self._line = line
            _log.info("%s", line)

    def _has_changed(self, state: tuple[object, ...], now: float) -> bool:
        """Whether a state is to be shown that was not: a terminal shows each at once, a log those that last."""
        if state == self._shown:
            self._coming = None
            return False
        if self._coming is None or self._coming[0] != state:
            self._coming = state, now
        lasts = now - self._coming[1] >= _LASTS_S
        return lasts or self._terminal or not self._shown

    def close(self) -> None:
        """Leave the last line standing and give the terminal back; harmless when done already."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show_live(self, report: View) -> None:
        if self._live is None:
            # Only here: it is a tenth of what a start takes, and most controllers have no terminal.
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream)
            self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=True)
            self._live.start()
        back = self._lasting.look(report.part("progress"), report.text("mode") or "", self._clock())
        self._live.update(_picture(report, back), refresh=True)


def _line(report: View) -> str:
    words = progress_words(report.part("progress"))
    return f"{summary(report)}, {words}" if words else summary(report)


def _picture(report: View, back: str) -> RenderableType:
    """``back``: why less is done than a moment ago."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    text = Text(summary(report), no_wrap=True, overflow="ellipsis")
    progress = report.part("progress")
    words = progress_words(progress)
    if not words:
        return text
    total, done = progress.whole("total_bytes") or 0, progress.whole("done_bytes") or 0
    row = Table.grid(padding=(0, 1))
    shown = f"{words}; {back}" if back else words
    row.add_row(ProgressBar(total=total, completed=min(done, total), width=_BAR_WIDTH), shown)
    return Group(text, row)
