"""Memory: the controller's own, and the maps of a TiB."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydbt.core.units import GIB, MIB
from pydbt.kernel import pins, syscalls
from tests.lab.cluster import cluster
from tests.lab.disks import Device, image, loop_over
from tests.lab.figures.fio import random_writes
from tests.lab.figures.folders import disk_folder
from tests.lab.figures.report import Figure, figure
from tests.lab.patience import until
from tests.lab.programs import Controller
from tests.lab.tracking import ADDRESSES, tracked

NAME = "memory"
_TIB = 1024 * GIB
_MAP_LINE = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s*(.*)$")
# Rings have the size they were asked to have, whatever the volume's.
_RINGS = frozenset({"headers", "bell", pins.DATA_MAP})
_LOOK_INTERVAL_S = 0.1


def measure(quick: bool) -> list[Figure]:
    """The maps of a sparse volume of 1 TiB, and controllers under load, in an outage and through a resync."""
    writes = 10_000 if quick else 100_000
    with disk_folder((512 if quick else 3072) * MIB) as folder:
        with (
            loop_over(image(folder / "source.img", _TIB)) as disk,
            tracked(disk, ADDRESSES) as capture,
        ):
            map_bytes = _map_bytes(capture.pin_dir)
            bitmap_bytes = 2 * capture.volume.level1_words * 8
        figures = [_controller(folder, size, writes) for size in (64 * GIB, _TIB)]
    maps = figure(
        NAME, "both bitmaps of 1 TiB in blocks of 4 KiB", f"{bitmap_bytes:,} bytes", "MiB", [bitmap_bytes / MIB],
        bar=64.0, at_least=False,
    )  # fmt: skip
    rest = map_bytes - bitmap_bytes
    others = figure(NAME, "... and the index over them, settings, counters", f"{rest:,} bytes", "MiB", [rest / MIB])
    return [*figures, maps, others]


def _controller(folder: Path, size_bytes: int, writes: int) -> Figure:
    """A volume of this size, with writes all over it."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        with loop_over(image(place / "source.img", size_bytes)) as disk:
            highest = _controller_bytes(place, disk, writes)
    what = f"controller of {size_bytes // GIB:,} GiB, without rings and maps"
    measured = f"PSS after {writes:,} scattered writes, twice (RSS {highest['rss'] / MIB:.0f} MiB)"
    return figure(NAME, what, measured, "MiB", [highest["pss"] / MIB], bar=150.0, at_least=False)


def _map_bytes(pin_dir: Path) -> int:
    """What the kernel keeps for the volume's maps, rings apart."""
    total = 0
    for name in (*pins.MAPS, "meta"):
        if name not in _RINGS:
            info = syscalls.map_info(syscalls.obj_get(pin_dir / name))
            total += info.value_bytes * info.max_entries
    return total


def _controller_bytes(folder: Path, disk: Device, writes: int) -> dict[str, int]:
    """The highest PSS and RSS of the primary's process, in bytes."""
    with cluster(folder, disk, plain=True, primary_options=("--assume-in-sync", "--ack-timeout", "2")) as both:
        both.start()
        source = both.primary
        with _highest(source) as highest:
            until(source.is_normal, "replication is on")
            random_writes(disk, count=writes)
            until(source.is_normal, "in sync after the load", 120)
            source.ask("wait")
            both.secondary.terminate()
            random_writes(disk, count=writes)
            until(lambda: source.status()["mode"] == "unsynchronized", "the outage is noticed")
            both.start_secondary()
            until(source.is_normal, "in sync after the outage", 300)
            source.ask("wait")
        return highest


@contextmanager
def _highest(controller: Controller) -> Iterator[dict[str, int]]:
    """Look at the process all the time, and keep the worst."""
    highest = {"pss": 0, "rss": 0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_INTERVAL_S):
            try:
                looked = own_bytes(controller.process.pid)
            except OSError:
                return  # it has ended
            for name, value in looked.items():
                highest[name] = max(highest[name], value)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()


def own_bytes(process: int) -> dict[str, int]:
    """PSS and RSS of a process without what it maps of BPF (rings and bitmaps), from /proc/PID/smaps."""
    totals = {"pss": 0, "rss": 0}
    counts = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if mapping := _MAP_LINE.match(line):
            counts = "bpf" not in mapping[1]
        elif counts and line.startswith(("Pss:", "Rss:")):
            totals[line[:3].lower()] += int(line.split()[1]) * 1024
    return totals
