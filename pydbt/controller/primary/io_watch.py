"""The answer to ``io``: block I/O of the volume's device, counted by observing programs while somebody looks."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydbt.controller.primary.report import BlockIoReport
from pydbt.controller.primary.volume import Volume
from pydbt.controller.primary.watched import WhileWatched
from pydbt.core.calendar import in_utc
from pydbt.core.seen.io_figures import (
    IoSecond,
    difference,
    every_for,
    latency_heat,
    offset_heat,
    operations_report,
    summed,
)
from pydbt.core.seen.io_totals import IoTotals
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel import pins, syscalls
from pydbt.kernel.tracing.block_io import BlockIo, IoDevice
from pydbt.kernel.tracing.observed import RunTime, counting_run_time, run_time_of

_KEPT_INTERVALS = 60
# The kernel counts the run time of programs for one interval of these, since that costs every program on the machine.
_COST_EVERY = 10
_STATM = Path("/proc/self/statm")


def io_device(device: BlockDevice) -> IoDevice:
    return IoDevice(device.disk_major, device.disk_minor, device.start_sector, device.size_sectors, device.bio_based)


class IoWatch:
    """Of the volume's device. Nothing is attached before the first question, unless the option has it always.

    ``answer`` is called by threads of the control socket; ``note``, ``told`` and ``close`` by the loop's thread.
    """

    def __init__(self, volume: Volume) -> None:
        self._wanted = volume.options.block_io
        self._watched = WhileWatched("block-io", lambda: IoCollector(volume.device, volume.capture.pin_dir))

    def answer(self) -> dict[str, Any]:
        """The last report (docs/operating/tracing.md has its entries)."""
        if self._wanted == "off":
            return {
                "problem": 'block I/O is not watched: this volume runs with block-io = "off"',
                "starting": False,
            }
        return self._watched.answer()

    def note(self) -> None:
        """Once per second: attach, and keep attached, what is wanted without anybody's look."""
        if self._wanted == "always":
            self._watched.keep()

    def told(self) -> BlockIoReport:
        """For the status, and so for the metrics: asking for these attaches nothing."""
        if self._wanted == "off":
            return BlockIoReport("off")
        report = self._watched.last()
        problem = report.get("problem", "")
        if "totals" not in report:
            return BlockIoReport("starting" if report.get("running") and not problem else "idle", None, problem)
        return BlockIoReport("attached", report["since"], problem, report["timed_every"], report["totals"])

    def close(self) -> None:
        """Detach. Where the thread does not end, its programs end with this process."""
        self._watched.close()


class IoCollector:
    """Reads the counts once per interval, and keeps the last minute of them.

    ``pin_dir``: of the capture programs, whose cost is told as well.
    """

    def __init__(self, device: BlockDevice, pin_dir: Path) -> None:
        self._device = device
        with contextlib.ExitStack() as stack:
            self._programs = stack.enter_context(BlockIo.attach(io_device(device)))
            self._capture = _capture_programs(pin_dir, stack)
            self._counting = stack.enter_context(contextlib.ExitStack())
            self._last, self._last_at = self._programs.figures(), time.monotonic()
            self._cpu_s = _cpu_seconds()
            self._open = stack.pop_all()  # last: what fails before it leaves nothing attached
        self._every, self._totals = 1, IoTotals()
        self._since = in_utc(datetime.now(UTC))
        self._intervals: deque[IoSecond] = deque(maxlen=_KEPT_INTERVALS)
        self._cpu_part = 0.0
        self._until_cost = 1
        self._before_cost: tuple[RunTime, RunTime] | None = None
        self._cost: dict[str, float] = {}

    def close(self) -> None:
        self._open.close()

    def turn(self) -> None:
        """The counts of one more interval."""
        figures, now = self._programs.figures(), time.monotonic()
        interval = IoSecond(time.time(), now - self._last_at, difference(figures, self._last))
        self._intervals.append(interval)
        self._totals.add(interval.figures, self._every)
        cpu_s = _cpu_seconds()
        self._cpu_part = (cpu_s - self._cpu_s) / max(interval.seconds, 1e-6)
        self._last, self._last_at, self._cpu_s = figures, now, cpu_s
        count = int(interval.figures["count"].sum())
        self._measure_cost(count)
        every = every_for(count / max(interval.seconds, 1e-6), self._every)
        if every != self._every:
            self._programs.take_time_of(every)
            self._every = every

    def _measure_cost(self, count: int) -> None:
        if self._before_cost is not None:
            spent, captured = self._programs.run_time(), run_time_of(self._capture)
            self._counting.close()
            before, captured_before = self._before_cost
            self._before_cost = None
            if count:
                self._cost = {
                    "observing_ns_per_io": spent.since(before).run_time_ns / count,
                    "capture_ns_per_io": captured.since(captured_before).run_time_ns / count,
                }
        self._until_cost -= 1
        if self._until_cost <= 0:
            self._until_cost = _COST_EVERY
            self._counting.enter_context(counting_run_time())
            self._before_cost = self._programs.run_time(), run_time_of(self._capture)

    def report(self) -> dict[str, Any]:
        """The answer (docs/operating/tracing.md has its entries)."""
        device, intervals = self._device, list(self._intervals)
        last = intervals[-1]
        minute = summed([one.figures for one in intervals])
        seconds = sum(one.seconds for one in intervals)
        return {
            "device": device.path,
            "moment": last.ended,
            "interval_seconds": last.seconds,
            "timed_every": self._every,
            "since": self._since,
            "totals": self._totals.operations(),
            "in_requests": not device.bio_based,
            "missed": self._programs.run_time().missed,
            "now": operations_report(last.figures, last.seconds),
            "minute": {"seconds": seconds, **operations_report(minute, seconds)},
            "moments": [one.ended for one in intervals],
            "latency_heat": latency_heat(intervals),
            "offset_heat": offset_heat(intervals, device.size_sectors),
            "cost": {
                **self._cost,
                "controller_cpu_percent": 100 * self._cpu_part,
                "controller_memory_bytes": _memory_bytes(),
            },
        }


def _capture_programs(pin_dir: Path, stack: contextlib.ExitStack) -> Sequence[int]:
    """Descriptors of the capture programs, for their cost alone; none when they are being replaced just now."""
    found = []
    with contextlib.suppress(OSError):
        for name in (*pins.PROGRAMS, *pins.BESIDE_SUBMIT):
            found.append(syscalls.obj_get(pin_dir / name))
            stack.callback(os.close, found[-1])
    return found


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()
