"""What happened, as a table for people. Every figure is of `controller status --json` or of the two images."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pydbt.core.units import format_bytes, format_seconds
from tests.lab.images import GRAIN_BYTES
from tests.lab.programs import Status

# Without a terminal: what a log or a mail shows.
_PLAIN_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Outage:
    """One outage. ``before`` is the status when the link was cut, ``mending`` just before it came back with the load at
    rest, ``after`` when the replica was in sync again; ``differing`` blocks of 4 KiB differed at ``mending``.
    """

    before: Status
    mending: Status
    after: Status
    worst_bytes: int
    differing: int
    down_seconds: float
    resync_seconds: float

    @property
    def seconds(self) -> float:
        return _of(self.after, "unsynchronized_seconds") - _of(self.before, "unsynchronized_seconds")

    @property
    def written_bytes(self) -> int:
        return _stored(self.after) - _stored(self.before)

    @property
    def copied_bytes(self) -> int:
        return int(_of(self.after, "copied_bytes") - _of(self.before, "copied_bytes"))

    @property
    def coalesced_bytes(self) -> int:
        """Written while out of sync, and never sent: something later was there when it came to be copied."""
        return max(self.written_bytes - self.copied_bytes, 0)

    @property
    def wire_bytes(self) -> int:
        return int(self.after["sent_bytes"] - self.mending["sent_bytes"])


@dataclass(frozen=True, slots=True)
class Report:
    """The whole demo. ``differing`` are the 4 KiB blocks that differ at its end."""

    size_bytes: int
    outage: Outage
    last: Status
    differing: int

    @property
    def identical(self) -> bool:
        return not self.differing


def print_report(report: Report) -> None:
    """To stdout; coloured on a terminal."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, title="What happened", title_justify="left", pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for section in (_whole_run(report), _outage(report.outage), _result(report)):
        for name, figure, words in section:
            table.add_row(name, figure, words)
        table.add_section()
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(file=sys.stdout, width=width, highlight=False).print(table)


Row = tuple[str, str | Text, str]


def _whole_run(report: Report) -> list[Row]:
    last = report.last
    discarded = last["statistics"]["discarded_bytes"]
    words = f"in {last['statistics']['written_requests']:,} requests; {format_bytes(_stored(last))}"
    if discarded:
        words += f", and {format_bytes(discarded)} discarded (trimmed)"
    return [
        ("written to the volume", _blocks(_stored(last)), words),
        (
            "sent to the secondary",
            _blocks(last["sent_bytes"]),
            f"{format_bytes(last['sent_bytes'])} on the wire in all",
        ),
    ]


def _outage(outage: Outage) -> list[Row]:
    differing_bytes = outage.differing * GRAIN_BYTES
    ratio = f"{outage.wire_bytes / differing_bytes:.3f} times the bytes that differed" if differing_bytes else ""
    if outage.after["block_bytes"] > GRAIN_BYTES:
        ratio += f"; blocks of {format_bytes(outage.after['block_bytes'])} are copied whole"
    elif outage.wire_bytes < differing_bytes:
        ratio += "; runs of zeros are not sent"
    return [
        ("link down", format_seconds(outage.down_seconds), "while programs went on writing"),
        ("out of sync for", format_seconds(outage.seconds), "from the moment the outage was noticed"),
        ("written meanwhile", _blocks(outage.written_bytes), format_bytes(outage.written_bytes)),
        ("out of sync at the worst", format_bytes(outage.worst_bytes), "as tracked; never less than what differed"),
        (
            "really differed",
            _blocks(outage.differing * GRAIN_BYTES),
            f"{format_bytes(differing_bytes)}, found by comparing",
        ),
        ("copied", _blocks(outage.copied_bytes), format_bytes(outage.copied_bytes)),
        (
            "coalesced",
            _blocks(outage.coalesced_bytes),
            "written less copied: overwritten before it came to that",
        ),
        ("on the wire for that", format_bytes(outage.wire_bytes), ratio),
        ("in sync again after", format_seconds(outage.resync_seconds), "from the moment the link was back"),
    ]


def _result(report: Report) -> list[Row]:
    last = report.last
    size = format_bytes(report.size_bytes)
    if report.identical:
        result = Text("IDENTICAL", style="bold green"), f"all {size} compared byte by byte"
    else:
        result = Text("DIFFERENT", style="bold red"), f"{report.differing:,} blocks of 4 KiB differ, of {size}"
    return [
        ("lost records", f"{last['lost_records']:,}", "writes that the kernel could not report"),
        ("volume and replica", *result),
    ]


def _blocks(size_bytes: float) -> str:
    return f"{size_bytes / GRAIN_BYTES:,.0f} blocks"


def _stored(status: Status) -> int:
    """Bytes written, without those that were only discarded."""
    return int(status["written_bytes"] - status["statistics"]["discarded_bytes"])


def _of(status: Status, name: str) -> float:
    return float(status["statistics"][name])
