"""A target is held from boot on: the secondary takes it over and gives it back, and at no moment nobody holds it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.controller.belonging import belonging_of, is_replica
from pydbt.controller.protection import release_target
from pydbt.controller.secondary.holding import TargetHold, nothing_to_hold
from pydbt.core.errors import BusyError, PydbtError, StateError
from pydbt.core.secondary.belonging import Belonging
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.units import MIB
from pydbt.device.checks import check_target
from pydbt.device.partitions import read_partitions_again
from pydbt.device.sysfs import BlockDevice
from pydbt.device.target import Target, names_of
from pydbt.posix import held_device
from pydbt.posix.held_device import end_hold
from pydbt.posix.service_manager import NO_MANAGER, ServiceManager
from pydbt.store.replica_state import save_record
from tests.lab.disks import Device, loop_device
from tests.lab.patience import run, wait_until

RECORD = ReplicaRecord(
    replica="12" * 16, target="device:elsewhere", segment_bytes=65536, volume="ab" * 16, size_bytes=512,
    block_bytes=512, consistent=True, incarnation=1,
)  # fmt: skip


def keep_record(target: object, state_dir: Path, promoted: str = "") -> None:
    """The record of a replica on this disk, as the first start of its secondary makes it."""
    state_dir.mkdir(exist_ok=True)
    save_record(state_dir, replace(RECORD, target=names_of(str(target))[0], promoted=promoted))


class Told(ServiceManager):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def ready(self, what: str) -> None:
        self.words.append(what)


class Holding:
    """A hold in a thread, with its socket where `take_held` looks for it."""

    def __init__(self, target: object, tmp_path: Path) -> None:
        self.told, self.code = Told(), -1
        if not (tmp_path / "state").exists():
            keep_record(target, tmp_path / "state")
        self.hold = TargetHold("data", Path(str(target)), tmp_path / "state", self.told, held_device.HOLDS)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        wait_until(lambda: bool(self.told.words), "it tells that it is ready")

    def _run(self) -> None:
        self.code = self.hold.run()

    def stop(self) -> int:
        self.hold.stop()
        self.thread.join()
        return self.code


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    folder = tmp_path / "holds"
    folder.mkdir()
    for function in (held_device.take_held, held_device.end_hold):
        monkeypatch.setattr(function, "__defaults__", (folder,))
    monkeypatch.setattr(held_device, "HOLDS", folder)
    with loop_device(tmp_path, 32 * MIB) as device:
        yield device


def is_free(disk: Device) -> bool:
    try:
        os.close(os.open(disk, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return False
    return True


def test_the_secondary_takes_the_target_over_and_it_stays_held_when_it_ends(disk: Device, tmp_path: Path) -> None:
    holding = Holding(disk, tmp_path)
    try:
        assert holding.told.words == [f"{disk} is held"] and not is_free(disk)
        check_target(str(disk))
        target = Target(str(disk))
        target.write_through(0, memoryview(b"x" * 4096))
        assert not is_free(disk)
        target.close()
        assert not is_free(disk), "the hold has it again, as it had it all the time"
    finally:
        assert holding.stop() == 0
    assert is_free(disk) and disk.contents()[0] == ord("x")


def test_a_second_hold_of_the_same_replica_is_refused_and_nothing_is_lost(disk: Device, tmp_path: Path) -> None:
    holding = Holding(disk, tmp_path)
    try:
        with pytest.raises(BusyError):
            TargetHold("data", Path(str(disk)), tmp_path / "state", NO_MANAGER, held_device.HOLDS)
        check_target(str(disk))
        assert end_hold(os.stat(disk).st_rdev)
    finally:
        holding.stop()


def test_the_secondary_keeps_the_target_when_the_hold_ends_first(disk: Device, tmp_path: Path) -> None:
    holding = Holding(disk, tmp_path)
    target = Target(str(disk))
    holding.stop()
    assert not is_free(disk)
    target.close()
    assert is_free(disk)


def test_a_second_secondary_does_not_get_it(disk: Device, tmp_path: Path) -> None:
    holding = Holding(disk, tmp_path)
    target = Target(str(disk))
    try:
        with pytest.raises(BusyError, match="has it open for writing"):
            check_target(str(disk))
    finally:
        target.close()
        holding.stop()


def test_a_target_is_free_when_the_end_of_its_hold_is_answered(disk: Device, tmp_path: Path) -> None:
    holding = Holding(disk, tmp_path)
    assert end_hold(os.stat(disk).st_rdev)
    assert is_free(disk)
    holding.thread.join()
    assert holding.code == 0, "the unit does not start it again"


def test_a_promotion_ends_the_hold_so_that_the_kernel_may_read_the_partitions_again(
    disk: Device, tmp_path: Path
) -> None:
    with loop_device(tmp_path, 64 * MIB, partitions=True) as whole:
        run("addpart", whole, 1, 2048, 16384)
        holding = Holding(whole, tmp_path)
        assert not read_partitions_again(whole) and not BlockDevice.identify(whole).partitions()
        release_target(Path(str(whole)))
        assert is_free(whole) and read_partitions_again(whole)
        holding.thread.join()


def test_another_holder_of_the_target_is_waited_for_and_the_boot_goes_on(
    disk: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydbt.controller.secondary.holding.READY_S", 0.0)
    monkeypatch.setattr("pydbt.controller.secondary.holding.LOOK_S", 0.05)
    other = os.open(disk, os.O_RDONLY | os.O_EXCL)
    holding = Holding(disk, tmp_path)
    try:
        assert "in use" in holding.told.words[0]
        with pytest.raises(PydbtError):
            Target(str(disk))
        os.close(other)
        wait_until(lambda: end_hold(os.stat(disk).st_rdev), "it is held then")
    finally:
        holding.stop()


def test_another_disk_at_the_path_is_not_held(disk: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a boot the kernel's name may lead to a disk that the machine needs."""
    monkeypatch.setattr("pydbt.controller.secondary.holding.READY_S", 0.0)
    (tmp_path / "state").mkdir()
    save_record(tmp_path / "state", RECORD)
    assert belonging_of(Path(str(disk)), tmp_path / "state") is Belonging.OTHER_DISK
    assert not nothing_to_hold(Path(str(disk)), tmp_path / "state"), "the right one may come"
    holding = Holding(disk, tmp_path)
    try:
        assert "another disk" in holding.told.words[0] and is_free(disk)
    finally:
        holding.stop()


