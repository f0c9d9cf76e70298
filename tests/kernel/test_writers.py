"""The writers are told by the bytes that were really written: by the kernel's programs, on file systems of a loop device."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pydbt.core.seen.writers.answer import TEXT_MAX, views
from pydbt.core.seen.writers.reading import File, Kind, Names
from pydbt.core.seen.writers.sampling import SAMPLED_CHUNKS, ChunkSample
from pydbt.core.seen.writers.sums import WriterSums
from pydbt.core.units import MIB, SECTOR_BYTES
from pydbt.device.file_handles import group_mount, path_of_file, path_of_group
from pydbt.device.sysfs import BlockDevice
from pydbt.device.written_places import written_places
from pydbt.kernel import syscalls
from pydbt.kernel.capture import Capture
from pydbt.kernel.tracing import writers as module
from pydbt.kernel.tracing.writers import MOUNTED, WriterPrograms
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.patience import run, wait_until
from tests.lab.tracking import spec_of, tracked, wait_quiet

SIZE = 512 * MIB
_PROGRAM_BY_ID = 13  # a command of bpf(2)
_BETWEEN_BYTES = 64 * 1024
"""The file system may write by itself between the two looks at the beginning, and between those at the end."""
QUIET = {"ext4": ("-E", "lazy_itable_init=0,lazy_journal_init=0"), "xfs": ()}


@dataclass
class Watched:
    """A mounted volume whose writers are watched."""

    device: Device
    folder: Path
    capture: Capture
    programs: WriterPrograms
    sums: WriterSums = field(default_factory=WriterSums)
    disk_bytes_before: int = 0

    def __post_init__(self) -> None:
        self.disk_bytes_before = self.disk_bytes()

    def disk_bytes(self) -> int:
        """Written to the device and discarded since the boot, as its driver's own statistics tell."""
        figures = Path(f"/sys/class/block/{Path(self.device.path).name}/stat").read_text().split()
        return (int(figures[6]) + int(figures[13])) * SECTOR_BYTES

    def written(self, *processes: int) -> tuple[int, int]:
        """Bytes dirtied and written by these processes."""
        tallies = [tally for one, tally in self.sums.by_process.entries() if getattr(one, "process", 0) in processes]
        return sum(one.dirtied for one in tallies), sum(one.written for one in tallies)

    def of(self, kind: Kind) -> int:
        return sum(tally.written for one, tally in self.sums.by_process.entries() if one is kind)

    def of_file(self, path: Path) -> int:
        inode = path.stat().st_ino
        return sum(
            tally.written for one, tally in self.sums.by_file.entries() if isinstance(one, File) and one.inode == inode
        )

    def look(self) -> None:
        """After everything was written out, and completed: three readings, of which the last finds nothing new."""
        os.sync()
        wait_quiet(self.capture)
        for _ in range(3):
            self.sums.take(self.programs.read(), 1.0, out_of_normal=False)

    def check_sums(self) -> dict[str, Any]:
        answer = views(self.sums, Names())
        for view in ("processes", "groups", "files"):
            assert sum(row["written_bytes"] for row in answer[view]) == answer["counted_bytes"], view
        assert answer["excess_bytes"] == 0 and answer["counted_bytes"] == answer["captured_bytes"]
        seen_by_disk = self.disk_bytes() - self.disk_bytes_before
        assert abs(seen_by_disk - answer["counted_bytes"]) <= _BETWEEN_BYTES, (seen_by_disk, answer)
        return answer


@contextlib.contextmanager
def watched(folder: Path, kind: str) -> Iterator[Watched]:
    with loop_device(folder, SIZE) as device:
        make_filesystem(kind, device, *QUIET[kind])
        with tracked(device) as capture, mounted(device, folder / "mounted") as place:
            os.sync()
            wait_quiet(capture)
            with WriterPrograms.attach(spec_of(device), capture.pin_dir) as programs:
                programs.set_places(flags_of(device))
                yield Watched(device, place, capture, programs)


def flags_of(device: Device) -> dict[int, int]:
    places = written_places(BlockDevice.identify(device.path))
    return {number: MOUNTED if mounted else 0 for number, mounted in places.mounted.items()}


def started(*words: object, **settings: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings
    )


def done(*words: object, **settings: Any) -> int:
    """The number of a process that did this, and has ended well."""
    process = started(*words, **settings)
    assert process.wait(120) == 0, words
    return process.pid


