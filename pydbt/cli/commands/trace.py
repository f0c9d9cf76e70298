"""``controller trace``: who reads and writes which blocks and files of a device, and how long each I/O takes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from pathlib import Path

import click

from pydbt.cli.tracing.files import LOG_ENTRIES_MAX, FioLog, Recorder, require_new
from pydbt.cli.tracing.outputs import JsonLines, Lines, Output, Screen, SummaryAlone
from pydbt.cli.tracing.session import follow
from pydbt.cli.tracing.sources import LiveTrace, Recording
from pydbt.cli.tracing.waiting import told_while_waiting
from pydbt.cli.values import DURATION, LATENCY, PATH, SIZE
from pydbt.core.errors import MachineError, UsageError
from pydbt.core.printable import printable
from pydbt.core.seen.io_filter import IoFilter
from pydbt.core.seen.io_recording import TraceBegin
from pydbt.core.seen.io_words import PathOf
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.tracing.block_io import EventOptions

_PLURALS = {"reads": "read", "writes": "write", "flushes": "flush", "discards": "discard"}
_RECORD_BYTES = 256 * MIB
_ATTACHING = "waiting for the programs to be attached; the first time on this kernel they are compiled"
_RING_BYTES_MIN, _RING_BYTES_MAX = 1 << 16, 1 << 30


@click.command()
@click.argument("device", type=PATH, required=False)
@click.option("--only", type=click.Choice(list(_PLURALS)), multiple=True, help="Show only these; may be repeated.")
@click.option("--process", "processes", metavar="NAME|PID", multiple=True, help="Show only this one; may be repeated.")
@click.option("--min-latency", type=LATENCY, metavar="TIME", help="Show only I/Os that took longer, as in 5ms.")
@click.option("--duration", type=DURATION, metavar="S", help="End after S seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--summary", "summary_only", is_flag=True, help="Print the summary alone, at the end.")
@click.option("--record", type=PATH, metavar="FILE", help="Write a recording to a new FILE.")
@click.option(
    "--record-size",
    type=SIZE,
    metavar="SIZE",
    default=_RECORD_BYTES,
    help="Most bytes of a recording; 256M by default.",
)
@click.option("--fio", "fio_file", type=PATH, metavar="FILE", help="Write a new FILE for `fio --read_iolog`.")
@click.option("--replay", type=PATH, metavar="FILE", help="Read a recording in the place of DEVICE.")
@click.option(
    "--ring-size",
    type=SIZE,
    metavar="SIZE",
    default=4 * MIB,
    help="Memory for I/Os that wait to be read; 4M by default.",
)
def trace(
    device: Path | None,
    only: tuple[str, ...],
    processes: tuple[str, ...],
    min_latency: int | None,
    duration: float | None,
    as_json: bool,
    summary_only: bool,
    record: Path | None,
    record_size: int,
    fio_file: Path | None,
    replay: Path | None,
    ring_size: int,
) -> int:
    """Show each I/O of a device, with its process.

    Shows who reads and writes which blocks and files of DEVICE, and how long each I/O takes, until Ctrl-C; then it prints a
    summary. It needs no replication, and changes nothing. On a terminal it is a live screen, else a line per I/O. A name is
    that of the thread that submitted the I/O; threads of the kernel that write out pages of others are shown with (writeback).
    """
    wanted = IoFilter.of([_PLURALS[one] for one in only], processes, min_latency or 0)
    for path in filter(None, (record, fio_file)):
        require_new(path)  # before anything is loaded
    with contextlib.ExitStack() as stack:
        source: LiveTrace | Recording = _source(device, replay, wanted, ring_size)
        stack.enter_context(source)
        files: list[Recorder | FioLog] = []
        if record is not None:
            begin = dataclasses.replace(source.begin, filters=wanted.to_json())
            files.append(Recorder(record, begin, record_size, source.path_of))
            stack.callback(files[-1].abandon)
        if fio_file is not None:
            files.append(FioLog(fio_file, _one_word(source.begin.device)))
            stack.callback(files[-1].abandon)
        output = _output(source.begin, source.path_of, as_json, summary_only)
        stack.callback(output.close)
        follow(source, wanted, output, files, duration)
    _tell_ends(source, files)
    return 0


def _source(device: Path | None, replay: Path | None, wanted: IoFilter, ring_size: int) -> LiveTrace | Recording:
    if replay is not None:
        if device is not None:
            raise UsageError("name a DEVICE, or a recording with --replay, and not both")
        return Recording(replay)
    if device is None:
        raise UsageError("name the DEVICE to look at, or a recording with --replay FILE")
    if os.geteuid() != 0:
        raise MachineError("controller trace needs root, because it looks into the kernel: run it with sudo")
    if ring_size & (ring_size - 1) or not _RING_BYTES_MIN <= ring_size <= _RING_BYTES_MAX:
        raise UsageError(
            f"the ring's size {ring_size} is no power of two from {_RING_BYTES_MIN} to {_RING_BYTES_MAX} bytes"
        )
    found, options = BlockDevice.identify(device), EventOptions(ring_size, wanted.operations, wanted.least_ns)
    with told_while_waiting(_ATTACHING):
        return LiveTrace(found, options)


def _output(begin: TraceBegin, path_of: PathOf, as_json: bool, summary_only: bool) -> Output:
    if as_json:
        return JsonLines(begin, path_of, summary_only)
    if summary_only:
        return SummaryAlone(path_of)
    return Screen(begin, path_of) if sys.stdout.isatty() else Lines(begin, path_of)


def _one_word(device: str) -> str:
    """fio parts the words of a line at white space."""
    return device if printable(device) == device and " " not in device else "device"


def _tell_ends(source: LiveTrace | Recording, files: list[Recorder | FioLog]) -> None:
    """What a reader of the files would miss."""
    for file in files:
        if isinstance(file, Recorder) and file.full:
            click.echo("the recording ended before the trace: it is as large as --record-size allows", err=True)
        if isinstance(file, FioLog) and file.left_out:
            click.echo(
                f"the log for fio has the first {LOG_ENTRIES_MAX:,} I/Os: {file.left_out:,} are left out", err=True
            )
    if isinstance(source, Recording) and source.full:
        click.echo("the recording ended before its trace: it had reached its bound", err=True)
