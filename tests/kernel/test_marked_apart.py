"""Where a task can be preempted inside a program, others stand beside ``submit``: what one is refused for, another one does."""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydbt.core.tracking.capture_record import RecordKind
from pydbt.core.units import MIB
from pydbt.kernel import pins, syscalls
from pydbt.kernel.capture import Capture, CaptureOptions
from pydbt.kernel.counters import _program_totals, possible_cpus
from pydbt.kernel.record import COUNTERS, Program
from pydbt.kernel.spec import to_json
from tests.lab.disks import Device, loop_device
from tests.lab.patience import run, wait_until
from tests.lab.tracking import ADDRESSES, PAYLOAD, Rebuilt, blocks_set, new_pin_dir, spec_of, wait_quiet

BLOCK = 4096
NOTE_BITS, NOTE_FACTOR = 9, 0x9E3779B97F4A7C15  # as in bpf/preempted.bpf.h
MAP_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 14, 15  # enum bpf_cmd, include/uapi/linux/bpf.h


LOADER = """
from pydbt.kernel import layout, loader
layout.can_be_preempted = lambda _: {answer}
loader.main()
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled code is kept: each build is compiled once."""
    return tmp_path_factory.mktemp("kept")


@contextlib.contextmanager
def attached(device: Device, options: CaptureOptions, kept: Path, preemptible: bool = True) -> Iterator[Path]:
    """Programs as on a kernel that can preempt them, or that cannot; the folder of their pins."""
    pin_dir = new_pin_dir()
    request = {
        "volume": to_json(spec_of(device, BLOCK)),
        "options": to_json(options),
        "pin_dir": str(pin_dir),
        "kept": str(kept),
        "parent": os.getpid(),
    }
    try:
        words = [sys.executable, "-c", LOADER.format(answer=preemptible)]
        done = subprocess.run(words, input=json.dumps(request), capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {}, done.stderr
        yield pin_dir
    finally:
        Capture.remove_pins(pin_dir)


@contextlib.contextmanager
def reopened(pin_dir: Path) -> Iterator[Capture]:
    capture = Capture.reopen(pin_dir)
    assert capture is not None
    try:
        yield capture
    finally:
        capture.close()


def write_at(device: Device, *blocks: int) -> None:
    fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, BLOCK) as buffer:
            buffer[:] = os.urandom(BLOCK)
            for block in blocks:
                os.pwrite(fd, buffer, block * BLOCK)
    finally:
        os.close(fd)


def sectors_of(pin_dir: Path, name: str) -> int:
    fd = syscalls.obj_get(pin_dir / "state")
    try:
        size = syscalls.map_info(fd).value_bytes
        return _program_totals(fd, Program[name.upper()], size, possible_cpus())["sectors"]
    finally:
        os.close(fd)


def runs(pin_dir: Path, name: str) -> int:
    program = syscalls.obj_get(pin_dir / name)
    try:
        return syscalls.program_info(program).run_count
    finally:
        os.close(program)


def make_blind(pin_dir: Path, device: Device, *names: str) -> None:
    """These programs see no event, as while a task is preempted inside each of them. Writes to block 1."""
    for name in names:
        link = pin_dir / f"link_{name}"
        link.unlink()
        placeholder = syscalls.obj_get(pin_dir / "config")  # who opens the pins looks whether something is there
        syscalls.obj_pin(placeholder, link)
        os.close(placeholder)

    def see_nothing() -> bool:
        before = [runs(pin_dir, name) for name in names]
        write_at(device, 1)
        return [runs(pin_dir, name) for name in names] == before

    counting = syscalls.enable_run_time()
    try:
        wait_until(see_nothing, f"{names} see nothing")  # the kernel detaches a while later
    finally:
        os.close(counting)


def follow(capture: Capture, device: Device, work: Callable[[], object]) -> Rebuilt:
    """What the records say of the work, and that it is what the disk has."""
    replica = Rebuilt(capture, device.contents())
    replica.follow(work)
    replica.check_equals(device)
    return replica


