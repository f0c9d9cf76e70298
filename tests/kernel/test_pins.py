"""The programs outlive the controller, and end on command."""

from __future__ import annotations

import dataclasses
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.errors import BusyError, MachineError, StateError
from pydbt.core.tracking.capture_record import RecordKind
from pydbt.core.units import MIB
from pydbt.kernel import pins, syscalls
from pydbt.kernel.capture import Capture, CaptureOptions
from tests.lab.disks import loop_device
from tests.lab.patience import wait_until
from tests.lab.raw import write_blocks
from tests.lab.tracking import ADDRESSES, PAYLOAD, blocks_set, new_pin_dir, spec_of, tracked, wait_quiet

_PROGRAM_BY_ID, _MAP_BY_ID = 13, 14  # commands of bpf(2)

_CONTROLLER = """
import sys, time
from pathlib import Path
from pydbt.kernel import code_cache
from pydbt.kernel.capture import Capture, CaptureOptions, VolumeSpec
if sys.argv[6:]:
    code_cache.FOLDER = Path(sys.argv[6])
capture = Capture.attach(VolumeSpec(*map(int, sys.argv[2:6])), CaptureOptions(data_ring_bytes=1 << 20), Path(sys.argv[1]))
print("attached", flush=True)
sys.stdin.readline()
print(len(capture.drain(7)), flush=True)
time.sleep(600)
"""


def exists(command: int, identifier: int) -> bool:
    try:
        os.close(syscalls._bpf(command, struct.pack("<I", identifier)))
    except FileNotFoundError:
        return False
    return True


def identifiers(capture: Capture) -> list[tuple[int, int]]:
    programs = [syscalls.program_info(fd).identifier for fd in capture._program_fds.values()]
    found = [(_PROGRAM_BY_ID, identifier) for identifier in programs]
    for name in ("config", "bits", "headers", "state", "meta", "data"):
        path = capture.pin_dir / name
        if path.exists():
            fd = syscalls.obj_get(path)
            found.append((_MAP_BY_ID, syscalls.map_info(fd).identifier))
            os.close(fd)
    return found


def test_capture_goes_on_after_its_controller_was_killed(tmp_path: Path) -> None:
    pin_dir = new_pin_dir()
    with loop_device(tmp_path, 64 * MIB) as device:
        volume = spec_of(device)
        numbers = (volume.disk_major, volume.disk_minor, volume.start_sector, volume.size_sectors)
        command = [sys.executable, "-c", _CONTROLLER, str(pin_dir), *map(str, numbers)]
        try:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as controller:
                assert controller.stdout and controller.stdin
                assert controller.stdout.readline() == "attached\n"
                write_blocks(device, 11)
                controller.stdin.write("\n")
                controller.stdin.flush()
                assert controller.stdout.readline() == "7\n"
                controller.send_signal(signal.SIGKILL)
            write_blocks(device, 23, first=100)
            capture = Capture.reopen(pin_dir)
            assert capture is not None
            assert capture.volume == volume
            wait_quiet(capture)
            assert blocks_set(capture.active_words()).tolist() == [*range(11), *range(100, 123)]
            # What the dead one had drained and not released comes back; what it had not drained is kept.
            used = capture.data_used_bytes()
            assert capture.release_orphans() > 0
            assert 0 < capture.data_used_bytes() < used
            records = capture.drain()
            submitted = records[records["kind"] == RecordKind.SUBMIT]
            assert len(submitted) > 11 + 23 - 7
            assert len(capture.payload(records)) == len(submitted)
            capture.release(records)
            assert capture.data_used_bytes() == 0
            assert capture.counters().lost == 0
            capture.detach()
        finally:
            Capture.remove_pins(pin_dir)


@pytest.mark.parametrize("options", [ADDRESSES, PAYLOAD], ids=["addresses", "payload"])
def test_detach_leaves_nothing_behind(tmp_path: Path, options: CaptureOptions) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, tracked(device, options) as capture:
        ours = identifiers(capture)
        assert len(ours) == len(pins.PROGRAMS) + 5 + bool(options.data_ring_bytes)
        assert all(exists(*one) for one in ours)
        capture.detach()
        assert not capture.pin_dir.exists()
        wait_until(lambda: not any(exists(*one) for one in ours), "the kernel has freed programs and maps")
        assert Capture.reopen(capture.pin_dir) is None


