"""What the observing programs cost an I/O, from the kernel's own count of their run time, all of them during the same I/Os."""

from __future__ import annotations

import contextlib

from pydbt.core.seen.io_figures import SAMPLED_EVERY
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.tracing.block_io import BlockIo, EventOptions, IoDevice
from pydbt.kernel.tracing.observed import Observed, RunTime, counting_run_time
from tests.lab.disks import Device, image, loop_over
from tests.lab.figures.fio import random_writes
from tests.lab.figures.folders import memory_folder
from tests.lab.figures.report import Figure, figure

NAME = "tracing-cost"
_VOLUME_BYTES = 512 * MIB
_EMPTY = "tests.lab.figures.empty_program"
_ROWS = ("all timed", f"one in {SAMPLED_EVERY} timed", "with a record of each")


def measure(quick: bool) -> list[Figure]:
    """ns per I/O over all programs of a kind, as counted, and without the counting itself."""
    rounds, seconds = (3, 1.5) if quick else (7, 3.0)
    counted: dict[str, list[float]] = {row: [] for row in _ROWS}
    own: dict[str, list[float]] = {row: [] for row in _ROWS}
    empty: list[float] = []
    requests = 0
    with memory_folder(_VOLUME_BYTES) as folder, loop_over(image(folder / "disk.img", _VOLUME_BYTES, seed=1)) as disk:
        for _ in range(rounds):
            with contextlib.ExitStack() as stack:
                kinds = _attached(disk, stack)
                nothing = stack.enter_context(_nothing())
                stack.enter_context(counting_run_time())
                writes = random_writes(disk, seconds=seconds)
                spent = {row: programs.run_time() for row, programs in kinds.items()}
                per_run = _per_run(nothing.run_time())
            empty.append(per_run)
            requests += writes.requests
            for row, time in spent.items():
                counted[row].append(time.run_time_ns / writes.requests)
                own[row].append((time.run_time_ns - per_run * time.run_count) / writes.requests)
    measured = f"{requests:,} writes"
    rows = [figure(NAME, "an empty program", measured, "ns/run", empty)]
    for row in _ROWS:
        rows.append(figure(NAME, f"I/O figures, {row}, as counted", measured, "ns/I/O", counted[row]))
        rows.append(figure(NAME, f"I/O figures, {row}, without counting", measured, "ns/I/O", own[row]))
    return rows


def _attached(disk: Device, stack: contextlib.ExitStack) -> dict[str, BlockIo]:
    found = BlockDevice.identify(disk.path)
    device = IoDevice(found.disk_major, found.disk_minor, found.start_sector, found.size_sectors, found.bio_based)
    kinds = [stack.enter_context(BlockIo.attach(device, events)) for events in (None, None, EventOptions())]
    kinds[1].take_time_of(SAMPLED_EVERY)
    return dict(zip(_ROWS, kinds, strict=True))


def _nothing() -> Observed:
    return Observed.attach(_EMPTY, values={}, sizes={}, programs={"empty": "block_rq_issue"}, maps=())


def _per_run(time: RunTime) -> float:
    return time.run_time_ns / max(time.run_count, 1)
