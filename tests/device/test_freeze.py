"""A file system is frozen for a moment, and thawed also when the controller or its helper dies."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from pydbt.core.errors import DeviceError, UsageError
from pydbt.device import freeze
from pydbt.device.freeze import CannotFreeze, FileSystemFreezer, thaw_leftover
from pydbt.device.holdable import look
from pydbt.device.mounts import mount_of_path
from pydbt.device.snapshot import Room
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import loop_device, mounted
from tests.lab.patience import run, wait_until

ROOM = Room("0123456789abcdef")


@pytest.fixture
def freezer(tmp_path):
    made = FileSystemFreezer(tmp_path / "marker")
    yield made
    made.close()


@pytest.fixture
def root(tmp_path):
    with loop_device(tmp_path, 32 << 20) as device:
        run("mkfs.ext4", "-q", "-F", device.path)
        with mounted(device, tmp_path / "mnt") as folder:
            yield folder


def writer(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(["sh", "-c", f"echo x > {folder}/file"])


def test_writers_wait_while_it_is_frozen_and_continue_afterwards(freezer, root):
    freezer.freeze([mount_of_path(root)], 30)
    one = writer(root)
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.3)
    held_ms, early = freezer.thaw()
    assert one.wait(10) == 0
    assert held_ms >= 300
    assert not early


def test_a_freeze_ends_at_its_limit_without_a_request(freezer, root):
    freezer.freeze([mount_of_path(root)], 0.2)
    assert writer(root).wait(10) == 0
    assert freezer.thaw()[1]


def test_the_helper_killed_leaves_nothing_frozen(freezer, root, tmp_path):
    freezer.freeze([mount_of_path(root)], 30)
    os.kill(freezer.helper_pid, signal.SIGKILL)
    with pytest.raises(DeviceError, match="was killed"):
        freezer.thaw()
    assert writer(root).wait(10) == 0
    freezer.freeze([mount_of_path(root)], 30)
    freezer.thaw()
    assert not (tmp_path / "marker").exists()


def test_a_helper_that_is_stopped_leaves_nothing_frozen(freezer, root, monkeypatch):
    for name in ("_ANSWER_S", "_END_S"):
        monkeypatch.setattr(freeze, name, 0.2)
    freezer.freeze([mount_of_path(root)], 30)
    pid = freezer.helper_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(DeviceError, match="no answer within"):
            freezer.thaw()
        assert writer(root).wait(10) == 0
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not freeze._is_helper(pid), "it ends with its input")


def test_its_owner_killed_leaves_nothing_frozen(root, tmp_path):
    marker = tmp_path / "owner-marker"
    program = f"""
import os, signal
from pathlib import Path
from pydbt.device.freeze import FileSystemFreezer
from pydbt.device.mounts import mount_of_path
FileSystemFreezer(Path({str(marker)!r})).freeze([mount_of_path({str(root)!r})], 60)
os.kill(os.getpid(), signal.SIGKILL)
"""
    python = Path(__file__).parents[2] / ".venv/bin/python"
    done = subprocess.run([str(python), "-c", program], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert writer(root).wait(10) == 0


def test_when_both_are_killed_at_once_the_marker_lets_the_next_start_thaw(freezer, root, tmp_path):
    freezer.freeze([mount_of_path(root)], 60)
    os.kill(freezer.helper_pid, signal.SIGKILL)
    one = writer(root)
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.3)
    assert thaw_leftover(tmp_path / "marker")
    assert one.wait(10) == 0
    assert not thaw_leftover(tmp_path / "marker")


def test_a_file_system_without_freezing_and_one_that_is_frozen_already_are_reported(freezer, root, tmp_path):
    memory = tmp_path / "memory"
    memory.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", memory)
    try:
        with pytest.raises(CannotFreeze, match=r"tmpfs at .* cannot be frozen"):
            freezer.freeze([mount_of_path(root), mount_of_path(memory)], 5)
        assert writer(root).wait(10) == 0, "nothing is left frozen by an attempt that failed"
    finally:
        run("umount", memory)
    run("fsfreeze", "--freeze", root)
    try:
        with pytest.raises(DeviceError, match="frozen already"):
            freezer.freeze([mount_of_path(root)], 5)
    finally:
        run("fsfreeze", "--unfreeze", root)


def test_only_file_systems_that_can_be_written_and_lie_on_the_source_are_to_be_frozen(root, tmp_path):
    mount = mount_of_path(root)
    device = BlockDevice.from_number(mount.major, mount.minor)
    assert [found.point for found in look(device, ROOM).mounts] == [str(root)]
    with loop_device(tmp_path, 8 << 20) as other:
        assert look(BlockDevice.identify(other.path), ROOM).kind == "quiescent"
    run("mount", "-o", "remount,ro", root)
    assert look(device, ROOM).kind == "quiescent"


def test_the_root_file_system_is_never_frozen():
    mount = mount_of_path("/")
    if not mount.major:
        pytest.skip("the root file system of this machine lies on no block device")
    with pytest.raises(UsageError, match="root file system"):
        look(BlockDevice.from_number(mount.major, mount.minor), ROOM)


def test_the_helper_goes_with_its_owner(freezer):
    freezer.start()
    pid = freezer.helper_pid
    freezer.close()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the helper is gone")
