"""Observing programs count what fio really did, need no capture programs, and are gone with whoever loaded them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pydbt.core.errors import MachineError
from pydbt.core.seen.io_figures import operations_report
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.tracing.block_io import BlockIo, EventOptions, IoDevice
from pydbt.kernel.tracing.observed import Observed, counting_run_time
from tests.lab.disks import Device, image, loop_device, loop_over, make_filesystem, mounted, partition_of, zram_device
from tests.lab.kernel_programs import program_names
from tests.lab.patience import run, wait_until

READ, WRITE, FLUSH, DISCARD = range(4)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Device]:
    with loop_device(tmp_path, 128 * MIB) as device:
        yield device


def io_device(device: Device) -> IoDevice:
    found = BlockDevice.identify(device.path)
    return IoDevice(found.disk_major, found.disk_minor, found.start_sector, found.size_sectors, found.bio_based)


def fio(device: object, rw: str, *options: str) -> dict[str, Any]:
    """One job of direct I/O; what fio says of it."""
    output = run(
        "fio", "--name=job", f"--filename={device}", f"--rw={rw}", "--direct=1", "--ioengine=libaio", "--randrepeat=0",
        "--output-format=json", *options,
    )  # fmt: skip
    job: dict[str, Any] = json.loads(output[output.index("{") :])["jobs"][0]
    return job


def test_reads_and_writes_are_counted_as_fio_made_them(disk: Device) -> None:
    with BlockIo.attach(io_device(disk)) as programs:
        job = fio(disk, "randrw", "--bs=4k", "--number_ios=3001", "--iodepth=8", "--norandommap")
        figures = programs.figures()
    for operation, name in ((READ, "read"), (WRITE, "write")):
        seen, made = figures[operation], job[name]
        # the kernel looks for partitions when somebody opens the disk: a few reads more
        assert made["total_ios"] <= seen["count"] <= made["total_ios"] + (100 if operation == READ else 0), name
        assert made["io_bytes"] <= seen["bytes"], name
        assert seen["latency"][1].sum() == seen["count"], "each I/O has a device time"
    assert figures[WRITE]["sizes"][3] == job["write"]["total_ios"]
    assert not figures["errors"].any()


def test_sizes_and_sequential_writes_are_told_from_random_ones(disk: Device) -> None:
    with BlockIo.attach(io_device(disk)) as programs:
        fio(disk, "write", "--bs=64k", "--size=16M", "--iodepth=1")
        after_sequential = operations_report(programs.figures(), 1.0)["write"]
        fio(disk, "randwrite", "--bs=8k", "--number_ios=1000", "--iodepth=4", "--norandommap")
        both = operations_report(programs.figures(), 1.0)["write"]
    assert after_sequential["sizes"] == [[65536, 256]]
    assert after_sequential["sequential"] >= 255 and after_sequential["random"] <= 1
    assert both["count"] == 1256 and both["random"] >= 900
    assert [8192, 1000] in both["sizes"]


def test_offsets_go_to_the_cell_of_the_device_that_they_lie_in(disk: Device) -> None:
    with BlockIo.attach(io_device(disk)) as programs:
        fio(disk, "write", "--bs=4k", "--offset=64M", "--size=1M")
        cells = programs.figures()[WRITE]["cells"]
    assert cells[64] == 2048 and cells.sum() == 2048, "of 128 MiB in 128 cells, the 65th"


def test_flushes_and_discards(disk: Device) -> None:
    with BlockIo.attach(io_device(disk)) as programs:
        job = fio(disk, "write", "--bs=4k", "--size=256k", "--fsync=4")
        run("blkdiscard", "--offset", 0, "--length", MIB, disk)
        figures = programs.figures()
    syncs = job["sync"]["total_ios"]
    assert syncs and figures[FLUSH]["latency"][2].sum() >= syncs, "each fsync waited for a flush"
    assert figures[FLUSH]["latency"][1].sum() == figures[FLUSH]["count"] > 0
    assert figures[DISCARD]["count"] == 1 and figures[DISCARD]["bytes"] == MIB


def test_a_partition_counts_its_own_sectors_alone(disk: Device) -> None:
    with (
        partition_of(disk, 1, 2048, 32 * 2048) as first,
        partition_of(disk, 2, 40 * 2048, 32 * 2048) as second,
        BlockIo.attach(io_device(disk)) as of_all,
        BlockIo.attach(io_device(second)) as programs,
    ):
        before = completed_writes(disk)
        fio(first, "write", "--bs=4k", "--size=1M")
        fio(second, "write", "--bs=4k", "--size=2M")
        fio(disk, "write", "--bs=4k", "--size=1M", f"--offset={44 * MIB}")
        made = 4 * MIB // 4096
        wait_until(lambda: completed_writes(disk) - before == made, "the kernel has counted all writes")
        write, hidden = programs.figures()[WRITE], made - int(of_all.figures()[WRITE]["count"])
    assert write["begun"] == 3 * MIB // 4096
    assert 0 <= hidden <= made // 100, "completions that the kernel showed to no program"
    assert 3 * MIB - hidden * 4096 <= write["bytes"] <= 3 * MIB


def completed_writes(disk: Device) -> int:
    """By the kernel's own count, which tells what wait_quiet() says of some kernels: a completion that no program sees."""
    return int((Path("/sys/class/block") / disk.path.name / "stat").read_text().split()[4])


