"""What the writers feel: fio with and without capture, in turn."""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path

from pydbt.core.units import MIB
from pydbt.kernel.capture import CaptureOptions
from tests.lab.disks import image, loop_over
from tests.lab.figures.fio import drained, random_writes
from tests.lab.figures.folders import disk_folder, memory_folder
from tests.lab.figures.report import Figure, figure, ratios
from tests.lab.tracking import tracked

NAME = "write-overhead"
_VOLUME_BYTES = 1024 * MIB
_WATCHED = "payload, memory watched"
_KINDS = (
    ("addresses", CaptureOptions(data_ring_bytes=0), 0.97),
    ("payload", CaptureOptions(), 0.85),
    (_WATCHED, CaptureOptions(), 0.75),
)


def measure(quick: bool) -> list[Figure]:
    """fio 4 KiB random writes, direct, depth 32. The bar is for a disk; a disk in memory is the worst there is."""
    with disk_folder(_VOLUME_BYTES) as folder:
        figures = _measure(folder, quick, "disk", judged=True)
    with memory_folder(_VOLUME_BYTES) as folder:
        figures += _measure(folder, quick, "memory", judged=False)
    return figures


def _measure(folder: Path, quick: bool, place: str, judged: bool) -> list[Figure]:
    # A virtual disk's own speed changes by a fifth from one minute to the next: many short pairs.
    rounds, seconds = (3, 1.5) if quick else (9 if judged else 5, 2.5)
    direct = ("--direct-io=on",) if judged else ()
    captured: dict[str, list[float]] = {name: [] for name, _, _ in _KINDS}
    bare: dict[str, list[float]] = {name: [] for name, _, _ in _KINDS}
    with loop_over(image(folder / "disk.img", _VOLUME_BYTES, seed=1), *direct) as disk:
        random_writes(disk, seconds=seconds)  # the first run pays for what later ones find ready
        for turn in range(rounds):
            for name, options, _bar in _KINDS:
                for is_tracked in (turn % 2 == 0, turn % 2 == 1):
                    with contextlib.ExitStack() as stack:
                        capture = stack.enter_context(tracked(disk, options))
                        capture.watch_memory(name == _WATCHED)
                        if is_tracked:
                            stack.enter_context(drained(capture))
                        else:
                            stack.close()  # loaded only to let the disk rest equally long
                        speed = random_writes(disk, seconds=seconds).requests_per_s
                    (captured if is_tracked else bare)[name].append(speed)
    return [
        figure(
            NAME,
            f"4 KiB random writes, {name} ({place})",
            f"{statistics.median(captured[name]):,.0f} : {statistics.median(bare[name]):,.0f} writes/s",
            "x",
            ratios(captured[name], bare[name]),
            bar=bar if judged else None,
        )
        for name, _, bar in _KINDS
    ]
