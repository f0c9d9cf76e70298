"""``controller trace`` shows what was done, and calls unknown what it cannot know."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydbt.core.seen.io_names import PARTS
from pydbt.core.seen.latency import EDGES_NS, percentile_ns
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.tracing.block_io import BlockIo, IoDevice
from tests.lab.disks import Device, loop_device, make_filesystem, mounted, zram_device
from tests.lab.kernel_programs import program_names
from tests.lab.patience import run, until, wait_until
from tests.lab.programs import PROGRAM, ROOT, command
from tests.lab.rounds import short

WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
WAITS = "waiting for the programs to be attached"
HOSTILE = "\x1b[2J[red]\n\u202e"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Device]:
    with loop_device(tmp_path, 128 * MIB) as device:
        yield device


class Trace:
    """A trace in the background, whose lines are collected."""

    def __init__(self, *arguments: object) -> None:
        words = [*PROGRAM, "trace", *map(str, arguments)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[str, str]:
        """What it printed, and what it said but for what it waits for, which it tells where that takes seconds."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=60)
        return output, without_waits(errors)


def without_waits(errors: str) -> str:
    return "".join(line for line in errors.splitlines(keepends=True) if not line.startswith(WAITS))


@contextlib.contextmanager
def traced(device: Device, *options: object) -> Iterator[Trace]:
    """Attached, when the block begins."""
    before, mine = named_as_ours(), set[int]()
    trace = Trace(device, *options)
    try:
        until(lambda: trace.process.poll() is not None or of_process(trace.process.pid), "it is attached")
        assert trace.process.poll() is None, trace.process.communicate()
        mine = programs_of(trace.process.pid)
        assert mine and not mine & before
        yield trace
    finally:
        trace.process.kill()
        trace.process.wait()
    wait_until(lambda: not mine & named_as_ours(), "its programs are gone")


def of_process(pid: int) -> bool:
    """Whether a process holds links: its programs run from then on."""
    return any("bpf_link" in name for name, _ in descriptors_of(pid))


def programs_of(pid: int) -> set[int]:
    """Numbers of the programs that a process holds (fdinfo, proc_pid_fdinfo(5))."""
    texts = (
        Path(f"/proc/{pid}/fdinfo/{number}").read_text() for name, number in descriptors_of(pid) if "bpf-prog" in name
    )
    return {int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("prog_id:")}


def descriptors_of(pid: int) -> list[tuple[str, str]]:
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append((os.readlink(entry.path), entry.name))
    return found


def named_as_ours() -> set[int]:
    names = ("pydbt_request_i", "pydbt_request_c", "pydbt_bio_queue", "pydbt_bio_split", "pydbt_whole_bio")
    return {number for number, name in program_names().items() if name.startswith(names)}