def within(found: int, truth: int, part: float) -> bool:
    return abs(found - truth) <= part * truth


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_direct_writes_are_told_within_2_percent_and_buffered_ones_within_10(tmp_path: Path, kind: str) -> None:
    with watched(tmp_path, kind) as volume:
        direct, buffered = volume.folder / "direct", volume.folder / "buffered"
        by_direct = done("dd", "if=/dev/zero", f"of={direct}", "bs=64k", "count=480", "oflag=direct")
        by_buffered = done("dd", "if=/dev/zero", f"of={buffered}", "bs=1M", "count=37", "conv=fsync")
        volume.look()
        answer = volume.check_sums()
        assert within(volume.written(by_direct)[1], 30 * MIB, 0.02), answer
        assert within(volume.written(by_buffered)[1], 37 * MIB, 0.10), answer
        assert within(volume.written(by_buffered)[0], 37 * MIB, 0.10), "dirtied"
        assert volume.written(by_direct)[0] == 0, "what goes past the page cache dirties nothing"
        assert volume.of_file(direct) == 30 * MIB and within(volume.of_file(buffered), 37 * MIB, 0.10)
        assert volume.of(Kind.UNKNOWN) <= answer["captured_bytes"] // 10
        assert volume.of(Kind.JOURNAL) > 0


@pytest.mark.parametrize("engine", ["libaio", "psync", "mmap"])
def test_random_writes_of_fio_are_its_own_on_ext4(tmp_path: Path, engine: str) -> None:
    with watched(tmp_path, "ext4") as volume:
        words = ["--direct=1", "--iodepth=16"] if engine == "libaio" else ["--end_fsync=1"]
        file = volume.folder / "random"
        fio = ["fio", "--name=w", f"--filename={file}", "--rw=randwrite", "--bs=4k", "--size=24m", "--thread"]
        process = done(*fio, f"--ioengine={engine}", *words)
        volume.look()
        answer = volume.check_sums()
        truth = (48 if engine == "mmap" else 24) * MIB  # a file that is to be mapped is written once before
        assert within(volume.written(process)[1], truth, 0.02 if engine == "libaio" else 0.1), answer
        assert within(volume.of_file(file), truth, 0.1), answer
        assert volume.of(Kind.UNKNOWN) <= answer["captured_bytes"] // 10, answer


def test_under_load_a_sample_of_the_chunks_tells_the_same(tmp_path: Path) -> None:
    with watched(tmp_path, "ext4") as volume:
        volume.programs.sample(ChunkSample(SAMPLED_CHUNKS, SAMPLED_CHUNKS))
        files = [volume.folder / name for name in ("first", "second")]
        words = ["fio", "--name=w", "--rw=randwrite", "--bs=4k", "--thread", "--ioengine=psync", "--end_fsync=1"]
        first, second = (
            done(*words, f"--filename={file}", f"--size={size}m") for file, size in zip(files, (48, 96), strict=True)
        )
        volume.look()
        answer = volume.check_sums()
        assert within(volume.written(first)[1], 48 * MIB, 0.1), answer
        assert within(volume.written(second)[1], 96 * MIB, 0.1), answer
        assert within(volume.written(first)[0], 48 * MIB, 0.05), "dirtied is counted in full"
        assert within(volume.of_file(files[1]), 96 * MIB, 0.1), answer
        assert volume.of(Kind.UNKNOWN) + volume.sums.unseen_bytes <= answer["captured_bytes"] // 10
        assert volume.programs.read().looks > 1000


