"""Which open files may be asked for their status: none on a network file system, whose server may be gone."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pydbt.device import usage
from pydbt.device.mount_kinds import MountKinds
from pydbt.device.sysfs import BlockDevice

MOUNTINFO = """\
20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
21 20 0:40 / /net rw,relatime - nfs4 server:/export rw,vers=4.2
22 20 0:41 / /home/u/m rw,nosuid,nodev - fuse.sshfs host:/ rw
23 20 0:42 / /tmp rw,nosuid,nodev shared:5 - tmpfs tmpfs rw
24 20 0:43 / /var/lib/c/merged rw - overlay overlay rw,lowerdir=/l
"""


@pytest.mark.parametrize(
    ("mount_id", "asked"), [(20, True), (21, False), (22, False), (23, False), (24, True), (99, False)]
)
def test_only_a_local_file_system_that_can_hold_device_nodes_is_asked(
    tmp_path: Path, mount_id: int, asked: bool
) -> None:
    for folder in ("fd", "fdinfo", "ns"):
        (tmp_path / "17" / folder).mkdir(parents=True)
    (tmp_path / "17/mountinfo").write_text(MOUNTINFO)
    os.symlink("mnt:[4026531841]", tmp_path / "17/ns/mnt")
    (tmp_path / "17/fdinfo/3").write_text(f"pos:\t0\nflags:\t0100002\nmnt_id:\t{mount_id}\nino:\t5\n")
    assert MountKinds().may_hold_devices(f"{tmp_path}/17/fd/3") is asked


def test_an_open_file_of_this_process_is_found_with_its_mount(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        here = "nodev" not in os.popen(f"findmnt -no OPTIONS -T {tmp_path}").read()
        assert MountKinds().may_hold_devices(f"/proc/{os.getpid()}/fd/{file.fileno()}") is here


def test_an_open_file_with_a_name_that_is_no_text_ends_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user names a dma-buf as he likes."""
    for folder in ("fd", "fdinfo", "ns"):
        (tmp_path / "17" / folder).mkdir(parents=True)
    (tmp_path / "17/mountinfo").write_text(MOUNTINFO)
    os.symlink("mnt:[4026531841]", tmp_path / "17/ns/mnt")
    os.symlink(b"/dmabuf:\xff\xfe", tmp_path / "17/fd/3")
    (tmp_path / "17/fdinfo/3").write_bytes(b"pos:\t0\nflags:\t0100002\nmnt_id:\t20\nname:\t\xff\xfe\n")
    monkeypatch.setattr(usage, "_PROC", tmp_path)
    monkeypatch.setattr(usage, "all_disks", list)
    assert usage.other_user(cast("BlockDevice", SimpleNamespace())) == ""
