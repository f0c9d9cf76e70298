"""Data that programs have written and not synced reaches the device on demand, from every mount that can be reached."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydbt.core.errors import DeviceError
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from pydbt.device.writeout import Writeout, write_out_all
from tests.lab.disks import Device, loop_device, make_filesystem, mounted, mounted_elsewhere, mounted_out_of_reach
from tests.lab.patience import wait_until

SIZE = 320 * MIB


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Device]:
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem(request.param, device)
        yield device


def is_on(disk: Device, marker: bytes) -> bool:
    """Whether the device itself has it, past every cache."""
    descriptor = os.open(disk.path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, MIB) as buffer:
            return any(
                marker in buffer[: os.preadv(descriptor, [buffer], offset)] for offset in range(0, SIZE, MIB)
            )  # it begins a block
    finally:
        os.close(descriptor)


def written(path: Path) -> bytes:
    """Write a file of a block, and sync nothing."""
    marker = os.urandom(32)
    path.write_bytes(marker * 128)
    return marker


@pytest.mark.parametrize("place", [mounted, mounted_elsewhere])
def test_a_file_that_was_not_synced_is_on_the_device_afterwards(
    disk: Device, place: Callable[[object, Path], contextlib.AbstractContextManager[Path]], tmp_path: Path
) -> None:
    with place(disk.path, tmp_path / "there") as folder:
        marker = written(folder / "dump")
        assert not is_on(disk, marker)
        places: list[str] = []
        assert write_out_all(BlockDevice.identify(disk.path), places.append) == []
        assert is_on(disk, marker) and places == [str(disk.path), str(folder)]


def test_data_that_a_program_wrote_to_the_device_itself_is_on_it_afterwards(tmp_path: Path) -> None:
    with loop_device(tmp_path, SIZE) as disk, open(disk.path, "r+b", buffering=0) as program:
        marker = os.urandom(32)
        program.write(marker * 128)
        assert write_out_all(BlockDevice.identify(disk.path), lambda place: None) == []
        assert is_on(disk, marker)


def test_a_mount_that_cannot_be_reached_is_named(disk: Device, tmp_path: Path) -> None:
    with mounted_out_of_reach(disk.path, tmp_path / "nowhere"):
        (left_out,) = write_out_all(BlockDevice.identify(disk.path), lambda place: None)
    assert left_out.startswith(f"{disk.path} is in use")


def test_a_mount_that_is_covered_by_another_is_named(disk: Device, tmp_path: Path) -> None:
    with mounted(disk.path, tmp_path / "there"), mounted("tmpfs", tmp_path / "there", "-t", "tmpfs"):
        (left_out,) = write_out_all(BlockDevice.identify(disk.path), lambda place: None)
    assert f"{tmp_path / 'there'} cannot be reached" in left_out


class Slow:
    """A kernel that takes as long as the test wants; each round is told."""

    def __init__(self) -> None:
        self.rounds = 0
        self.may_end = threading.Semaphore(0)
        self.error: Exception | None = None

    def __call__(self, device: BlockDevice, at: Callable[[str], None]) -> list[str]:
        self.rounds += 1
        at("/mnt")
        assert self.may_end.acquire(timeout=30)
        if self.error is not None:
            raise self.error
        return [f"round {self.rounds}"]


def test_any_number_of_callers_share_one_thread_and_each_gets_a_round_that_began_after_its_call() -> None:
    slow = Slow()
    writeout = Writeout(None, slow)  # type: ignore[arg-type]
    assert writeout.place == ""
    first = writeout.ask()
    wait_until(lambda: writeout.place == "/mnt", "the place is told")
    others = [writeout.ask() for _ in range(50)]
    assert len({id(one) for one in others}) == 1 and others[0] is not first and slow.rounds == 1
    assert not first.done.wait(0.01)
    slow.may_end.release()
    assert first.done.wait(20) and first.left_out == ["round 1"]
    assert not others[0].done.wait(0.01), "what was written before the call may be behind the first round"
    slow.may_end.release()
    assert others[0].done.wait(20) and others[0].left_out == ["round 2"]
    wait_until(lambda: writeout.place == "", "nothing is written out")
    slow.may_end.release()
    assert writeout.ask().done.wait(20) and slow.rounds == 3


@pytest.mark.parametrize("error", [DeviceError("the disk is broken"), RuntimeError("a fault")])
def test_an_error_is_told_to_each_caller_that_waits_and_the_next_round_begins_anew(error: Exception) -> None:
    slow = Slow()
    slow.error = error
    writeout = Writeout(None, slow)  # type: ignore[arg-type]
    slow.may_end.release()
    asked = writeout.ask()
    assert asked.done.wait(20) and asked.error is not None and str(error) in str(asked.error)
    slow.error = None
    slow.may_end.release()
    again = writeout.ask()
    assert again.done.wait(20) and again.error is None