@pytest.mark.parametrize("content", [None, b"{", "promoted"])
def test_a_disk_that_no_record_names_as_the_target_is_never_held(
    disk: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | str | None
) -> None:
    """It may be a volume that is about to be mounted: the state was never there, is not mounted yet, or is damaged."""
    monkeypatch.setattr("pydbt.controller.secondary.holding.READY_S", 0.0)
    monkeypatch.setattr("pydbt.controller.secondary.holding.LOOK_S", 0.05)
    keep_record(disk, tmp_path / "state", "2026-01-01T00:00:00+00:00" if content == "promoted" else "")
    if content is None:
        (tmp_path / "state/replica.json").unlink()
    if isinstance(content, bytes):
        (tmp_path / "state/replica.json").write_bytes(content)
        with pytest.raises(StateError):
            belonging_of(Path(str(disk)), tmp_path / "state")
    assert bool(nothing_to_hold(Path(str(disk)), tmp_path / "state")) is not isinstance(content, bytes)
    holding = Holding(disk, tmp_path)
    try:
        assert "is held" not in holding.told.words[0] and is_free(disk)
        keep_record(disk, tmp_path / "state")
        wait_until(lambda: not is_free(disk), "it is held when a record names it")
    finally:
        holding.stop()


def test_the_state_tells_a_replica_and_not_the_file_alone(tmp_path: Path) -> None:
    assert is_replica("secondary", tmp_path) and not is_replica("run", tmp_path)
    save_record(tmp_path, RECORD)
    assert is_replica("secondary", tmp_path) and is_replica("run", tmp_path), "it was demoted"
    save_record(tmp_path, replace(RECORD, promoted="2026-01-01T00:00:00+00:00"))
    assert not is_replica("secondary", tmp_path) and not is_replica("run", tmp_path)


def test_without_a_service_manager_it_holds_too(disk: Device, tmp_path: Path) -> None:
    keep_record(disk, tmp_path / "state")
    hold = TargetHold("data", Path(str(disk)), tmp_path / "state", NO_MANAGER, held_device.HOLDS)
    hold.stop()
    assert hold.run() == 0