def test_tar_is_told_with_its_files_on_xfs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(300):
        (source / f"file-{number}").write_bytes(os.urandom(40_000 + number))
    run("tar", "-C", source, "-cf", tmp_path / "all.tar", ".")
    with watched(tmp_path / "volume", "xfs") as volume:
        process = done("tar", "-C", volume.folder, "-xf", tmp_path / "all.tar")
        volume.look()
        answer = volume.check_sums()
        pages = 300 * (40_000 // 4096 + 1) * 4096
        assert within(volume.written(process)[1], pages, 0.1), answer
        assert len(answer["files"]) == 51 and answer["files"][-1]["kind"] == "others"


def test_more_files_than_the_table_has_rows_for_still_count_for_their_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SIZES", {"wr_rows": 64})
    with watched(tmp_path, "ext4") as volume:
        script = "import sys\nfor n in range(600): open(f'{sys.argv[1]}/f{n}', 'wb').write(bytes(20_000))"
        process = done(sys.executable, "-c", script, volume.folder)
        volume.look()
        answer = volume.check_sums()
        assert answer["lost"]["rows"] > 300
        assert volume.written(process) == (600 * 20_480, 600 * 20_480), answer
        assert volume.of(Kind.UNKNOWN) + volume.sums.unseen_bytes <= answer["captured_bytes"] // 50
        unknown = sum(row["written_bytes"] for row in answer["files"] if row["kind"] == "unknown")
        assert unknown > 400 * 20_480, "whose bytes they are is known, and which file's is not"


@contextlib.contextmanager
def control_group(name: str) -> Iterator[Path]:
    mount = group_mount()
    assert mount is not None, "control groups of version 2 are mounted nowhere"
    group = Path(mount) / f"pydbt-test-{os.getpid()}-{name}"
    group.mkdir()
    try:
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
        group.rmdir()


def test_two_users_in_two_control_groups_are_told_apart(tmp_path: Path) -> None:
    with watched(tmp_path, "ext4") as volume, control_group("a") as first, control_group("b") as second:
        sizes = {first: (6, 1001), second: (11, 1002)}
        pids = {}
        for group, (megabytes, user) in sizes.items():
            dd = f"dd if=/dev/zero bs=1M count={megabytes} conv=fsync > {volume.folder}/{user}"
            enter = f"echo $$ > {group}/cgroup.procs"
            pids[group] = done("sh", "-c", f"{enter}; exec setpriv --reuid {user} --clear-groups {dd}")
        volume.look()
        volume.check_sums()
        mount = group_mount()
        assert mount is not None
        found = {
            path_of_group(mount, number): tally.written
            for number, tally in volume.sums.by_group.entries()
            if type(number) is int
        }
        users = {writer.process: writer.user for writer in volume.sums.writers.values()}
        for group, (megabytes, user) in sizes.items():
            assert within(found[b"/" + group.name.encode()], megabytes * MIB, 0.1), found
            assert within(volume.written(pids[group])[1], megabytes * MIB, 0.1)
            assert users[pids[group]] == user


def test_pages_that_were_dirtied_before_attaching_are_a_row_of_their_own(tmp_path: Path) -> None:
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device, *QUIET["ext4"])
        # Its log is committed each five seconds otherwise, and has the pages written, perhaps before all is attached.
        seldom = mounted(device, tmp_path / "mounted", "-o", "commit=300")
        with tracked(device) as capture, seldom as place:
            os.sync()
            file = place / "early"
            with file.open("wb") as early:
                early.write(bytes(8 * MIB))
                early.flush()
                time.sleep(0.02)  # the kernel counts in jiffies
                with WriterPrograms.attach(spec_of(device), capture.pin_dir) as programs:
                    programs.set_places(flags_of(device))
                    volume = Watched(device, place, capture, programs)
                    os.fsync(early.fileno())
                    volume.look()
                    answer = volume.check_sums()
            assert within(volume.of(Kind.BEFORE), 8 * MIB, 0.1), answer
            assert within(volume.of_file(file), 8 * MIB, 0.1)
            assert volume.written(os.getpid())[1] == 0


def test_nothing_is_counted_before_the_places_of_the_volume_are_known(tmp_path: Path) -> None:
    """Its files would be taken for none, and their writers' bytes would stay there in the sums."""
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device, *QUIET["ext4"])
        with tracked(device) as capture, mounted(device, tmp_path / "mounted") as place:
            with WriterPrograms.attach(spec_of(device), capture.pin_dir) as programs:
                words = ("dd", "if=/dev/zero", "bs=64k", "oflag=direct")
                early = done(*words, f"of={place / 'early'}", "count=64")
                os.sync()
                wait_quiet(capture)
                programs.set_places(flags_of(device))
                volume = Watched(device, place, capture, programs)
                late = done(*words, f"of={place / 'late'}", "count=32")
                volume.look()
                answer = volume.check_sums()
            assert volume.written(early) == (0, 0)
            assert volume.written(late)[1] == volume.of_file(place / "late") == 2 * MIB
            assert "no_file" not in {row["kind"] for row in answer["files"]}, answer
            assert answer["captured_bytes"] < 4 * MIB


