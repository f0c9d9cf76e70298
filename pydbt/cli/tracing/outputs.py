"""Where the records of a trace are shown: as lines for people, as JSON lines, or on a live screen."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Protocol

import click
import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pydbt.core.printable import printable
from pydbt.core.seen.io_meaning import offset_bytes, submitter_of
from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.core.seen.io_recording import TraceBegin
from pydbt.core.seen.io_summary import IoSummary
from pydbt.core.seen.io_words import (
    LINE_HEADING,
    PathOf,
    file_words,
    latency_words,
    line_of,
    object_of,
    summary_lines,
    summary_object,
    whole_ns,
)
from pydbt.core.seen.latency import PERCENTILES, Spread
from pydbt.core.units import format_bytes

_REFRESH_S = 1.0
_RECENT = 100
_PROCESSES = 6
_NAME_WIDTH = 22  # characters


class Output(Protocol):
    """``show`` comes several times per second, also without records; ``lost``: since the beginning. ``end`` comes once."""

    def show(self, records: np.ndarray, lost: int) -> None: ...
    def end(self, summary: IoSummary, seconds: float, lost: int) -> None: ...
    def close(self) -> None: ...


class Lines:
    """A line for each I/O, and the summary."""

    def __init__(self, begin: TraceBegin, path_of: PathOf) -> None:
        self._begin, self._path_of, self._lost = begin, path_of, 0
        click.echo(LINE_HEADING)

    def show(self, records: np.ndarray, lost: int) -> None:
        if len(records):
            lines = (line_of(record, self._begin.clock_offset_ns, self._path_of) for record in records)
            click.echo("\n".join(lines))
        if lost > self._lost:
            click.echo(f"({lost - self._lost:,} I/Os were LOST here: they came faster than they were read)")
            self._lost = lost

    def end(self, summary: IoSummary, seconds: float, lost: int) -> None:
        click.echo()
        tell_summary(summary, seconds, lost, self._path_of)

    def close(self) -> None:
        pass


class JsonLines:
    """An object in a line for each I/O, for each loss (``lost``), and for the end (``summary``), or for the end alone."""

    def __init__(self, begin: TraceBegin, path_of: PathOf, summary_only: bool) -> None:
        self._begin, self._path_of, self._lost, self._summary_only = begin, path_of, 0, summary_only

    def show(self, records: np.ndarray, lost: int) -> None:
        if self._summary_only:
            return
        offset, path_of = self._begin.clock_offset_ns, self._path_of
        if len(records):
            click.echo("\n".join(json.dumps(object_of(record, offset, path_of)) for record in records))
        if lost > self._lost:
            click.echo(json.dumps({"lost": lost - self._lost}))
            self._lost = lost

    def end(self, summary: IoSummary, seconds: float, lost: int) -> None:
        click.echo(json.dumps({"summary": summary_object(summary, seconds, lost, self._path_of)}))

    def close(self) -> None:
        pass


class SummaryAlone:
    """Nothing before the end."""

    def __init__(self, path_of: PathOf) -> None:
        self._path_of = path_of

    def show(self, records: np.ndarray, lost: int) -> None:
        pass

    def end(self, summary: IoSummary, seconds: float, lost: int) -> None:
        tell_summary(summary, seconds, lost, self._path_of)

    def close(self) -> None:
        pass


class Screen:
    """Rates, latencies, the busiest processes and the last I/Os, once per second; the summary follows when it is gone."""

    def __init__(self, begin: TraceBegin, path_of: PathOf) -> None:
        self._begin, self._path_of = begin, path_of
        self._recent: deque[np.void] = deque(maxlen=_RECENT)
        self._window, self._since = IoSummary(), time.monotonic()
        self._console = Console()
        self._live = Live(console=self._console, screen=True, auto_refresh=False, transient=True)
        self._live.start()
        self._draw(0.0, 0)

    def show(self, records: np.ndarray, lost: int) -> None:
        self._window.add(records)
        self._recent.extend(records[-_RECENT:])
        passed = time.monotonic() - self._since
        if passed >= _REFRESH_S:
            self._draw(passed, lost)
            self._window, self._since = IoSummary(), time.monotonic()

    def end(self, summary: IoSummary, seconds: float, lost: int) -> None:
        self.close()
        tell_summary(summary, seconds, lost, self._path_of)

    def close(self) -> None:
        self._live.stop()

    def _draw(self, seconds: float, lost: int) -> None:
        head = Text(printable(self._begin.device), no_wrap=True, overflow="ellipsis")
        head.append(f"  {self._window.count:,} I/Os in the last {seconds:.1f} s")
        head.append(f"  {lost:,} LOST in all" if lost else "", style="bold")
        head.append("  Ctrl-C: end with a summary", style="dim")
        latencies, processes = self._latencies(seconds), self._processes(seconds)
        used = 1 + latencies.row_count + 1 + processes.row_count + 1 + 1 + 1
        recent = self._last(max(1, self._console.height - used))
        self._live.update(Group(head, latencies, processes, Text(), recent), refresh=True)

    def _last(self, count: int) -> Table:
        table = _table("process", "I/O", "offset", "length", "latency", name_width=_NAME_WIDTH)
        table.add_column("file", no_wrap=True, overflow="ellipsis")
        for record in list(self._recent)[-count:]:
            offset, length = offset_bytes(record), int(record["bytes"])
            cells = (
                submitter_of(record).words,
                OPERATIONS[record["operation"]],
                "-" if offset is None else str(offset),
                format_bytes(length) if length else "-",
                latency_words(whole_ns(record)),
                file_words(record, self._path_of),
            )
            table.add_row(*map(Text, cells))
        return table

    def _latencies(self, seconds: float) -> Table:
        table = _table("operation", "I/Os/s", "bytes/s", "latency of", *(f"p{one:g}" for one in PERCENTILES))
        for name in OPERATIONS:
            one = self._window.operations[name]
            shown = False
            for at, part in enumerate(PARTS):
                spread = Spread.of(one.latencies[at])
                if spread.count:
                    rates = ("", "", "") if shown else (name, *_rates(one.count, one.bytes, seconds))
                    table.add_row(*map(Text, (*rates, part, *map(latency_words, spread.percentiles_ns))))
                    shown = True
        return table

    def _processes(self, seconds: float) -> Table:
        table = _table("process", "I/Os/s", "bytes/s", "PID", "p99")
        for who, one in self._window.busiest(_PROCESSES):
            slowest = latency_words(Spread.of(one.latency).percentiles_ns[2])
            cells = (who.words, *_rates(one.count, one.bytes, seconds), str(who.process or "-"), slowest)
            table.add_row(*map(Text, cells))
        return table


def tell_summary(summary: IoSummary, seconds: float, lost: int, path_of: PathOf) -> None:
    for line in summary_lines(summary, seconds, lost, path_of):
        click.echo(line)


def _rates(count: int, size_bytes: int, seconds: float) -> tuple[str, str]:
    if seconds <= 0:
        return "-", "-"
    return f"{count / seconds:,.0f}", format_bytes(size_bytes / seconds)


def _table(name: str, *headings: str, name_width: int | None = None) -> Table:
    table = Table(box=None, pad_edge=False, expand=False)
    table.add_column(name, no_wrap=True, max_width=name_width)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