def submissions(replica: Rebuilt) -> list[int]:
    submitted = replica.records[replica.records["kind"] == RecordKind.SUBMIT]
    return (submitted["sector"] * 512 // BLOCK).tolist()


@pytest.mark.parametrize("options", [ADDRESSES, PAYLOAD], ids=["addresses", "payload"])
def test_a_write_is_marked_twice_and_recorded_once(tmp_path: Path, kept: Path, options: CaptureOptions) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, attached(device, options, kept) as pin_dir:
        assert {path.name for path in pin_dir.iterdir()} >= {*pins.BESIDE_SUBMIT, "link_mark", "link_witness"}
        with reopened(pin_dir) as capture:
            write_at(device, 3, 4, 900)
            wait_quiet(capture)
            records = capture.drain()
            assert (records["kind"] == RecordKind.SUBMIT).sum() == 3
            capture.release(records)
            counters = capture.counters()
            assert counters.marked_sectors == counters.submitted_sectors == 3 * 8
            assert counters.lost == counters.unmarked_misses == counters.mark_misses == 0
            assert sectors_of(pin_dir, "understudy") == sectors_of(pin_dir, "witness") == 0
            assert blocks_set(capture.active_words()).tolist() == [3, 4, 900]


@pytest.mark.parametrize("name", ["submit", "understudy"])
def test_what_one_is_refused_for_is_recorded_by_the_other_with_its_data(tmp_path: Path, kept: Path, name: str) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, attached(device, PAYLOAD, kept) as pin_dir:
        (other,) = {"submit", "understudy"} - {name}
        make_blind(pin_dir, device, name)
        with reopened(pin_dir) as capture:
            wait_quiet(capture)
            capture.release(capture.drain())
            before = sectors_of(pin_dir, name), sectors_of(pin_dir, other)
            replica = follow(capture, device, lambda: write_at(device, 7, 8, 7))
            assert submissions(replica) == [7, 8, 7]
            assert (sectors_of(pin_dir, name), sectors_of(pin_dir, other)) == (before[0], before[1] + 3 * 8)
            assert capture.lost_count() == capture.counters().lost == 0


def test_a_write_that_both_are_refused_for_is_marked_and_counts_as_lost(tmp_path: Path, kept: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, attached(device, PAYLOAD, kept) as pin_dir:
        make_blind(pin_dir, device, "submit", "understudy", "mark", "request_complete", "bio_complete")
        with reopened(pin_dir) as capture:
            before, sectors = capture.lost_count(), capture.counters().submitted_sectors
            write_at(device, 7, 8)
            assert capture.lost_count() == capture.counters().lost == before + 2
            assert capture.counters().submitted_sectors == sectors + 2 * 8
            assert blocks_set(capture.active_words()).tolist() == [1, 7, 8]


def test_a_write_that_all_four_are_refused_for_is_marked_and_told_by_its_completion(tmp_path: Path, kept: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, attached(device, PAYLOAD, kept) as pin_dir:
        make_blind(pin_dir, device, "submit", *pins.BESIDE_SUBMIT)
        with reopened(pin_dir) as capture:
            capture.release(capture.drain())
            write_at(device, 7, 8)
            wait_until(lambda: len(capture.peek()) == 2, "both writes have completed")
            assert (capture.drain()["sector"] * 512 // BLOCK).tolist() == [7, 8]
            assert {7, 8} <= set(blocks_set(capture.active_words()).tolist())


@pytest.mark.parametrize("name", ["mark", "submit"])
def test_a_write_that_one_program_is_refused_for_is_marked_by_another(tmp_path: Path, kept: Path, name: str) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, attached(device, ADDRESSES, kept) as pin_dir:
        make_blind(pin_dir, device, name, "request_complete", "bio_complete")
        before = sectors_of(pin_dir, name)
        write_at(device, 7, 8)
        assert sectors_of(pin_dir, name) == before
        with reopened(pin_dir) as capture:
            assert blocks_set(capture.active_words()).tolist() == [1, 7, 8]


class Notes:
    """The notes that one of the two recording programs leaves, and the bio of the last write of a CPU (bpf/preempted.bpf.h)."""

    def __init__(self, pin_dir: Path, name: str) -> None:
        self._second = int(name == "understudy") << NOTE_BITS
        self._cpu = min(os.sched_getaffinity(0))
        self._state = syscalls.obj_get(pin_dir / "state")
        self._value_bytes = syscalls.map_info(self._state).value_bytes + 7 & ~7
        program = syscalls.obj_get(pin_dir / name)
        self._notes = map_of(program, "pydbt_notes")
        os.close(program)

    def stay_on_its_cpu(self) -> None:
        """Of the calling thread: what it writes is seen on that CPU."""
        os.sched_setaffinity(0, {self._cpu})

    def last_bio(self) -> int:
        values = syscalls.map_lookup(self._state, Program.MARK, self._value_bytes * possible_cpus())
        return int.from_bytes(values[self._cpu * self._value_bytes + COUNTERS.itemsize :][:8], "little")

    def at_place_of(self, bio: int) -> int:
        """The bio whose note is where this one's belongs; 0 when none is there."""
        index = (bio * NOTE_FACTOR & (1 << 64) - 1) >> 64 - NOTE_BITS | self._second
        return int.from_bytes(syscalls.map_lookup(self._notes, index, 16)[8:], "little")

    def close(self) -> None:
        os.close(self._state)
        os.close(self._notes)


def map_of(program: int, name: str) -> int:
    """A map that a program uses, and that has no pin."""
    identifiers = (ctypes.c_uint32 * 64)()
    info = ctypes.create_string_buffer(256)  # struct bpf_prog_info
    struct.pack_into("<IQ", info, 52, len(identifiers), ctypes.addressof(identifiers))
    syscalls._bpf(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", program, len(info), ctypes.addressof(info)))
    for identifier in identifiers:
        found = syscalls._bpf(MAP_GET_FD_BY_ID, struct.pack("<I", identifier))
        if syscalls.map_info(found).name == name[:15]:
            return found
        os.close(found)
    raise AssertionError(f"the program has no map {name}")


@pytest.mark.parametrize("name", ["submit", "understudy"])
def test_a_note_that_the_witness_left_behind_deceives_nobody(tmp_path: Path, kept: Path, name: str) -> None:
    """``mark`` clears it at the next write of the same bio. One thread's direct writes have the same few bios all the time.

    Two of these share a place for their notes now and then: that write is left to the other program, which sees nothing here.
    """
    assert any(left_to_one_program(tmp_path, kept, name) for _ in range(5)), "each time all bios shared a place"


def left_to_one_program(tmp_path: Path, kept: Path, name: str) -> bool:
    """Every write is recorded whose bio has its place for itself, and no other. Whether some bio of these wrote twice."""
    with loop_device(tmp_path, 64 * MIB) as device, attached(device, PAYLOAD, kept) as pin_dir:
        (other,) = {"submit", "understudy"} - {name}
        make_blind(pin_dir, device, "witness", other)
        with reopened(pin_dir) as capture, contextlib.closing(Notes(pin_dir, name)) as notes:
            wait_quiet(capture)
            capture.release(capture.drain())
            before, bios = sectors_of(pin_dir, name), dict[int, int]()

            def write_and_look() -> None:
                notes.stay_on_its_cpu()
                for block in range(2, 40):
                    write_at(device, block)
                    bio = notes.last_bio()
                    found = notes.at_place_of(bio)
                    assert bio and found, f"block {block}: no note is left, neither its own nor another's"
                    if found == bio:
                        bios[block] = bio

            replica = Rebuilt(capture, device.contents())
            replica.follow(write_and_look)
            assert submissions(replica) == list(bios)
            assert sectors_of(pin_dir, name) == before + len(bios) * 8
            contents = device.contents()
            for block in set(range(2, 40)) - set(bios):
                replica.image[block * BLOCK : (block + 1) * BLOCK] = contents[block * BLOCK : (block + 1) * BLOCK]
            replica.check_equals(device)
            return len(set(bios.values())) < len(bios)


@pytest.mark.parametrize("blind", [(), ("submit",)], ids=["all", "understudy"])
def test_many_writers_at_once_are_recorded_once_each(tmp_path: Path, kept: Path, blind: tuple[str, ...]) -> None:
    """Bios that share a place for their notes are left to the understudy, and none to nobody."""
    script = Path(__file__).with_name("direct_writes.py")
    with loop_device(tmp_path, 128 * MIB) as device, attached(device, PAYLOAD, kept) as pin_dir:
        make_blind(pin_dir, device, *blind)
        with reopened(pin_dir) as capture:
            wait_quiet(capture)
            capture.release(capture.drain())
            before = capture.counters().submitted_records
            replica = follow(capture, device, lambda: run(sys.executable, script, device.path, 16, 0))
            counters = capture.counters()
            assert len(submissions(replica)) == counters.submitted_records - before
            assert counters.submitted_sectors == counters.marked_sectors, "each once"
            assert sectors_of(pin_dir, "witness") == capture.lost_count() == 0


def test_where_no_program_can_be_preempted_each_write_is_marked_once(tmp_path: Path, kept: Path) -> None:
    with (
        loop_device(tmp_path, 64 * MIB) as device,
        attached(device, ADDRESSES, kept, preemptible=False) as pin_dir,
        reopened(pin_dir) as capture,
    ):
        write_at(device, 5)
        wait_quiet(capture)
        counters = capture.counters()
        assert (counters.marked_sectors, counters.mark_misses) == (None, 0)
        assert not (pin_dir / "mark").exists()
