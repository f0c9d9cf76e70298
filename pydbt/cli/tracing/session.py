"""One trace, from its first record to its summary."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

from pydbt.cli.tracing.files import FioLog, Recorder
from pydbt.cli.tracing.outputs import Output
from pydbt.cli.tracing.sources import LiveTrace, Recording
from pydbt.core.seen.io_filter import IoFilter
from pydbt.core.seen.io_summary import IoSummary

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def follow(
    source: LiveTrace | Recording,
    wanted: IoFilter,
    output: Output,
    files: list[Recorder | FioLog],
    duration_s: float | None,
) -> None:
    """Until its end, ``duration_s``, or a signal; each of these is an ordinary end. Raises PydbtError."""
    summary, lost = IoSummary(), 0
    began, first_ns, last_ns = time.monotonic(), 0, 0
    with _stopped_by_signals(source):
        for batch in source.batches(duration_s):
            lost = batch.lost
            if len(batch.records):
                first_ns = first_ns or int(batch.records["time_ns"][0])
                last_ns = int(batch.records["time_ns"][-1])
            records = wanted.chosen(batch.records)
            summary.add(records)
            for file in files:
                file.add(records)
            output.show(records, lost)
    for file in files:
        file.end(lost)
    recorded_s = max(0, last_ns - first_ns) / 1e9
    output.end(summary, recorded_s if isinstance(source, Recording) else time.monotonic() - began, lost)


@contextlib.contextmanager
def _stopped_by_signals(source: LiveTrace | Recording) -> Iterator[None]:
    """The first signal ends the trace in order. A second one ends this program as usual, wherever it is."""
    previous = {number: signal.getsignal(number) for number in _ENDING}

    def stop(number: int, frame: FrameType | None) -> None:
        source.stop()
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in _ENDING:
        if previous[number] is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
