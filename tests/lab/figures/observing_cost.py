"""What it costs an I/O that somebody looks at who writes and at latencies, by the kernel's own count of run time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from pydbt.kernel.tracing.observed import Observed, RunTime, counting_run_time
from pydbt.kernel.tracing.writers import MOUNTED, WriterPrograms
from tests.lab.disks import Device, image, loop_over, make_filesystem, mounted
from tests.lab.figures.folders import memory_folder
from tests.lab.figures.report import Figure, figure
from tests.lab.patience import run
from tests.lab.tracking import spec_of, tracked

NAME = "observing-cost"
BAR_NS = 300.0
_EMPTY = "tests.lab.figures.empty_program"
_WRITES = OPERATIONS.index("write")
# fio's words, by what is measured: each of these writes every 4 KiB of the file once.
_WORKS = {
    "direct, 4 KiB random": ("--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=16"),
    "buffered, 4 KiB random": ("--rw=randwrite", "--bs=4k", "--ioengine=psync", "--fsync=4096", "--end_fsync=1"),
    "buffered, sequential": ("--rw=write", "--bs=128k", "--ioengine=psync", "--end_fsync=1"),
}
_KINDS = ("everything", "samples, as under load")


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
    """Per I/O, without the counting. ``io_bytes``: the mean size of an I/O."""

    io_ns: float
    writers_ns: float
    io_bytes: float


def measure(quick: bool) -> list[Figure]:
    """ns per I/O that the disk gets, over all programs of both views, all of them during the same I/Os.

    An empty program beside them shows what the counting costs a run; that is taken off. What the same programs do for other
    disks and file systems meanwhile is in the figures.
    """
    rounds, file_bytes = (3, 64 * MIB) if quick else (7, 256 * MIB)
    spent: dict[tuple[str, str], list[_Spent]] = {(work, kind): [] for work in _WORKS for kind in _KINDS}
    empty: list[float] = []
    with memory_folder(2 * file_bytes) as folder, loop_over(image(folder / "disk.img", 2 * file_bytes)) as disk:
        make_filesystem("ext4", disk, "-E", "lazy_itable_init=0,lazy_journal_init=0")
        with tracked(disk) as capture, mounted(disk, folder / "mounted") as place:
            file = place / "file"
            run("fio", "--name=layout", f"--filename={file}", f"--size={file_bytes}", "--rw=write", "--bs=1m")
            with _attached(disk, spec_of(disk), capture.pin_dir) as pairs, _nothing() as nothing, counting_run_time():
                for _ in range(rounds):
                    for work, words in _WORKS.items():
                        found, per_run = _spent(pairs, nothing, file, file_bytes, words)
                        empty.append(per_run)
                        for kind, one in found.items():
                            spent[work, kind].append(one)
    return [figure(NAME, "an empty program", f"{len(empty)} runs of fio", "ns/run", empty), *_rows(spent)]


def _spent(
    pairs: Mapping[str, _Pair], nothing: Observed, file: Path, file_bytes: int, words: tuple[str, ...]
) -> tuple[dict[str, _Spent], float]:
    before = {kind: (pair.run_times(), pair.writes()) for kind, pair in pairs.items()}
    empty_before = nothing.run_time()
    run("fio", "--name=bench", f"--filename={file}", f"--size={file_bytes}", "--randrepeat=0", *words)
    empty = nothing.run_time().since(empty_before)
    per_run = empty.run_time_ns / max(empty.run_count, 1)
    found = {}
    for kind, pair in pairs.items():
        times, writes = before[kind]
        count = max(pair.writes() - writes, 1)
        io_ns, writers_ns = (
            (now.since(then).run_time_ns - per_run * now.since(then).run_count) / count
            for now, then in zip(pair.run_times(), times, strict=True)
        )
        found[kind] = _Spent(io_ns, writers_ns, file_bytes / count)
    return found, per_run


def _rows(spent: Mapping[tuple[str, str], list[_Spent]]) -> Iterator[Figure]:
    for (work, kind), all_spent in spent.items():
        size = sorted(one.io_bytes for one in all_spent)[len(all_spent) // 2]
        what = f"I/Os of {size / 1024:.0f} KiB on ext4"
        for view, values in (
            ("latencies", [one.io_ns for one in all_spent]),
            ("who writes", [one.writers_ns for one in all_spent]),
        ):
            yield figure(NAME, f"{work}, {kind}: {view}", what, "ns/I/O", values)
        both = [one.io_ns + one.writers_ns for one in all_spent]
        bar = BAR_NS if kind == _KINDS[1] else None
        yield figure(NAME, f"{work}, {kind}: together", what, "ns/I/O", both, bar=bar, at_least=False)


@contextlib.contextmanager
def _attached(disk: Device, volume: VolumeSpec, pin_dir: Path) -> Iterator[dict[str, _Pair]]:
    found = BlockDevice.identify(disk.path)
    places = {number: MOUNTED if mounted else 0 for number, mounted in written_places(found).mounted.items()}
    with contextlib.ExitStack() as stack:
        pairs = {}
        for kind in _KINDS:
            io = stack.enter_context(BlockIo.attach(io_device(found)))
            writers = stack.enter_context(WriterPrograms.attach(volume, pin_dir))
            writers.set_places(places)
            pairs[kind] = _Pair(io, writers)
        pairs[_KINDS[1]].io.take_time_of(SAMPLED_EVERY)
        pairs[_KINDS[1]].writers.sample(ChunkSample(SAMPLED_CHUNKS, SAMPLED_CHUNKS))
        yield pairs


def _nothing() -> Observed:
    return Observed.attach(_EMPTY, values={}, sizes={}, programs={"empty": "block_bio_queue"}, maps=())
