"""What it costs a 4 KiB write that somebody watches who writes, from the kernel's own count of the programs' run time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydbt.core.seen.writers.sampling import SAMPLED_CHUNKS, ChunkSample
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from pydbt.device.written_places import written_places
from pydbt.kernel.spec import VolumeSpec
from pydbt.kernel.tracing.observed import counting_run_time
from pydbt.kernel.tracing.writers import MOUNTED, WriterPrograms
from tests.lab.disks import image, loop_over, make_filesystem, mounted
from tests.lab.figures.folders import memory_folder
from tests.lab.figures.report import Figure, figure
from tests.lab.patience import run
from tests.lab.tracking import spec_of, tracked

NAME = "writers-cost"
_VOLUME_BYTES = 512 * MIB
_FILE_BYTES = 256 * MIB
_BAR_NS = 150.0
# fio's words, by what is measured: each of these writes every 4 KiB of the file once.
_WORKS = {
    "direct, 4 KiB random": ("--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=16"),
    "buffered, 4 KiB random": ("--rw=randwrite", "--bs=4k", "--ioengine=psync", "--fsync=4096", "--end_fsync=1"),
    "buffered, 4 KiB random, sampled": (
        "--rw=randwrite",
        "--bs=4k",
        "--ioengine=psync",
        "--fsync=4096",
        "--end_fsync=1",
    ),
    "buffered, sequential, per 4 KiB": ("--rw=write", "--bs=128k", "--ioengine=psync", "--end_fsync=1"),
}


@contextlib.contextmanager
def _attached(volume: VolumeSpec, pin_dir: Path, places: dict[int, int]) -> Iterator[WriterPrograms]:
    with WriterPrograms.attach(volume, pin_dir) as programs:
        programs.set_places(places)
        yield programs


def _spent_ns(programs: WriterPrograms, file: Path, words: tuple[str, ...]) -> float:
    """Per 4 KiB that fio writes."""
    with counting_run_time():
        before = programs.run_time()
        run("fio", "--name=bench", f"--filename={file}", f"--size={_FILE_BYTES}", "--randrepeat=0", *words)
        return programs.run_time().since(before).run_time_ns / (_FILE_BYTES // 4096)


def measure(quick: bool) -> list[Figure]:
    """ns per 4 KiB, summed over the dirtying of pages and the submission of writes.

    The kernel's count includes what it costs to count. So the same programs are measured when they watch another disk, too: the
    second figure of each pair is the difference.
    """
    rounds = 2 if quick else 5
    spent: dict[str, list[float]] = {name: [] for name in _WORKS}
    net: dict[str, list[float]] = {name: [] for name in _WORKS}
    with memory_folder(_VOLUME_BYTES) as folder, loop_over(image(folder / "disk.img", _VOLUME_BYTES)) as disk:
        make_filesystem("ext4", disk, "-E", "lazy_itable_init=0,lazy_journal_init=0")
        with tracked(disk) as capture, mounted(disk, folder / "mounted") as place:
            places = {
                number: MOUNTED if is_mounted else 0
                for number, is_mounted in written_places(BlockDevice.identify(disk.path)).mounted.items()
            }
            volume = spec_of(disk)
            file = place / "file"
            run("fio", "--name=layout", f"--filename={file}", f"--size={_FILE_BYTES}", "--rw=write", "--bs=1m")
            elsewhere = replace(volume, start_sector=volume.size_sectors * 2)
            for _ in range(rounds):
                for name, words in _WORKS.items():
                    with _attached(elsewhere, capture.pin_dir, {}) as programs:
                        counting = _spent_ns(programs, file, words)
                    with _attached(volume, capture.pin_dir, places) as programs:
                        if name.endswith("sampled"):
                            programs.sample(ChunkSample(SAMPLED_CHUNKS, SAMPLED_CHUNKS))
                        whole = _spent_ns(programs, file, words)
                    spent[name].append(whole)
                    net[name].append(whole - counting)
    what = f"{_FILE_BYTES // MIB} MiB on ext4"
    return [
        *(
            figure(NAME, f"who writes, {name}", what, "ns/4 KiB", spent[name], bar=None, at_least=False)
            for name in _WORKS
        ),
        *(
            figure(
                NAME,
                f"who writes, {name}, without the counting",
                what,
                "ns/4 KiB",
                net[name],
                bar=_BAR_NS,
                at_least=False,
            )
            for name in _WORKS
        ),
    ]
