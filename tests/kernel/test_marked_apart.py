"""Where a task can be preempted inside a program, two programs mark each write: what one is refused for, the other marks."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.units import MIB
from pydbt.kernel import pins, syscalls
from pydbt.kernel.capture import Capture, CaptureOptions
from pydbt.kernel.counters import _program_totals, possible_cpus
from pydbt.kernel.record import Program
from pydbt.kernel.spec import to_json
from tests.lab.disks import Device, loop_device
from tests.lab.patience import wait_until
from tests.lab.tracking import ADDRESSES, PAYLOAD, blocks_set, new_pin_dir, spec_of, wait_quiet

BLOCK = 4096


LOADER = """
from pydbt.kernel import layout, loader
layout.can_be_preempted = lambda _: {answer}
loader.main()
"""


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
        assert json.loads(done.stdout) == {}
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


def sees(pin_dir: Path, name: str, device: Device) -> bool:
    before = sectors_of(pin_dir, name)
    write_at(device, 1)
    return sectors_of(pin_dir, name) > before


@contextlib.contextmanager
def blind(pin_dir: Path, device: Device, *names: str) -> Iterator[None]:
    """These programs see no event, as while a task is preempted inside each of them. Writes to block 1."""
    for name in names:
        (pin_dir / f"link_{name}").unlink()
    # The kernel detaches a while later.
    wait_until(lambda: not any(sees(pin_dir, name, device) for name in names), f"{names} see nothing")
    yield
    for name in names:
        program = syscalls.obj_get(pin_dir / name)
        try:
            link = syscalls.open_raw_tracepoint(program)
            syscalls.obj_pin(link, pin_dir / f"link_{name}")
            os.close(link)
        finally:
            os.close(program)


@pytest.mark.parametrize("options", [ADDRESSES, PAYLOAD], ids=["addresses", "payload"])
def test_both_programs_mark_and_count_the_same_writes(tmp_path: Path, options: CaptureOptions) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, attached(device, options, tmp_path) as pin_dir:
        assert {path.name for path in pin_dir.iterdir()} >= {*pins.MARKER, "link_mark"}
        with reopened(pin_dir) as capture:
            write_at(device, 3, 4, 900)
            wait_quiet(capture)
            counters = capture.counters()
            assert counters.marked_sectors == counters.submitted_sectors == 3 * 8
            assert counters.lost == counters.unmarked_misses == counters.mark_misses == 0
            assert blocks_set(capture.active_words()).tolist() == [3, 4, 900]


@pytest.mark.parametrize("name", ["submit", "mark"])
def test_a_write_that_one_program_is_refused_for_is_marked_by_the_other(tmp_path: Path, name: str) -> None:
    with loop_device(tmp_path, 64 * MIB) as device, attached(device, ADDRESSES, tmp_path) as pin_dir:
        (other,) = {"submit", "mark"} - {name}
        with blind(pin_dir, device, name, "request_complete", "bio_complete"):
            before = sectors_of(pin_dir, name), sectors_of(pin_dir, other)
            write_at(device, 7, 8)
            assert sectors_of(pin_dir, name) == before[0] and sectors_of(pin_dir, other) == before[1] + 2 * 8
        with reopened(pin_dir) as capture:
            assert blocks_set(capture.active_words()).tolist() == [1, 7, 8]


def test_where_no_program_can_be_preempted_each_write_is_marked_once(tmp_path: Path) -> None:
    with (
        loop_device(tmp_path, 64 * MIB) as device,
        attached(device, ADDRESSES, tmp_path, preemptible=False) as pin_dir,
        reopened(pin_dir) as capture,
    ):
        write_at(device, 5)
        wait_quiet(capture)
        counters = capture.counters()
        assert (counters.marked_sectors, counters.mark_misses) == (None, 0)
        assert not (pin_dir / "mark").exists()
