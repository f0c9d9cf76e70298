"""What the programs cost a 4 KiB write request, from the kernel's own count of their run time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydbt.core.units import MIB
from pydbt.kernel.capture import CaptureOptions
from tests.lab.disks import image, loop_over
from tests.lab.figures.fio import drained, random_writes
from tests.lab.figures.folders import memory_folder
from tests.lab.figures.report import Figure, figure
from tests.lab.tracking import tracked

NAME = "program-cost"
_SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")
_VOLUME_BYTES = 512 * MIB
_WATCHED = "payload, memory watched"
_KINDS = (
    ("addresses", CaptureOptions(data_ring_bytes=0), 250.0),
    ("payload", CaptureOptions(), 1200.0),
    (_WATCHED, CaptureOptions(), 2400.0),
)


@contextlib.contextmanager
def _kernel_counts_run_time() -> Iterator[None]:
    before = _SWITCH.read_text()
    _SWITCH.write_text("1\n")
    try:
        yield
    finally:
        _SWITCH.write_text(before)


def measure(quick: bool) -> list[Figure]:
    """ns a write request, summed over submission and completion, rings drained by another process."""
    rounds, seconds = (3, 1.5) if quick else (7, 3.0)
    cost: dict[str, list[float]] = {name: [] for name, _, _ in _KINDS}
    requests = 0
    with (
        memory_folder(_VOLUME_BYTES) as folder,
        loop_over(image(folder / "disk.img", _VOLUME_BYTES, seed=1)) as disk,
        _kernel_counts_run_time(),
    ):
        for _ in range(rounds):
            for name, options, _bar in _KINDS:
                with tracked(disk, options) as capture, drained(capture):
                    capture.watch_memory(name == _WATCHED)
                    before = capture.counters()
                    writes = random_writes(disk, seconds=seconds)
                    spent = capture.counters().run_time_ns - before.run_time_ns
                cost[name].append(spent / writes.requests)
                requests += writes.requests
    return [
        figure(
            NAME,
            f"programs, {name}",
            f"{requests // len(_KINDS):,} writes",
            "ns/write",
            cost[name],
            bar=bar,
            at_least=False,
        )
        for name, _, bar in _KINDS
    ]