def test_a_second_attach_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, tracked(device) as capture:
        with pytest.raises(BusyError, match="reopen"):
            Capture.attach(spec_of(device), ADDRESSES, capture.pin_dir)
        write_blocks(device, 3)
        wait_quiet(capture)
        assert (capture.drain()["kind"] == RecordKind.SUBMIT).sum() == 3


def test_an_attach_that_did_not_finish_is_no_obstacle(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, tracked(device) as capture:
        (capture.pin_dir / "meta").unlink()
        assert Capture.reopen(capture.pin_dir) is None
        again = Capture.attach(spec_of(device), ADDRESSES, capture.pin_dir)
        write_blocks(device, 3)
        wait_quiet(again)
        assert (again.drain()["kind"] == RecordKind.SUBMIT).sum() == 3
        again.close()


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydbt.kernel import loader

    def fail(*_: object) -> None:
        raise MachineError("for the test")

    pin_dir = new_pin_dir()
    with loop_device(tmp_path, 16 * MIB) as device:
        monkeypatch.setattr(pins, "write_meta", fail)
        with pytest.raises(MachineError, match="for the test"):
            loader.attach_programs(spec_of(device), ADDRESSES, pin_dir, tmp_path / "kept")
        assert not pin_dir.exists()


def test_pins_of_another_version_are_not_opened(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, tracked(device) as capture:
        meta = pins.read_meta(capture.pin_dir)
        assert meta is not None
        fd = syscalls.obj_get(capture.pin_dir / "meta")
        syscalls.map_update(fd, 0, dataclasses.replace(meta, version=9).encode())
        with pytest.raises(StateError, match="version 9"):
            Capture.reopen(capture.pin_dir)
        syscalls.map_update(fd, 0, b"{" * pins.META_BYTES)
        with pytest.raises(StateError, match="understood"):
            Capture.reopen(capture.pin_dir)
        os.close(fd)


def test_a_directory_outside_bpffs_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device, pytest.raises(MachineError, match="mount -t bpf"):
        Capture.attach(spec_of(device), ADDRESSES, tmp_path / "pins")


def test_reopening_nothing_gives_nothing() -> None:
    assert Capture.reopen(new_pin_dir()) is None


def test_both_grace_periods_end() -> None:
    syscalls.wait_for_programs()
    syscalls.wait_by_map_of_maps()


def test_a_disappearing_device_leaves_the_pins_usable(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as device:
        pin_dir = new_pin_dir()
        capture = Capture.attach(spec_of(device), ADDRESSES, pin_dir)
    try:
        records = capture.drain()
        assert isinstance(records, np.ndarray)
        capture.detach()
        assert not pin_dir.exists()
    finally:
        Capture.remove_pins(pin_dir)


def children_of(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(number) for number in text.split()]


def test_no_loader_outlives_a_controller_that_was_killed_during_compilation(tmp_path):
    pin_dir = new_pin_dir()
    with loop_device(tmp_path, 8 * MIB) as device:
        volume = spec_of(device)
        numbers = (volume.disk_major, volume.disk_minor, volume.start_sector, volume.size_sectors)
        nothing_kept = str(tmp_path / "kept")
        command = [sys.executable, "-c", _CONTROLLER, str(pin_dir), *map(str, numbers), nothing_kept]
        try:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as controller:
                wait_until(lambda: children_of(controller.pid), "the loader is there")
                (loader,) = children_of(controller.pid)
                wait_until(lambda: b"libbcc" in Path(f"/proc/{loader}/maps").read_bytes(), "it has begun")
                controller.send_signal(signal.SIGKILL)
            wait_until(lambda: not Path(f"/proc/{loader}").exists(), "the loader has ended")
            assert not pin_dir.exists()
        finally:
            Capture.remove_pins(pin_dir)
