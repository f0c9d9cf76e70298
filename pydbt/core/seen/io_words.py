"""Records and sums of I/Os as lines for people and objects for programs."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pydbt.core.calendar import in_utc, moment_of_ns
from pydbt.core.printable import printable
from pydbt.core.seen.io_meaning import (
    FileId,
    IoFlag,
    content_words,
    file_of,
    flag_words,
    known_ns,
    offset_bytes,
    submitter_of,
)
from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.core.seen.io_summary import IoSummary
from pydbt.core.seen.latency import PERCENTILES, Spread
from pydbt.core.units import SECTOR_BYTES, format_bytes

PathOf = Callable[[FileId], str | None]
"""The name of a file now; None when it is not known."""

_BEGINNING = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LINE = "{:<15} {:<24} {:>7} {:<8} {:>15} {:>9} {:>9}  {}"
LINE_HEADING = _LINE.format("time (UTC)", "process", "PID", "I/O", "offset", "length", "latency", "file").rstrip()
_ROW = "{:<9}{:<8}" + "{:>10}" * (len(PERCENTILES) + 2)
SUMMARY_ROWS = 10


def latency_words(ns: float | None) -> str:
    """Three digits with a unit; *unknown* for None."""
    if ns is None:
        return "unknown"
    for unit_ns, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns >= unit_ns:
            value = ns / unit_ns
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{ns:.0f} ns"


def file_words(record: np.void, path_of: PathOf) -> str:
    """The file, or why there is none."""
    file = file_of(record)
    if file is not None:
        return file_name_words(file, path_of)
    content = content_words(record)
    return "unknown (direct I/O)" if content == "direct" else content


def file_name_words(file: FileId, path_of: PathOf) -> str:
    path = path_of(file)
    return f"inode {file.inode} (no name is known)" if path is None else printable(path)


def line_of(record: np.void, clock_offset_ns: int, path_of: PathOf) -> str:
    """One I/O for people."""
    submitter = submitter_of(record)
    offset, flags = offset_bytes(record), int(record["flags"])
    words = _LINE.format(
        moment(int(record["time_ns"]) + clock_offset_ns)[11:26],
        submitter.words,
        submitter.process or "-",
        OPERATIONS[record["operation"]],
        "-" if offset is None else offset,
        format_bytes(int(record["bytes"])) if record["bytes"] else "-",
        latency_words(whole_ns(record)),
        file_words(record, path_of) + (" FAILED" if flags & IoFlag.ERROR else ""),
    )
    return words.rstrip()


def whole_ns(record: np.void) -> int | None:
    """The whole time where it is known, or else the device's part."""
    whole = known_ns(record["total_ns"])
    return known_ns(record["device_ns"]) if whole is None else whole


def object_of(record: np.void, clock_offset_ns: int, path_of: PathOf) -> dict[str, Any]:
    """One I/O for a program; null is unknown."""
    submitter, file = submitter_of(record), file_of(record)
    return {
        "moment": moment(int(record["time_ns"]) + clock_offset_ns),
        "operation": OPERATIONS[record["operation"]],
        "offset_bytes": offset_bytes(record),
        "length_bytes": int(record["bytes"]),
        "process": submitter.process or None,
        "thread": int(record["thread"]) or None,
        "name": submitter.name or None,
        "kind": submitter.kind or None,
        "queue_ns": known_ns(record["queue_ns"]),
        "device_ns": known_ns(record["device_ns"]),
        "total_ns": known_ns(record["total_ns"]),
        "file": None if file is None else _escaped(path_of(file)),
        "inode": None if file is None else file.inode,
        "content": content_words(record) or None if file is None else "file",
        "flags": flag_words(record),
        "failed": bool(int(record["flags"]) & IoFlag.ERROR),
    }


def _escaped(path: str | None) -> str | None:
    return None if path is None else printable(path)


def moment(unix_ns: int) -> str:
    """A time as RFC 3339 has it, in UTC, with microseconds. A time that no calendar has is its beginning."""
    found = moment_of_ns(unix_ns) or _BEGINNING.replace(microsecond=unix_ns % 1_000_000_000 // 1000)
    return in_utc(found, "microseconds")


def summary_object(summary: IoSummary, seconds: float, lost: int, path_of: PathOf) -> dict[str, Any]:
    """The end of a trace for a program."""
    return {
        "count": summary.count,
        "seconds": seconds,
        "lost": lost,
        "operations": summary.to_json(),
        "by_process": [
            {
                "name": who.name or None,
                "process": who.process or None,
                "kind": who.kind or None,
                "count": one.count,
                "bytes": one.bytes,
                "latency_ns": Spread.of(one.latency).to_json(),
            }
            for who, one in summary.busiest(SUMMARY_ROWS)
        ],
        "by_file": [
            {"file": _escaped(path_of(file)), "inode": file.inode, "count": one.count, "bytes": one.bytes}
            for file, one in summary.busiest_files(SUMMARY_ROWS)
        ],
    }


def summary_lines(summary: IoSummary, seconds: float, lost: int, path_of: PathOf) -> Iterator[str]:
    """The end of a trace for people."""
    yield f"{summary.count:,} I/Os in {seconds:.2f} s{lost_words(lost)}"
    if not summary.count:
        return
    yield ""
    yield _ROW.format("", "", "I/Os", *(f"p{one:g}" for one in PERCENTILES), "max")
    for name, one in summary.operations.items():
        for at, part in enumerate(PARTS):
            spread = Spread.of(one.latencies[at])
            if spread.count:
                yield latency_row(name, part, spread)
    yield ""
    for name, one in summary.operations.items():
        if one.bytes:
            sequential = 100 * one.sequential / max(1, int(one.sizes.sum()))
            failed = f", {one.errors} FAILED" if one.errors else ""
            yield f"{name}: {format_bytes(one.bytes)}, {sequential:.0f} % sequential{failed}; sizes: {size_words(one.sizes)}"
    yield from _ranking(
        "by process", ((f"{who.words} {who.process or ''}".rstrip(), one) for who, one in summary.busiest(SUMMARY_ROWS))
    )
    yield from _ranking(
        "by file", ((file_name_words(file, path_of), one) for file, one in summary.busiest_files(SUMMARY_ROWS))
    )


def lost_words(lost: int) -> str:
    """An addition; empty when nothing was lost."""
    return f"; {lost:,} more were LOST, and are in no figure: they came faster than they were read" if lost else ""


def latency_row(operation: str, part: str, spread: Spread) -> str:
    return _ROW.format(
        operation, part, f"{spread.count:,}", *map(latency_words, spread.percentiles_ns), latency_words(spread.max_ns)
    )


def size_words(sizes: np.ndarray) -> str:
    """The sizes that make the most I/Os, in per cent; a size counts for all up to the next power of two."""
    total = int(sizes.sum())
    order = sorted(np.flatnonzero(sizes).tolist(), key=lambda at: (-int(sizes[at]), at))
    return ", ".join(f"{format_bytes(SECTOR_BYTES << at)} {100 * int(sizes[at]) / total:.0f} %" for at in order[:6])


def _ranking(heading: str, rows: Iterator[tuple[str, Any]]) -> Iterator[str]:
    for at, (name, one) in enumerate(rows):
        if not at:
            yield ""
            yield f"{heading:<48}{'I/Os':>12}{'size':>12}{'p99':>10}"
        slowest = latency_words(Spread.of(one.latency).percentiles_ns[2])
        yield f"{name:<48}{one.count:>12,}{format_bytes(one.bytes):>12}{slowest:>10}"
