"""Whether a device was written while it was not tracked: shown by the kernel within a boot, by the file system after one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.device import clean
from pydbt.device.block import DirectReader
from pydbt.device.clean import clean_marker, is_untouched
from pydbt.device.fingerprint import fingerprint
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import loop_device, mounted, partition_of
from tests.lab.patience import run

MIB = 1 << 20
MAKE = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
SIZE = 320 * MIB


def marker_of(path: Path) -> dict[str, object]:
    device = BlockDevice.identify(path)
    with DirectReader(device) as reader:
        return clean_marker(device, reader)


def untouched(path: Path, marker: dict[str, object]) -> bool:
    device = BlockDevice.identify(path)
    with DirectReader(device) as reader:
        return is_untouched(marker, device, reader)


def reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "boot_id", lambda: "another boot")


@pytest.mark.parametrize("kind", MAKE)
def test_after_a_reboot_an_untouched_file_system_is_recognized(tmp_path, kind, monkeypatch):
    with loop_device(tmp_path, SIZE) as disk:
        run(*MAKE[kind], disk.path)
        marker = marker_of(disk.path)
        assert untouched(disk.path, marker)
        reboot(monkeypatch)
        assert untouched(disk.path, marker)
        if kind == "ext4":  # XFS clears what lies ahead in its log, also when it is mounted for reading alone
            with mounted(disk, tmp_path / "mnt", "-o", "ro"):
                pass
            assert untouched(disk.path, marker), "mounting it for reading alone wrote to it"


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("what", ["mount", "write a file", "check", "make anew", "mounted now"])
def test_after_a_reboot_every_use_of_the_file_system_is_noticed(tmp_path, kind, what, monkeypatch):
    with loop_device(tmp_path, SIZE) as disk:
        run(*MAKE[kind], disk.path)
        marker = marker_of(disk.path)
        reboot(monkeypatch)
        match what:
            case "mount" | "write a file":
                with mounted(disk, tmp_path / "mnt") as folder:
                    if what == "write a file":
                        (folder / "file").write_bytes(b"x" * MIB)
            case "check":
                run(*({"ext4": ("tune2fs", "-L", "other"), "xfs": ("xfs_admin", "-L", "other")}[kind]), disk.path)
            case "make anew":
                run(*MAKE[kind], disk.path)
            case "mounted now":
                with mounted(disk, tmp_path / "mnt"):
                    assert not untouched(disk.path, marker)
        assert not untouched(disk.path, marker)


def test_within_a_boot_a_single_write_past_the_file_system_is_noticed(tmp_path):
    with loop_device(tmp_path, SIZE) as disk:
        run(*MAKE["ext4"], disk.path)
        marker = marker_of(disk.path)
        assert untouched(disk.path, marker)
        run("dd", "if=/dev/zero", f"of={disk.path}", "bs=4k", "count=1", "seek=5000", "oflag=direct", "status=none")
        assert not untouched(disk.path, marker)


def write_directly(path: Path, **where: int) -> None:
    run("dd", "if=/dev/zero", f"of={path}", "bs=4k", "count=1", f"seek={where['block']}", "oflag=direct", "status=none")


def test_within_a_boot_a_write_to_a_partition_by_way_of_its_disk_is_noticed_and_not_mixed_up_with_its_neighbours(
    tmp_path,
):
    with (
        loop_device(tmp_path, 32 * MIB, partitions=True) as disk,
        partition_of(disk, 1, 2048, 16384) as part,
        partition_of(disk, 2, 20480, 16384) as neighbour,
    ):
        marker = marker_of(part.path)
        assert untouched(part.path, marker)
        write_directly(neighbour.path, block=5)
        # (The file behind the loop device shows it all the same; a real disk has none.)
        changed = {name for name, value in marker_of(part.path).items() if value != marker[name]}
        assert changed == {"backing_file"}
        marker = marker_of(part.path)
        write_directly(disk.path, block=300)
        assert not untouched(part.path, {**marker, "backing_file": marker_of(part.path)["backing_file"]})


def test_within_a_boot_a_write_to_the_file_behind_a_loop_device_is_noticed(tmp_path):
    with loop_device(tmp_path, 16 * MIB) as disk:
        marker = marker_of(disk.path)
        assert untouched(disk.path, marker)
        with next(tmp_path.glob("disk-*.img")).open("r+b") as file:
            file.write(b"restored")
        assert not untouched(disk.path, marker)


def test_counts_that_the_kernel_did_not_keep_prove_nothing(tmp_path):
    with loop_device(tmp_path, 16 * MIB) as disk:
        counting = Path("/sys/block") / disk.path.name / "queue/iostats"
        counting.write_text("0")
        marker = marker_of(disk.path)
        write_directly(disk.path, block=5)
        counting.write_text("1")
        assert not untouched(disk.path, marker)


def test_a_mounted_file_system_has_no_fingerprint_for_a_later_boot(tmp_path, monkeypatch):
    with loop_device(tmp_path, SIZE) as disk:
        run(*MAKE["ext4"], disk.path)
        with mounted(disk, tmp_path / "mnt"):
            marker = marker_of(disk.path)
        assert marker["filesystem"] is None
        reboot(monkeypatch)
        assert not untouched(disk.path, marker)


def test_a_device_without_a_known_file_system_has_no_fingerprint(tmp_path):
    with loop_device(tmp_path, 16 * MIB) as disk, DirectReader(BlockDevice.identify(disk.path)) as reader:
        assert fingerprint(reader) is None


@pytest.mark.parametrize("marker", [None, {}])
def test_without_the_marker_of_a_clean_stop_nothing_is_known(marker: dict[str, object] | None) -> None:
    assert not is_untouched(marker, BlockDevice.from_number(7, 0))


def test_without_a_reader_the_device_is_opened_for_the_look(tmp_path: Path) -> None:
    with loop_device(tmp_path, MIB) as disk:
        marker = marker_of(disk.path)
        assert is_untouched(marker, BlockDevice.identify(disk.path))
        run("dd", "if=/dev/zero", f"of={disk.path}", "bs=4k", "count=1", "oflag=direct", "status=none")
        assert not is_untouched(marker, BlockDevice.identify(disk.path))
