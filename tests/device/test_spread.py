"""A file system of which a part lies on another device is refused as SOURCE, and the sentence names that device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.errors import UsageError
from pydbt.core.units import MIB
from pydbt.device.checks import check_source
from pydbt.device.spread import parts_elsewhere
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import Device, loop_device, make_filesystem, mounted, partition_of
from tests.lab.patience import run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Device]:
    with loop_device(tmp_path, 400 * MIB) as device:
        yield device


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Device]:
    with loop_device(tmp_path, 320 * MIB) as device:
        yield device


def refusal_of(disk: Device, tmp_path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        check_source(disk, tmp_path / "state")
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 300
    return sentence


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_system_on_one_device_is_accepted(disk: Device, tmp_path: Path, kind: str) -> None:
    make_filesystem(kind, disk)
    check_source(disk, tmp_path / "state")


def test_an_ext4_with_an_external_journal_is_refused_and_so_is_its_journal(
    disk: Device, other: Device, tmp_path: Path
) -> None:
    run("mke2fs", "-q", "-F", "-O", "journal_dev", "-b", "4096", other)
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", f"device={other}", disk)
    assert f"{disk} has an ext4 with its journal on {other}" in refusal_of(disk, tmp_path)
    with mounted(disk, tmp_path / "mount"):
        assert str(other) in refusal_of(disk, tmp_path)
    assert "journal of an ext4" in refusal_of(other, tmp_path)


def test_the_journal_is_named_by_its_uuid_when_the_device_is_gone(disk: Device, tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as journal:
        run("mke2fs", "-q", "-F", "-O", "journal_dev", "-b", "4096", journal)
        uuid = run("blkid", "-p", "-o", "value", "-s", "UUID", journal).strip()
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", f"device={journal}", disk)
    assert uuid in refusal_of(disk, tmp_path)


@pytest.mark.parametrize(
    ("option", "mount_option", "part"), [("-l", "logdev", "log"), ("-r", "rtdev", "realtime section")]
)
def test_an_xfs_with_an_external_log_or_a_realtime_device_is_refused(
    disk: Device, other: Device, tmp_path: Path, option: str, mount_option: str, part: str
) -> None:
    run(
        "mkfs.xfs",
        "-q",
        "-f",
        *(("-m", "reflink=0,rmapbt=0") if option == "-r" else ()),
        option,
        f"{mount_option}={other}",
        disk,
    )
    assert f"{disk} has an XFS with its {part} on another device" in refusal_of(disk, tmp_path)
    if option == "-l":  # not every kernel has realtime sections
        with mounted(disk, tmp_path / "mount", "-o", f"{mount_option}={other}"):
            assert f"on {other}" in refusal_of(disk, tmp_path)


def test_a_btrfs_on_several_devices_is_refused(disk: Device, other: Device, tmp_path: Path) -> None:
    run("mkfs.btrfs", "-q", "-f", disk)
    assert parts_elsewhere(BlockDevice.identify(disk)) is None
    run("mkfs.btrfs", "-q", "-f", "-d", "single", disk, other)
    for member in (disk, other):
        assert "a btrfs with a part on another device" in refusal_of(member, tmp_path)


def test_a_journal_on_another_partition_of_the_source_belongs_to_it(tmp_path: Path) -> None:
    with (
        loop_device(tmp_path, 300 * MIB, partitions=True) as disk,
        partition_of(disk, 1, 2048, 2 * 65536) as part,
        partition_of(disk, 2, 2048 + 2 * 65536, 65536) as journal,
    ):
        run("mke2fs", "-q", "-F", "-O", "journal_dev", "-b", "4096", journal)
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", f"device={journal}", part)
        assert str(journal) in refusal_of(part, tmp_path)
        check_source(disk, tmp_path / "state")
