"""A file system that is mounted in another mount namespace, a container's for example, is found and is in use."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydbt.core.errors import BusyError, UsageError
from pydbt.core.units import MIB
from pydbt.device import clean
from pydbt.device.block import DirectReader
from pydbt.device.checks import check_target, require_unused
from pydbt.device.clean import clean_marker, is_untouched
from pydbt.device.filesystem import used_extents
from pydbt.device.freeze import FileSystemFreezer, thaw_leftover
from pydbt.device.holdable import look
from pydbt.device.mounts import every_mount
from pydbt.device.snapshot import Room
from pydbt.device.sysfs import BlockDevice
from pydbt.device.usage import is_used
from tests.lab.disks import Device, loop_device, loop_over, make_filesystem, mounted_elsewhere, mounted_out_of_reach
from tests.lab.patience import run

ROOM = Room("0123456789abcdef")
Place = Callable[[object, Path], contextlib.AbstractContextManager[object]]


@pytest.fixture(params=["ext4", "xfs"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlockDevice]:
    with loop_device(tmp_path, 320 * MIB) as disk:
        make_filesystem(request.param, disk)
        yield BlockDevice.identify(disk)


@contextlib.contextmanager
def open_for_writing(path: str, mode: int = os.O_RDWR) -> Iterator[None]:
    descriptor = os.open(path, mode)
    try:
        yield
    finally:
        os.close(descriptor)


def test_a_mount_elsewhere_is_among_the_mounts_of_its_device_and_its_point_can_be_opened(
    volume: BlockDevice, tmp_path: Path
) -> None:
    with mounted_elsewhere(volume.path, tmp_path / "there") as point:
        (point / "file").write_text("of the container")
        (mount,) = volume.mounts()
        assert Path(mount.point) == point and mount.root
    assert volume.mounts() == []


def test_the_free_space_of_a_file_system_mounted_elsewhere_is_left_out_of_a_first_copy(
    volume: BlockDevice, tmp_path: Path
) -> None:
    with mounted_elsewhere(volume.path, tmp_path / "there"):
        used = used_extents(volume)
        assert not used.whole and used.total_bytes < 200 * MIB
    with mounted_out_of_reach(volume.path, tmp_path / "nowhere"):
        assert used_extents(volume).whole


def test_a_file_system_mounted_elsewhere_is_frozen_for_an_image_and_thawed_also_when_its_path_is_lost(
    volume: BlockDevice, tmp_path: Path
) -> None:
    freezer = FileSystemFreezer(tmp_path / "marker")
    with mounted_elsewhere(volume.path, tmp_path / "there") as point:
        holdable = look(volume, ROOM)
        assert holdable.kind == "freeze"
        freezer.freeze(list(holdable.mounts), 60)
        one = subprocess.Popen(["sh", "-c", f"echo x > {point}/file"])
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(0.3)
        assert freezer.helper_pid is not None
        os.kill(freezer.helper_pid, 9)
        marker = tmp_path / "marker"
        marker.write_text(marker.read_text().replace(f"/proc/{point.parts[2]}/root", "/proc/1073741824/root"))
        assert thaw_leftover(marker)
        assert one.wait(10) == 0
        freezer.close()


def test_no_still_image_is_promised_of_a_mount_that_cannot_be_reached(volume: BlockDevice, tmp_path: Path) -> None:
    with mounted_out_of_reach(volume.path, tmp_path / "nowhere"), pytest.raises(UsageError, match="in use, perhaps"):
        look(volume, ROOM)
    assert look(volume, ROOM).kind == "quiescent"


@pytest.mark.parametrize("where", [mounted_elsewhere, mounted_out_of_reach])
def test_a_clean_stop_under_a_mount_elsewhere_proves_nothing_after_a_reboot(
    volume: BlockDevice, tmp_path: Path, where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DirectReader(volume) as reader:
        with where(volume.path, tmp_path / "there"):
            assert is_used(volume)
            assert clean_marker(volume, reader)["filesystem"] is None
        marker = clean_marker(volume, reader)
        assert marker["filesystem"] is not None and not is_used(volume)
        monkeypatch.setattr(clean, "boot_id", lambda: "another boot")
        assert is_untouched(marker, volume, reader)
        with where(volume.path, tmp_path / "there"):
            assert not is_untouched(marker, volume, reader)


def test_a_crashed_file_system_has_no_fingerprint_although_nothing_uses_it(volume: BlockDevice, tmp_path: Path) -> None:
    with mounted_elsewhere(volume.path, tmp_path / "there") as point:
        (point / "file").write_text("x" * 100_000)
        run("sync", "--file-system", point)
        run("cp", volume.backing_file(), tmp_path / "crashed")
    with loop_over(tmp_path / "crashed") as disk:
        crashed = BlockDevice.identify(disk)
        with DirectReader(crashed) as reader:
            assert not is_used(crashed)
            assert clean_marker(crashed, reader)["filesystem"] is None


def test_a_program_that_has_it_open_for_writing_and_a_loop_device_over_it_use_it(
    volume: BlockDevice, tmp_path: Path
) -> None:
    with open_for_writing(volume.path, os.O_RDONLY):
        assert not is_used(volume)
    with open_for_writing(volume.path):
        assert is_used(volume)
    with loop_over(Path(volume.path)):
        assert is_used(volume)
    assert not is_used(volume)


def test_the_source_of_a_mount_without_a_device_is_not_looked_at_in_a_namespace_of_others(tmp_path: Path) -> None:
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    script = f"mount -t tmpfs /dev/null {tmp_path} && echo mounted && read end"
    other = subprocess.Popen([*words, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"mounted\n"
        (found,) = [mount for mount in every_mount() if mount.point == f"/proc/{other.pid}/root{tmp_path}"]
        assert found.source == "" and found.fs_type == "tmpfs"
    finally:
        other.communicate(b"end\n", timeout=10)


def test_a_target_that_is_mounted_elsewhere_is_refused(tmp_path: Path) -> None:
    with loop_device(tmp_path, 32 * MIB) as disk:
        make_filesystem("ext4", disk)
        refuse_while(mounted_elsewhere, disk, tmp_path / "there")
        refuse_while(mounted_out_of_reach, disk, tmp_path / "nowhere")
        require_unused(BlockDevice.identify(disk), str(disk))


def refuse_while(where: Place, disk: Device, folder: Path) -> None:
    with where(disk, folder):
        with pytest.raises(BusyError, match="in use"):
            check_target(disk)
        with pytest.raises(BusyError, match="in use"):
            require_unused(BlockDevice.identify(disk), str(disk))
