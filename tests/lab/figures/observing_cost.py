"""What it costs an I/O that somebody looks at who writes and at latencies, by the kernel's own count of run time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydbt.controller.primary.io_watch import io_device
from pydbt.core.seen.io_figures import SAMPLED_EVERY
from pydbt.core.seen.io_names import OPERATIONS
from pydbt.core.seen.writers.sampling import SAMPLED_CHUNKS, ChunkSample
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from pydbt.device.written_places import written_places
from pydbt.kernel.spec import VolumeSpec
from pydbt.kernel.tracing.block_io import BlockIo
from pydbt.kernel.tracing.observed import RunTime, counting_run_time
from pydbt.kernel.tracing.writers import MOUNTED, WriterPrograms
from tests.lab.disks import Device, image, loop_over, make_filesystem, mounted
from tests.lab.figures.folders import memory_folder
from tests.lab.figures.report import Figure, figure
from tests.lab.patience import run
from tests.lab.tracking import spec_of, tracked

NAME = "observing-cost"
BAR_NS = 300.0
_WRITES = OPERATIONS.index("write")
# fio's words, by what is measured: each of these writes every 4 KiB of the file once.
_WORKS = {
    "direct, 4 KiB random": ("--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=16"),
    "buffered, 4 KiB random": ("--rw=randwrite", "--bs=4k", "--ioengine=psync", "--fsync=4096", "--end_fsync=1"),
    "buffered, sequential": ("--rw=write", "--bs=128k", "--ioengine=psync", "--end_fsync=1"),
}
_KINDS = ("everything", "samples, as under load")
_ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class _Pair:
    """The programs of both views, as a controller has them attached."""

    io: BlockIo
    writers: WriterPrograms

    def run_times(self) -> tuple[RunTime, RunTime]:
        return self.io.run_time(), self.writers.run_time()

    def writes(self) -> int:
        return int(self.io.figures()[_WRITES]["count"])


@dataclass(frozen=True, slots=True)
class _Spent:
    """Per 4 KiB that was written. ``io_bytes``: the mean size of an I/O."""

    io_ns: float
    writers_ns: float
    io_bytes: float


def measure(quick: bool) -> list[Figure]:
    """ns per 4 KiB that fio writes, over all programs of both views, all of them during the same I/Os.

    The same programs are attached once more for a place that nobody writes to. They see the same events, also those of other
    disks, and turn each away: what that takes is mostly the counting itself, and is taken off.
    """
    rounds, file_bytes = (3, 64 * MIB) if quick else (7, 256 * MIB)
    spent: dict[tuple[str, str], list[_Spent]] = {(work, kind): [] for work in _WORKS for kind in _KINDS}
    with memory_folder(2 * file_bytes) as folder, loop_over(image(folder / "disk.img", 2 * file_bytes)) as disk:
        make_filesystem("ext4", disk, "-E", "lazy_itable_init=0,lazy_journal_init=0")
        with tracked(disk) as capture, mounted(disk, folder / "mounted") as place:
            file = place / "file"
            run("fio", "--name=layout", f"--filename={file}", f"--size={file_bytes}", "--rw=write", "--bs=1m")
            with _attached(disk, spec_of(disk), capture.pin_dir) as pairs, counting_run_time():
                for _ in range(rounds):
                    for work, words in _WORKS.items():
                        for kind, one in _spent(pairs, file, file_bytes, words).items():
                            spent[work, kind].append(one)
    return list(_rows(spent))


def _spent(pairs: Mapping[str, _Pair], file: Path, file_bytes: int, words: tuple[str, ...]) -> dict[str, _Spent]:
    before = {kind: (pair.run_times(), pair.writes()) for kind, pair in pairs.items()}
    run("fio", "--name=bench", f"--filename={file}", f"--size={file_bytes}", "--randrepeat=0", *words)
    after = {kind: (pair.run_times(), pair.writes()) for kind, pair in pairs.items()}
    spent_ns = {
        kind: [now.since(then).run_time_ns for now, then in zip(after[kind][0], before[kind][0], strict=True)]
        for kind in pairs
    }
    found = {}
    for kind in _KINDS:
        io_ns, writers_ns = (
            (own - elsewhere) / (file_bytes / 4096)
            for own, elsewhere in zip(spent_ns[kind], spent_ns[_ELSEWHERE], strict=True)
        )
        found[kind] = _Spent(io_ns, writers_ns, file_bytes / max(after[kind][1] - before[kind][1], 1))
    return found


def _rows(spent: Mapping[tuple[str, str], list[_Spent]]) -> Iterator[Figure]:
    for (work, kind), all_spent in spent.items():
        size = sorted(one.io_bytes for one in all_spent)[len(all_spent) // 2]
        what = f"I/Os of {size / 1024:.0f} KiB on ext4"
        for view, values in (
            ("latencies", [one.io_ns for one in all_spent]),
            ("who writes", [one.writers_ns for one in all_spent]),
        ):
            yield figure(NAME, f"{work}, {kind}: {view}", what, "ns/4 KiB", values)
        both = [one.io_ns + one.writers_ns for one in all_spent]
        bar = BAR_NS if kind == _KINDS[1] else None
        yield figure(NAME, f"{work}, {kind}: together", what, "ns/4 KiB", both, bar=bar, at_least=False)


@contextlib.contextmanager
def _attached(disk: Device, volume: VolumeSpec, pin_dir: Path) -> Iterator[dict[str, _Pair]]:
    found = BlockDevice.identify(disk.path)
    places = {number: MOUNTED if mounted else 0 for number, mounted in written_places(found).mounted.items()}
    with contextlib.ExitStack() as stack:
        pairs, beyond = {}, 2 * volume.size_sectors
        for kind in (*_KINDS, _ELSEWHERE):
            device = io_device(found)
            if kind == _ELSEWHERE:
                device, volume, places = replace(device, start_sector=beyond), replace(volume, start_sector=beyond), {}
            io = stack.enter_context(BlockIo.attach(device))
            writers = stack.enter_context(WriterPrograms.attach(volume, pin_dir))
            writers.set_places(places)
            pairs[kind] = _Pair(io, writers)
        pairs[_KINDS[1]].io.take_time_of(SAMPLED_EVERY)
        pairs[_KINDS[1]].writers.sample(ChunkSample(SAMPLED_CHUNKS, SAMPLED_CHUNKS))
        yield pairs