def test_a_device_without_requests_has_the_whole_time_of_each_bio() -> None:
    with zram_device(64 * MIB) as device, BlockIo.attach(io_device(device)) as programs:
        job = fio(device, "randrw", "--bs=4k", "--number_ios=1003", "--norandommap")
        figures = programs.figures()
    assert figures[WRITE]["count"] == job["write"]["total_ios"]
    assert figures[WRITE]["latency"][2].sum() == figures[WRITE]["count"]
    assert not figures[WRITE]["latency"][:2].any(), "queue and device are not told apart there"


def test_all_are_counted_where_one_of_eight_is_timed(disk: Device) -> None:
    with BlockIo.attach(io_device(disk)) as programs:
        programs.take_time_of(8)
        job = fio(disk, "randwrite", "--bs=4k", "--number_ios=4000", "--iodepth=4", "--norandommap")
        write = programs.figures()[WRITE]
    assert write["count"] == job["write"]["total_ios"] == 4000
    timed = [int(part.sum()) for part in write["latency"]]
    assert timed[0] == timed[1] == timed[2], "both ends of a request tell the same"
    assert 375 <= timed[0] <= 625, "an eighth, but for six times the deviation of such a choice"


def test_no_time_begins_at_another_request_when_the_sample_changes_while_requests_are_under_way(tmp_path: Path) -> None:
    """A request that was timed may end untimed, and leaves its place to the next one of the same address."""
    rounds, depth = 6, 64
    with loop_device(tmp_path / "below", 256 * MIB) as below:
        make_filesystem("ext4", below)
        with mounted(below, tmp_path / "mounted") as folder, loop_over(image(folder / "disk.img", 64 * MIB)) as disk:
            os.sync()
            with BlockIo.attach(io_device(disk)) as programs:
                for _ in range(rounds):
                    for begun, ended in ((1, 8), (8, 1)):
                        programs.take_time_of(begun)
                        _ended_after(programs, folder, disk, depth, ended)
                figures = programs.figures()[WRITE]
    made = 2 * rounds * depth
    assert figures["count"] == made
    timed = int(figures["latency"][2].sum())
    assert made / 32 <= timed <= made / 3, "one in eight, whether it began or ended under the smaller sample"


