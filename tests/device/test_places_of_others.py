"""Files of another user, in a mount namespace of his own or open: root opens none of them unseen, and waits for none."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pydbt.core.errors import DeviceError
from pydbt.device import freeze, holdable, mounts, usage
from pydbt.device.freeze import FileSystemFreezer
from pydbt.device.freezer import mount_id_of_descriptor, open_point
from pydbt.device.mounts import Mount, mounts_of, mounts_on
from pydbt.device.sysfs import BlockDevice
from pydbt.device.usage import is_used
from tests.lab.disks import loop_device
from tests.lab.patience import wait_until


def within(seconds: float, work: Callable[[], object]) -> None:
    """It ends in time, whatever its end is."""

    def run() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"it did not end within {seconds} s"


def mount_id(path: Path) -> int:
    descriptor = os.open(path, os.O_PATH)
    try:
        return mount_id_of_descriptor(descriptor) or 0
    finally:
        os.close(descriptor)


def test_a_pipe_in_the_place_of_a_mount_point_is_not_opened(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for point, number in ((pipe, 1), (link, 1), (pipe, mount_id(tmp_path)), (link, mount_id(tmp_path))):
        within(10, lambda point=point, number=number: open_point(str(point), number))  # type: ignore[misc]
        with pytest.raises(OSError):
            open_point(str(point), number)
        with pytest.raises(OSError):  # ENXIO: nobody has it open
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def test_a_folder_and_a_file_can_be_mount_points_and_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = set(os.listdir("/proc/self/fd"))
    for point in (tmp_path, tmp_path / "file"):
        os.close(open_point(str(point), mount_id(tmp_path)))
        with pytest.raises(OSError, match="another mount"):
            open_point(str(point), mount_id(Path("/proc")))
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_link_to_the_log_in_the_place_of_a_mount_forbids_no_freeze(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.touch()
    there = mounts.mount_of_path(log)
    assert there is not None
    status, number = os.stat(log), there.mount_id
    monkeypatch.setattr(holdable.os, "fstat", lambda _: status)
    monkeypatch.setattr(holdable, "mount_id_of_descriptor", lambda _: number)
    point = tmp_path / "point"
    point.symlink_to(tmp_path)
    his = Mount(-1, 7, 77, str(point), ("rw",), "ext4", "/dev/loop77", ("rw",))
    logged = holdable._logged_to([his, there])
    assert (7, 77) not in logged and (there.major, there.minor) in logged


def test_a_helper_that_gives_no_answer_is_left_to_end_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_ANSWER_S", "_END_S"):
        monkeypatch.setattr(freeze, name, 0.2)
    freezer = FileSystemFreezer(tmp_path / "marker")
    freezer.start()
    pid = freezer.helper_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(DeviceError, match="no answer within"):
            freezer.freeze([], 0.1)
        assert (tmp_path / "marker").exists(), "the next start thaws what it may freeze yet"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not freeze._is_helper(pid), "it ends with its input")
    freezer.freeze([], 1)
    freezer.thaw()
    freezer.close()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, list[str]], None]:
    """A folder in the place of /proc: the mountinfo of processes, each in a namespace of its own."""
    monkeypatch.setattr(mounts, "_PROC", tmp_path)

    def process(pid: int, lines: list[str]) -> None:
        for name in (str(pid), "self") if pid == 1 else (str(pid),):
            (tmp_path / name / "ns").mkdir(parents=True)
            (tmp_path / name / "ns/mnt").symlink_to(f"mnt:[{pid}]")
            (tmp_path / name / "mountinfo").write_text("".join(f"{line}\n" for line in lines))

    return process


def test_mounts_of_other_users_on_other_devices_are_not_parsed(
    machine: Callable[[int, list[str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    parse = mounts.parse_mount
    monkeypatch.setattr(mounts, "parse_mount", lambda line: read.append(line) or parse(line))
    on_root = [f"{number} 1 8:1 / /many/{number} rw - ext4 /dev/sda1 rw" for number in range(1000, 6000)]
    in_memory = [f"{number} 1 0:44 / /t/{number} rw - tmpfs /dev/loop7 rw" for number in range(6000, 7000)]
    named = ["7001 1 8:1 / /a\\0407:7\\040b rw - ext4 /dev/sda1 rw", "7002 1 8:1 / /7:7 rw - xfs /dev/sda1 rw"]
    his = "7003 1 7:7 / /his rw - ext4 /dev/loop7 rw"
    machine(1, ["20 1 8:1 / / rw - ext4 /dev/sda1 rw", "21 1 7:7 / /mnt rw - ext4 /dev/loop7 rw"])
    machine(2, [*on_root, *in_memory, *named, his])
    for found in (mounts_on([(7, 7)]), mounts_of(7, 7)):
        assert [mount.mount_id for mount in found] == [21, 7003]
        assert found[1].point.endswith("/2/root/his")
    assert len(read) == 2 * (2 + 1)


def test_a_mount_that_has_the_device_as_a_side_device_or_a_member_is_read(
    machine: Callable[[int, list[str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_device_number", lambda path, root: (7, 7) if path == "/dev/loop7" else None)
    monkeypatch.setattr(mounts, "_BTRFS", Path("/nonexistent"))
    machine(1, ["20 1 8:1 / / rw - ext4 /dev/sda1 rw"])
    machine(
        2,
        [
            "30 1 8:1 / /x rw - xfs /dev/sda1 rw,logdev=/dev/loop7",
            "31 1 8:1 / /y rw - xfs /dev/sda1 rw,logbufs=8,rtdev=/dev/loop7",
            "32 1 0:50 / /z rw - btrfs /dev/loop7 rw",
            "33 1 0:51 / /c rw - bcachefs /dev/loop6:/dev/loop7 rw",
            "34 1 8:1 / /n rw - xfs /dev/sda1 rw",
        ],
    )
    assert [mount.mount_id for mount in mounts_on([(7, 7)])] == [30, 31, 32, 33]


def test_a_device_whose_users_take_too_long_to_find_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loop_device(tmp_path, 1 << 20) as disk:
        device = BlockDevice.identify(disk.path)
        assert not is_used(device)
        with open(disk.path, "r+b"):
            assert is_used(device)
        monkeypatch.setattr(usage, "_LOOK_S", -1.0)
        assert is_used(device)
