"""What ``controller run`` shows while it runs: a live line on a terminal, a line now and then otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pydbt.cli.render import progress_words, summary

_LIVE_INTERVAL_S = 0.25
# Without a terminal: often enough to see that it moves, seldom enough for a log.
_SYNC_INTERVAL_S = 10.0
_QUIET_INTERVAL_S = 300.0
_BAR_WIDTH = 30  # characters


class ProgressReporter:
    """Shows one status after another; call ``update`` as often as you like, and ``close`` at the end.

    On a terminal the line stays at the bottom, and what is logged to ``sys.stderr`` appears above it.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._live: Live | None = None
        self._next = float("-inf")
        self._shown: tuple[Any, ...] = ()
        self._line = ""
        self._terminal = stream.isatty()

    def update(self, status: dict[str, Any]) -> None:
        """Show a status, unless the last one is so fresh that nobody could read it."""
        now = self._clock()
        state = status.get("mode"), status.get("replica_state"), bool(status.get("tainted"))
        if now < self._next and state == self._shown:
            return
        changed, self._shown = state != self._shown, state
        if self._terminal:
            self._next = now + _LIVE_INTERVAL_S
            self._show_live(status)
            return
        self._next = now + (_SYNC_INTERVAL_S if progress_words(status.get("progress")) else _QUIET_INTERVAL_S)
        line = _line(status)
        if changed or line != self._line:
            self._line = line
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the last line standing and give the terminal back; harmless when done already."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show_live(self, status: dict[str, Any]) -> None:
        if self._live is None:
            console = Console(file=self._stream)
            self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=True)
            self._live.start()
        self._live.update(_picture(status), refresh=True)


def _line(status: dict[str, Any]) -> str:
    words = progress_words(status.get("progress"))
    return f"{summary(status)}, {words}" if words else summary(status)


def _picture(status: dict[str, Any]) -> Table | Text | Group:
    text = Text(summary(status), no_wrap=True, overflow="ellipsis")
    progress = status.get("progress") or {}
    words = progress_words(progress)
    if not words:
        return text
    total, done = progress["total_bytes"], progress.get("done_bytes") or 0
    row = Table.grid(padding=(0, 1))
    row.add_row(ProgressBar(total=total, completed=min(done, total), width=_BAR_WIDTH), words)
    return Group(text, row)