def test_under_load_direct_writes_are_of_their_process_and_shared_out_among_its_files(tmp_path: Path) -> None:
    with watched(tmp_path, "ext4") as volume:
        volume.programs.sample(ChunkSample(SAMPLED_CHUNKS, SAMPLED_CHUNKS))
        first, second, alone = (volume.folder / name for name in ("first", "second", "alone"))
        words = ["fio", "--name=w", "--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--thread"]
        one = started(*words, f"--filename={first}:{second}", "--size=16m", "--iodepth=4")
        other = started(*words, f"--filename={alone}", "--size=8m", "--iodepth=4")
        assert one.wait(120) == other.wait(120) == 0
        volume.look()
        answer = volume.check_sums()
        assert volume.written(one.pid)[1] == 16 * MIB and volume.written(other.pid)[1] == 8 * MIB, answer
        assert volume.of_file(alone) == 8 * MIB, "another process's writes are never of its file"
        assert within(volume.of_file(first), 8 * MIB, 0.25) and within(volume.of_file(second), 8 * MIB, 0.25), answer


def test_pages_of_a_mapped_file_are_written_by_the_process_that_dirtied_them(tmp_path: Path) -> None:
    with watched(tmp_path, "xfs") as volume:
        file = volume.folder / "mapped"
        file.write_bytes(bytes(4 * MIB))
        os.sync()
        volume.look()
        before = volume.written(os.getpid())[1]
        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 4 * MIB) as memory:
            for offset in range(0, 4 * MIB, 4096):
                memory[offset] = 1
            memory.flush()
        volume.look()
        volume.check_sums()
        assert within(volume.written(os.getpid())[1] - before, 4 * MIB, 0.1)


def test_discards_and_writes_of_the_device_itself_are_of_their_process_and_of_no_file(tmp_path: Path) -> None:
    with (
        loop_device(tmp_path, SIZE) as device,
        tracked(device) as capture,
        WriterPrograms.attach(spec_of(device), capture.pin_dir) as programs,
    ):
        programs.set_places(flags_of(device))
        volume = Watched(device, tmp_path, capture, programs)
        discarded = done("blkdiscard", "--offset", MIB, "--length", 3 * MIB, device)
        direct = done("dd", "if=/dev/zero", f"of={device}", "bs=1M", "count=5", "oflag=direct")
        buffered = done("dd", "if=/dev/zero", f"of={device}", "bs=1M", "count=7", "conv=fsync,notrunc")
        volume.look()
        answer = volume.check_sums()
        assert volume.written(discarded)[1] == 3 * MIB
        assert volume.written(direct)[1] == 5 * MIB
        assert volume.written(buffered) == (7 * MIB, 7 * MIB)
        rows = {row["kind"]: row["written_bytes"] for row in answer["files"]}
        assert rows == {"no_file": 8 * MIB, "device": 7 * MIB}


def test_writes_to_another_device_are_nobodys(tmp_path: Path) -> None:
    with watched(tmp_path, "ext4") as volume, loop_device(tmp_path / "other", 64 * MIB) as other:
        done("dd", "if=/dev/zero", f"of={other}", "bs=1M", "count=20", "conv=fsync")
        volume.look()
        assert not [
            one for one, tally in volume.sums.by_process.entries() if tally.written > MIB or tally.dirtied > MIB
        ]


def test_hostile_names_of_processes_files_and_control_groups_reach_nobody(tmp_path: Path) -> None:
    hostile = "\x1b[2J<img src=x onerror=x>\u202e\udcff"
    with watched(tmp_path, "ext4") as volume, control_group(hostile) as group:
        file = volume.folder
        while len(os.fsencode(file)) < 3700:
            file = file / ("\x1b[2J<b>\n\udcff" + "x" * 200)
        file.parent.mkdir(parents=True)
        script = (
            "import os,sys;open(sys.argv[2]+'/cgroup.procs','w').write(str(os.getpid()));"
            "open('/proc/self/comm','wb').write(b'\\x1b[31m<i>\\xff');"
            "f=os.open(sys.argv[1],os.O_CREAT|os.O_WRONLY);os.write(f,bytes(1<<20));os.fsync(f)"
        )
        process = done(sys.executable, "-c", script, os.fsdecode(file), group)
        volume.look()
        names = {writer.process: writer.name for writer in volume.sums.writers.values()}
        assert names[process] == b"\x1b[31m<i>\xff"
        answer = views(volume.sums, names_of(volume))
        rows = [row for view in ("processes", "groups", "files") for row in answer[view]]
        for text in (value for row in rows for value in row.values() if isinstance(value, str)):
            assert text.isprintable() and len(text) <= TEXT_MAX + 200
            text.encode()
        assert any("onerror" in row["name"] for row in answer["groups"]), "it was found"
        (path,) = (row["path"] for row in answer["files"] if row["kind"] == "file" and "x" * 200 in (row["path"] or ""))
        assert TEXT_MAX - 1 <= len(path) <= TEXT_MAX, "its middle is left out"