def _ended_after(programs: BlockIo, folder: Path, disk: Device, depth: int, every: int) -> None:
    """Writes that are under way, below which a file system stands still, while the sample changes."""
    run("fsfreeze", "--freeze", folder)
    try:
        before = int(programs.figures()[WRITE]["begun"])
        words = ["--bs=4k", f"--iodepth={depth}", f"--number_ios={depth}", "--norandommap"]
        with ThreadPoolExecutor(1) as thread:
            job = thread.submit(fio, disk, "randwrite", *words)
            try:
                wait_until(
                    lambda: int(programs.figures()[WRITE]["begun"]) - before == depth, "all writes are under way"
                )
                programs.take_time_of(every)
            finally:
                run("fsfreeze", "--unfreeze", folder)
            job.result()
    except BaseException:
        subprocess.run(["fsfreeze", "--unfreeze", folder], check=False, capture_output=True)
        raise


def test_the_kernel_tells_what_the_programs_cost(disk: Device) -> None:
    with BlockIo.attach(io_device(disk)) as programs, counting_run_time():
        before = programs.run_time()
        fio(disk, "randwrite", "--bs=4k", "--number_ios=1000", "--norandommap")
        spent = programs.run_time().since(before)
    assert spent.run_count >= 2000 and spent.run_time_ns > 0 and spent.missed == 0


def test_two_at_once_see_the_same(disk: Device) -> None:
    with BlockIo.attach(io_device(disk)) as one, BlockIo.attach(io_device(disk)) as other:
        fio(disk, "write", "--bs=4k", "--size=1M")
        assert one.figures()[WRITE]["count"] == other.figures()[WRITE]["count"] == 256


LOADS_AND_WAITS = """
import sys, time
from pydbt.kernel.tracing.block_io import BlockIo, EventOptions, IoDevice
programs = BlockIo.attach(IoDevice({device.disk_major}, {device.disk_minor}, 0, {device.size_sectors}, False))
print("attached", *programs.observed.identifiers(), flush=True)
time.sleep(600)
"""


def test_nothing_is_left_when_its_process_is_killed(disk: Device) -> None:
    script = LOADS_AND_WAITS.format(device=io_device(disk))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word, *identifiers = process.stdout.readline().split()
        try:
            assert word == "attached" and len(identifiers) == 2
            assert {int(one) for one in identifiers} <= program_names().keys()
        finally:
            process.send_signal(signal.SIGKILL)
    gone = {int(one) for one in identifiers}
    wait_until(lambda: not gone & program_names().keys(), "the programs are gone")


def test_a_missing_right_is_named_and_nothing_is_attached(disk: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(MachineError, match="needs root"):
        BlockIo.attach(io_device(disk))


def test_a_program_that_the_kernel_refuses_is_a_sentence(disk: Device) -> None:
    values = dict.fromkeys(
        ("DISK_NUMBER", "DISK_MAJOR", "DISK_MINOR", "START_SECTOR", "END_SECTOR", "CELL_SHIFT", "WANTED", "LEAST_NS"), 0
    )
    with pytest.raises(MachineError, match="request_issue"):
        Observed.attach(
            "pydbt.kernel.tracing.block_io",
            values=values,
            sizes={},
            programs={"request_issue": "block_bio_complete"},
            maps=("figures",),
            macros={"EVENTS": 0},
        )


def test_a_kernel_whose_pages_are_not_understood_names_no_file_and_still_traces(
    disk: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a kernel is simulated by the macro that its types would give."""
    attach = Observed.attach

    def without_files(plan: str, **arguments: Any) -> Observed:
        return attach(plan, **{**arguments, "macros": {**arguments["macros"], "FILES": 0}})

    monkeypatch.setattr(Observed, "attach", without_files)
    with BlockIo.attach(io_device(disk), EventOptions()) as programs:
        fio(disk, "write", "--bs=4k", "--size=64k", "--direct=0", "--end_fsync=1")
        assert programs.events is not None
        records = programs.events.drain()
    writes = records[records["operation"] == WRITE]
    assert int(writes["bytes"].sum()) == 65536 and not writes["inode"].any()
