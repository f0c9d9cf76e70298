"""The program's view of a block device is that of the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydbt.core.errors import DeviceError, UsageError
from pydbt.core.units import MIB
from pydbt.device import usage
from pydbt.device.mounts import mount_of_path, parse_mount, read_mounts
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.boot import boot_id
from pydbt.posix.disk_identity import lasting_name, slot_of
from tests.lab.disks import image, loop_over, mounted, partition_of, swap_on, zram_device
from tests.lab.patience import run, wait_until


def test_a_whole_disk_is_described_as_blockdev_describes_it(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 10 * MIB + 3 * 512)) as disk:
        path = str(disk)
        device = BlockDevice.identify(path)
        assert device.size_bytes == int(run("blockdev", "--getsize64", path)) == 10 * MIB + 3 * 512
        assert device.logical_block_bytes == int(run("blockdev", "--getss", path))
        assert device.number == device.disk_number == (7, int(path.removeprefix("/dev/loop")))
        assert (device.path, device.partition, device.start_sector) == (path, None, 0)
        assert not device.bio_based and not device.read_only
        assert device.backing_file() == str(tmp_path / "a")
        assert device.identity()["backing_file"] == str(tmp_path / "a")


def test_a_partition_knows_its_disk_and_where_it_begins_on_it(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 10 * MIB)) as disk, partition_of(disk, 2, 2048, 4099) as path:
        device = BlockDevice.identify(path)
        whole = BlockDevice.identify(disk)
        assert (device.partition, device.start_sector, device.size_sectors) == (2, 2048, 4099)
        assert device.disk_number == whole.number and device.disk().number == whole.number
        assert device.number != whole.number
        assert [part.number for part in whole.partitions()] == [device.number]
        assert device.overlaps(whole) and whole.overlaps(device)
        with partition_of(disk, 3, 8192, 2048) as other:
            assert not device.overlaps(BlockDevice.identify(other))
            assert [part.partition for part in whole.partitions()] == [2, 3]


def test_a_symbolic_link_names_the_device_it_leads_to(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", MIB)) as path:
        (tmp_path / "disk").symlink_to(path)
        assert BlockDevice.identify(tmp_path / "disk") == BlockDevice.identify(path)


def test_devices_of_4096_byte_sectors_and_read_only_devices_are_recognized(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", MIB), "--sector-size", "4096", "--read-only") as path:
        device = BlockDevice.identify(path)
        assert device.logical_block_bytes == 4096 and device.read_only


def test_a_device_without_a_request_queue_completes_bios() -> None:
    control = Path("/sys/class/zram-control")
    if not control.exists():
        run("modprobe", "zram")
    number = int((control / "hot_add").read_text())
    try:
        wait_until(lambda: os.path.exists(f"/dev/zram{number}"), "the device file appears")
        device = BlockDevice.identify(f"/dev/zram{number}")
        assert device.bio_based and device.size_bytes == 0
    finally:
        (control / "hot_remove").write_text(str(number))
    with pytest.raises(DeviceError, match="vanished"):
        device.counters()
    assert not device.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing", "does not exist"), ("file", "regular file.*losetup"), ("folder", "directory"), ("null", "character")],
)
def test_a_path_that_is_not_a_block_device_is_refused_in_one_sentence(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(UsageError, match=words) as caught:
        BlockDevice.identify(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_counters_count_every_write_and_sector(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 4 * MIB)) as path:
        device = BlockDevice.identify(path)
        before = device.counters()
        run("dd", "if=/dev/zero", f"of={path}", "bs=4096", "count=31", "oflag=direct", "status=none")
        after = device.counters()
        assert after.writes - before.writes == 31
        assert after.write_sectors - before.write_sectors == 31 * 8
        run("blkdiscard", "-o", 65536, "-l", 65536, path)
        assert device.counters().discard_sectors - before.discard_sectors == 128
        assert device.in_flight_writes() == 0 and device.counts_io()


def test_a_read_shows_whether_the_kernel_counts_where_iostats_does_not_show_it(tmp_path: Path) -> None:
    """zram counts its bios whatever iostats says, as dm does before v6.5; a loop device counts nothing when it is off."""
    with loop_over(image(tmp_path / "a", MIB)) as path, zram_device(MIB) as other:
        switches = [Path("/sys/block") / place.name / "queue/iostats" for place in (Path(path), other.path)]
        try:
            for switch in switches:
                switch.write_text("0")
            assert not BlockDevice.identify(path).counts_io()
        finally:
            switches[0].write_text("1")  # it outlives the loop device, and the next one of that number would have it
        device = BlockDevice.identify(other.path)
        before = device.counters()
        run("dd", "if=/dev/zero", f"of={other.path}", "bs=4096", "count=3", "oflag=direct", "status=none")
        counted = device.counters().write_sectors - before.write_sectors
        assert counted in (0, 24)
        assert device.counts_io() == (counted == 24)


def test_a_loop_device_that_is_attached_again_is_another_disk(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", MIB)) as path:
        first = BlockDevice.identify(path).disk_sequence()
    with loop_over(tmp_path / "a") as path:
        assert BlockDevice.identify(path).disk_sequence() != first
    assert first is not None and len(boot_id()) == 36


def test_mounts_of_a_device_are_found_also_when_bound_elsewhere(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 20 * MIB)) as path:
        run("mkfs.ext4", "-q", path)
        device = BlockDevice.identify(path)
        assert device.mounts() == []
        # A name that mountinfo writes with escapes.
        with mounted(path, tmp_path / "a mount") as point, mounted(str(point), tmp_path / "bound", "--bind"):
            assert [mount.point for mount in device.mounts()] == [str(point), str(tmp_path / "bound")]
            assert {mount.fs_type for mount in device.mounts()} == {"ext4"}
            found = mount_of_path(point)
            assert found is not None and found.point == str(point)


def test_every_member_of_a_btrfs_is_in_use(tmp_path: Path) -> None:
    with (
        loop_over(image(tmp_path / "a", 130 * MIB)) as one,
        loop_over(image(tmp_path / "b", 130 * MIB)) as two,
    ):
        run("mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "raid1", one, two)
        run("btrfs", "device", "scan", one, two)
        try:
            with mounted(one, tmp_path / "mount"):
                for path in (one, two):
                    assert [mount.fs_type for mount in BlockDevice.identify(path).mounts()] == ["btrfs"]
        finally:
            run("btrfs", "device", "scan", "--forget", one)


def test_swap_is_recognized(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 2 * MIB)) as path:
        device = BlockDevice.identify(path)
        assert not device.is_swap()
        with swap_on(path):
            assert device.is_swap() and usage.swap_on(device) == [str(path)]
        assert usage.swap_on(device) == []


def test_a_swap_file_on_a_file_system_of_the_volume_is_swap_on_the_volume(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 32 * MIB)) as path, loop_over(image(tmp_path / "b", 2 * MIB)) as other:
        run("mkfs.ext4", "-q", path)
        with mounted(path, tmp_path / "mount") as point:
            (point / "swap").write_bytes(bytes(4 * MIB))
            (point / "swap").chmod(0o600)
            with swap_on(point / "swap"):
                assert usage.swap_on(BlockDevice.identify(path)) == [str(point / "swap")]
                assert usage.swap_on(BlockDevice.identify(other)) == []


def test_a_mount_line_is_read_whole_even_with_odd_fields() -> None:
    line = r"36 35 98:0 /mnt1 /mnt2/a\040b rw,noatime master:1 propagate_from:2 - ext3  rw,errors=continue"
    mount = parse_mount(line)
    assert mount is not None
    assert (mount.mount_id, mount.major, mount.minor) == (36, 98, 0)
    assert (mount.point, mount.fs_type, mount.source) == ("/mnt2/a b", "ext3", "")
    assert mount.super_option("errors") == "continue" and not mount.read_only
    assert "proc" in {mount.fs_type for mount in read_mounts()}


def test_virtio_disks_without_a_serial_number_that_change_names_are_identified_by_their_slots(tmp_path):
    names = []
    for slot in ("0000:00:05.0", "0000:00:06.0"):
        device = tmp_path / "devices" / slot / "virtio3"
        disk = device / "block" / "vdb"
        (disk / "vdb1").mkdir(parents=True)
        (disk / "device").symlink_to(device)
        (disk / "vdb1" / "partition").write_text("1\n")
        names += [lasting_name(disk), lasting_name(disk / "vdb1")]
    assert len(set(names)) == 4 and all("0000:00:0" in name for name in names)
    (disk / "serial").write_text("ours\n")
    assert lasting_name(disk) == "ours", "a serial number goes with the disk"
    assert slot_of(tmp_path / "devices") is None