def names_of(volume: Watched) -> Names:
    """As the controller finds them."""
    mount, points = group_mount(), written_places(BlockDevice.identify(volume.device.path)).points
    assert mount is not None
    groups = {
        number: path_of_group(mount, number) for number, _ in volume.sums.by_group.entries() if type(number) is int
    }
    files = {
        file: path_of_file(points[file.device], file.inode, file.generation)
        for file, _ in volume.sums.by_file.entries()
        if isinstance(file, File) and file.inode
    }
    return Names(
        {number: path for number, path in groups.items() if path is not None},
        {file: path for file, path in files.items() if path is not None},
    )


def test_programs_are_detached_with_their_process_and_capture_goes_on(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, tracked(device) as capture:
        script = (
            "import sys;from pathlib import Path;from pydbt.kernel.tracing.writers import WriterPrograms;"
            "from pydbt.kernel.capture import VolumeSpec;"
            f"p=WriterPrograms.attach(VolumeSpec(*{spec_of(device).disk_major, spec_of(device).disk_minor, 0, 131072}),"
            "Path(sys.argv[1]));print(*p.identifiers(),flush=True);sys.stdin.read()"
        )
        words = [sys.executable, "-c", script, str(capture.pin_dir)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert process.stdout is not None
        numbers = [int(word) for word in process.stdout.readline().split()]
        assert len(numbers) == 2 and all(is_loaded(number) for number in numbers)
        process.kill()
        process.communicate()
        wait_until(lambda: not any(is_loaded(number) for number in numbers), "the programs are gone")
        done("dd", "if=/dev/zero", f"of={device}", "bs=4k", "count=10", "oflag=direct")
        wait_quiet(capture)
        counters = capture.counters()
        assert counters.submitted_sectors >= 80 and counters.lost == counters.unknown_ops == 0


def is_loaded(number: int) -> bool:
    try:
        os.close(syscalls._bpf(_PROGRAM_BY_ID, struct.pack("<I", number)))
    except FileNotFoundError:
        return False
    return True


def test_rows_that_nobody_writes_to_make_room_for_others_and_their_bytes_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CROWDED", 4)
    with watched(tmp_path, "ext4") as volume:
        for number in range(12):
            (volume.folder / f"file-{number}").write_bytes(bytes(64 * 1024))
            volume.look()
        (volume.folder / "file-0").write_bytes(bytes(128 * 1024))
        volume.look()
        volume.check_sums()
        # The last file may be written out in between, and once more.
        assert within(volume.written(os.getpid())[1], 13 * 64 * 1024 + 64 * 1024, 0.2)
        assert len(volume.programs.read().rows) < 12


def test_what_waits_on_a_processor_that_rests_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of its last file, while another processor writes others and rows make room for them."""
    monkeypatch.setattr(module, "_CROWDED", 2)
    monkeypatch.setattr(module, "_IDLE_LOOKS", 1)
    first, second, *_ = sorted(os.sched_getaffinity(0))
    with watched(tmp_path, "ext4") as volume, ThreadPoolExecutor(1) as one:

        def write(cpu: int, name: str) -> None:
            os.sched_setaffinity(0, {cpu})  # of this thread
            with (volume.folder / name).open("wb") as file:
                file.write(bytes(64 * 1024))
                file.flush()
                os.fsync(file.fileno())

        one.submit(write, first, "rests").result()
        for number in range(8):
            one.submit(write, second, f"file-{number}").result()
            one.submit(volume.look).result()
        volume.check_sums()
        assert volume.of_file(volume.folder / "rests") == 64 * 1024


def test_a_kernel_without_the_tracepoint_of_dirty_pages_tells_so_and_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "dirtying_tracepoint", lambda: "")
    with watched(tmp_path, "ext4") as volume:
        assert "no tracepoint" in volume.programs.problem
        direct = done("dd", "if=/dev/zero", f"of={volume.folder}/direct", "bs=1M", "count=5", "oflag=direct")
        done("dd", "if=/dev/zero", f"of={volume.folder}/buffered", "bs=1M", "count=6", "conv=fsync")
        volume.look()
        volume.check_sums()
        assert volume.written(direct)[1] == 5 * MIB
        assert volume.of(Kind.UNKNOWN) + volume.of(Kind.BEFORE) >= 6 * MIB