def objects(output: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The I/Os, and the summary."""
    found = [json.loads(line) for line in output.splitlines()]
    assert "summary" in found[-1]
    return [one for one in found if "operation" in one], found[-1]["summary"]


def dd(target: object, count: int, *options: str) -> int:
    """Its process."""
    words = ["dd", "if=/dev/zero", f"of={target}", "bs=64k", f"count={count}", "status=none", *options]
    with subprocess.Popen(words) as process:
        pass
    assert process.returncode == 0
    return process.pid


def test_a_direct_write_is_shown_with_its_process_place_and_time(disk: Device) -> None:
    with traced(disk, "--json", "--only", "writes") as trace:
        pid = dd(disk, 20, "oflag=direct", "seek=16")
        ios, summary = objects(trace.end()[0])
    mine = [one for one in ios if one["process"] == pid]
    assert [one["offset_bytes"] for one in mine] == [65536 * (16 + at) for at in range(20)]
    for one in mine:
        assert (
            one["name"] == "dd" and one["length_bytes"] == 65536 and one["content"] == "direct" and one["file"] is None
        )
        assert one["device_ns"] > 0 and one["total_ns"] == one["queue_ns"] + one["device_ns"]
    assert summary["lost"] == 0 and summary["operations"]["write"]["bytes"] >= 20 * 65536
    assert summary["operations"]["read"]["count"] == 0, "--only writes"


@pytest.mark.parametrize("kind", short(1, "ext4", "xfs"))
def test_a_file_is_named_and_metadata_of_the_kernel_is_called_metadata(tmp_path: Path, kind: str) -> None:
    with loop_device(tmp_path, 320 * MIB) as disk:
        make_filesystem(kind, disk)
        with mounted(disk, tmp_path / "mnt") as folder, traced(disk, "--json", "--only", "writes") as trace:
            synced, later = folder / "synced", folder / f"later {HOSTILE}"
            pid = dd(synced, 20, "conv=fsync")
            dd(later, 20)
            os.sync()
            ios, summary = objects(trace.end()[0])
    of_synced = [one for one in ios if one["file"] == str(synced)]
    assert sum(one["length_bytes"] for one in of_synced) == 20 * 65536
    assert {one["process"] for one in of_synced} == {pid}
    of_later = [one for one in ios if one["file"] and "later" in one["file"]]
    assert sum(one["length_bytes"] for one in of_later) == 20 * 65536
    assert all(one["file"].isprintable() for one in of_later), "no escape of a file's name gets through"
    by_name = {one["file"]: one["bytes"] for one in summary["by_file"]}
    assert by_name[str(synced)] == 20 * 65536
    assert {one["content"] for one in ios} <= {"file", "metadata", "unknown"}
    assert [one for one in ios if one["kind"] == "journal" or one["content"] == "metadata"]


def test_names_of_processes_that_are_hostile_stay_text(disk: Device) -> None:
    script = (
        "import ctypes, os, sys\n"
        "ctypes.CDLL(None).prctl(15, sys.argv[2].encode(), 0, 0, 0)\n"
        "import mmap\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_DIRECT)\n"
        "os.pwrite(fd, mmap.mmap(-1, 4096), 0)\n"
    )
    with traced(disk, "--json") as trace:
        run(sys.executable, "-c", script, disk, HOSTILE)
        output, _ = trace.end()
    (one,) = [one for one in objects(output)[0] if one["operation"] == "write"]
    assert one["name"].startswith("\\x1b[2J[red]\\x0a")
    with traced(disk) as trace:
        run(sys.executable, "-c", script, disk, HOSTILE)
        output, errors = trace.end()
    assert "\\x1b[2J[red]\\x0a" in output and "\x1b" not in output
    assert all(line.isprintable() for line in output.splitlines()) and not errors


@pytest.mark.variant
def test_a_trace_shows_only_the_ios_that_pass_its_filters(disk: Device) -> None:
    with traced(disk, "--json", "--process", "dd") as by_name, traced(disk, "--json", "--min-latency", "100s") as slow:
        with traced(disk, "--json", "--process", os.getpid()) as by_number:
            dd(disk, 4, "oflag=direct")
            run("blkdiscard", "--offset", 0, "--length", MIB, disk)
            assert not objects(by_number.end()[0])[0]
        assert not objects(slow.end()[0])[0]
        assert {one["operation"] for one in objects(by_name.end()[0])[0]} <= {"write", "read"}


@pytest.mark.variant
def test_two_at_once_see_the_same(disk: Device) -> None:
    with traced(disk, "--json", "--only", "writes") as one, traced(disk, "--json", "--only", "writes") as other:
        dd(disk, 50, "oflag=direct")
        shown = [objects(each.end()[0])[0] for each in (one, other)]
    assert [io["offset_bytes"] for io in shown[0]] == [io["offset_bytes"] for io in shown[1]]
    assert len(shown[0]) == 50


def test_killed_it_leaves_nothing(disk: Device) -> None:
    with traced(disk, "--json") as trace:
        trace.process.kill()
        trace.process.wait()
        wait_until(lambda: not of_process(trace.process.pid), "no link is left")  # and traced() looks for programs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_any_signal_that_ends_it_ends_it_in_order(disk: Device, number: signal.Signals) -> None:
    with traced(disk, "--summary") as trace:
        dd(disk, 5, "oflag=direct")
        output, errors = trace.end(number)
        assert trace.process.returncode == 0 and not errors
    assert "by process" in output and "dd" in output


def test_on_a_terminal_it_is_a_screen_and_leaves_a_summary(disk: Device) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    words = [*PROGRAM, "trace", str(disk)]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=environment) as process:
        os.close(slave)
        shown = b""
        until(lambda: of_process(process.pid), "it is attached")
        pid = dd(disk, 30, "oflag=direct")
        while str(pid).encode() not in shown:
            shown += os.read(master, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # EIO: its end
            while more := os.read(master, 65536):
                shown += more
    os.close(master)
    assert process.returncode == 0
    screen, _, rest = shown.decode().partition("\x1b[?1049l")
    assert "\x1b[?1049h" in screen and "p99.9" in screen and "dd" in screen
    assert "by process" in rest and f"dd {pid}" in rest


@pytest.mark.variant
def test_records_that_came_too_fast_are_counted_as_lost(disk: Device) -> None:
    """The tracer is stopped for a moment: its ring has room for 682 I/Os."""
    with traced(disk, "--json", "--only", "writes", "--ring-size", "64K") as trace:
        trace.process.send_signal(signal.SIGSTOP)
        dd(disk, 1500, "oflag=direct", "iflag=fullblock")
        trace.process.send_signal(signal.SIGCONT)
        output, _ = trace.end()
    ios, summary = objects(output)
    assert summary["lost"] > 500 and summary["lost"] + len(ios) == 1500 == summary["lost"] + summary["count"]
    told = [json.loads(line)["lost"] for line in output.splitlines() if line.startswith('{"lost"')]
    assert sum(told) == summary["lost"]


@pytest.mark.variant
def test_a_device_without_requests(tmp_path: Path) -> None:
    with zram_device(64 * MIB) as device, traced(device, "--json", "--only", "writes") as trace:
        pid = dd(device, 7, "oflag=direct")
        ios, _ = objects(trace.end()[0])
    assert {one["process"] for one in ios} == {pid} and sum(one["length_bytes"] for one in ios) == 7 * 65536
    assert all(one["queue_ns"] is None and one["device_ns"] is None and one["total_ns"] > 0 for one in ios)


def test_a_recording_is_played_as_it_was_seen(disk: Device, tmp_path: Path) -> None:
    make_filesystem("ext4", disk)
    file = tmp_path / "trace.io"
    with mounted(disk, tmp_path / "mnt") as folder, traced(disk, "--json", "--record", file) as trace:
        dd(folder / "data", 20, "conv=fsync")
        seen, summary = objects(trace.end()[0])
    assert file.stat().st_mode & 0o777 == 0o600
    again, summary_again = objects(command("trace", "--replay", file, "--json").output)
    assert again == seen and summary_again["operations"] == summary["operations"]
    assert any(one["file"] == str(tmp_path / "mnt" / "data") for one in again)
    only = objects(command("trace", "--replay", file, "--json", "--process", "dd").output)[0]
    assert only == [one for one in seen if one["name"] == "dd"]
    file.write_bytes(file.read_bytes()[:-10])
    cut = command("trace", "--replay", file, "--json")
    assert cut.code == 7 and "cut off" in cut.errors
    assert [json.loads(line) for line in cut.output.splitlines()] == seen


@pytest.mark.variant
def test_a_recording_has_a_bound(disk: Device, tmp_path: Path) -> None:
    file = tmp_path / "trace.io"
    with traced(disk, "--summary", "--record", file, "--record-size", "4K") as trace:
        for _ in range(3):
            run("fio", "--name=x", f"--filename={disk}", "--rw=randwrite", "--bs=4k", "--direct=1", "--number_ios=9000")
        _, errors = trace.end()
    assert file.stat().st_size <= 4096 + 100 and "as large as --record-size allows" in errors
    played = command("trace", "--replay", file, "--summary")
    assert played.code == 0 and "reached its bound" in played.errors


@pytest.mark.variant
def test_fio_plays_the_log_again(disk: Device, tmp_path: Path) -> None:
    log = tmp_path / "fio.log"
    with traced(disk, "--summary", "--only", "writes", "--only", "flushes", "--fio", log) as trace:
        run(
            "fio", "--name=x", f"--filename={disk}", "--rw=randwrite", "--bssplit=4k/50:16k/50", "--direct=1", "--fsync=50",
            "--number_ios=500", "--randseed=7", "--verify=crc32c", "--do_verify=0", "--verify_state_save=0",
        )  # fmt: skip
        trace.end()
    with loop_device(tmp_path, 128 * MIB) as other:
        output = run(
            "fio", "--name=again", f"--read_iolog={log}", f"--replay_redirect={other}", "--direct=1", "--replay_no_stall=1",
            "--ioengine=psync", "--output-format=json",
        )  # fmt: skip
        made = json.loads(output[output.index("{") :])["jobs"][0]
        written = [int(line.split()[3]) for line in log.read_text().splitlines() if " write " in line]
        assert made["write"]["total_ios"] == len(written) == 500 and made["write"]["io_bytes"] == sum(written)
        assert (used_blocks(disk) == used_blocks(other)).all(), "what was written is written again, and nothing else"


def used_blocks(device: Device) -> np.ndarray:
    used: np.ndarray = device.contents().reshape(-1, 4096).any(axis=1)
    return used


def test_files_that_exist_are_not_overwritten(disk: Device, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("precious")
    for option in ("--record", "--fio"):
        command("trace", disk, option, file).refused(2, str(file), "exists already")
    assert file.read_text() == "precious"


def test_wrong_use_is_one_sentence(disk: Device, tmp_path: Path) -> None:
    command("trace").refused(2, "name the DEVICE")
    command("trace", tmp_path).refused(2, "not a block device")
    command("trace", disk, "--replay", tmp_path).refused(2, "and not both")
    command("trace", "--replay", tmp_path / "none").refused(2, "cannot be read")
    command("trace", "--replay", "/etc/passwd").refused(2, "no recording")
    command("trace", disk, "--ring-size", "100K").refused(2, "power of two")
    command("trace", disk, user=65534).refused(3, "needs root")
    assert command("trace", disk, "--min-latency", "5").code == 2
    record = tmp_path / "new"
    refused = command("trace", disk, "--record", record, prefix=WITHOUT_CAPABILITIES)
    replace(refused, errors=without_waits(refused.errors)).refused(3)
    assert not record.exists(), "nothing half-done is left"


def test_its_latencies_are_those_of_fio_and_of_the_kernels_own_statistics(disk: Device) -> None:
    """fio's completion latency has the way back to fio as well; the kernel sums whole times, in milliseconds."""
    found = BlockDevice.identify(disk.path)
    device = IoDevice(found.disk_major, found.disk_minor, found.start_sector, found.size_sectors, found.bio_based)
    folder = Path(f"/sys/block/{disk.path.name}")
    with BlockIo.attach(device) as watched:
        before = [int(one) for one in (folder / "stat").read_text().split()]
        output = run(
            "fio", "--name=x", f"--filename={disk}", "--rw=randrw", "--bs=16k", "--direct=1", "--ioengine=psync",
            "--number_ios=8000", "--norandommap", "--output-format=json",
        )  # fmt: skip
        after = [int(one) for one in (folder / "stat").read_text().split()]
        figures = watched.figures()
    job = json.loads(output[output.index("{") :])["jobs"][0]
    for operation, name, ticks in ((0, "read", 3), (1, "write", 7)):
        counts = figures[operation]["latency"]
        whole = counts[PARTS.index("total")]
        for percent, key in ((50.0, "50.000000"), (95.0, "95.000000"), (99.0, "99.000000")):
            seen, told = percentile_ns(whole, percent), job[name]["clat_ns"]["percentile"][key]
            assert seen is not None and seen <= 1.15 * told, (name, percent, seen, told)
        from_buckets = sum(middle * int(number) for middle, number in zip(middles(), whole, strict=True)) / 1e6
        by_kernel = after[ticks] - before[ticks]
        assert abs(from_buckets - by_kernel) <= 0.2 * by_kernel + 50, (name, from_buckets, by_kernel)


def middles() -> list[float]:
    edges = EDGES_NS.astype(float)
    return [float(one) for one in (edges[1:] + edges[:-1]) / 2]
