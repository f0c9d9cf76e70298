"""An action that would destroy data or never end is refused before it begins, in one sentence with the reason."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pydbt.core.errors import BusyError, PydbtError, UsageError
from pydbt.core.units import MIB
from pydbt.device.checks import check_pair, check_source, check_target, require_unused, state_on_source
from pydbt.device.stacking import FileRange, places_under
from pydbt.device.sysfs import BlockDevice
from pydbt.device.target import create_image
from pydbt.device.usage import is_used
from tests.lab.disks import image, loop_over, mounted, partition_of, swap_on
from tests.lab.patience import run


@contextmanager
def refused(kind: type[PydbtError], *words: object) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 300
    for word in words:
        assert str(word) in sentence, sentence


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    with loop_over(image(tmp_path / "disk.img", 64 * MIB)) as device:
        yield str(device)


# SOURCE


def test_a_block_device_mounted_or_not_is_a_source(tmp_path: Path, disk: str) -> None:
    assert check_source(disk, tmp_path / "state" / "deeper").path == disk
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, tmp_path / "mount"):
        check_source(disk, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_source_without_a_size_is_refused(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "empty", 0)) as path, refused(UsageError, path, "size of 0"):
        check_source(path, tmp_path)


@pytest.mark.parametrize("place", [".", "not/yet/made"])
def test_a_state_directory_on_the_source_is_refused_also_one_to_be_made(tmp_path: Path, disk: str, place: str) -> None:
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, tmp_path / "mount") as point, refused(UsageError, "state directory", str(point), disk):
        check_source(disk, point / place)


def test_a_state_directory_on_a_partition_of_the_source_is_refused(tmp_path: Path, disk: str) -> None:
    with partition_of(disk, 1, 2048, 60 * 2048) as part:
        run("mkfs.ext4", "-q", part)
        with mounted(part, tmp_path / "mount") as point, refused(UsageError, "state directory", disk):
            check_source(disk, point)


def test_a_state_directory_on_loops_stacked_over_the_source_is_refused(tmp_path: Path, disk: str) -> None:
    with ExitStack() as stack:
        path, size_mib = disk, 64
        for level in range(3):
            run("mkfs.ext4", "-q", path)
            point = stack.enter_context(mounted(path, tmp_path / f"mount{level}"))
            with refused(UsageError, "state directory", disk):
                check_source(disk, point)
            size_mib //= 2
            path = stack.enter_context(loop_over(image(point / "upper.img", size_mib * MIB)))


def test_a_state_directory_on_a_neighbouring_partition_is_allowed(tmp_path: Path, disk: str) -> None:
    with partition_of(disk, 1, 2048, 20 * 2048) as first, partition_of(disk, 2, 22 * 2048, 20 * 2048) as second:
        run("mkfs.ext4", "-q", first)
        with mounted(first, tmp_path / "mount") as point:
            check_source(second, point)
            with refused(UsageError, "state directory"):
                check_source(disk, point)


def test_a_state_directory_on_btrfs_or_overlay_over_the_source_is_refused(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", 130 * MIB)) as path:
        run("mkfs.btrfs", "-q", "-f", path)
        with mounted(path, tmp_path / "mount") as point:
            run("btrfs", "subvolume", "create", point / "volume")
            with refused(UsageError, "state directory"):
                check_source(path, point / "volume")
            for name in ("upper", "work", "lower"):
                (point / name).mkdir()
            options = f"upperdir={point}/upper,workdir={point}/work,lowerdir={point}/lower"
            with mounted("none", tmp_path / "over", "-t", "overlay", "-o", options) as over:
                assert state_on_source(BlockDevice.identify(path), over)


def test_an_unlinked_backing_file_still_counts(tmp_path: Path, disk: str) -> None:
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, tmp_path / "one") as one, loop_over(image(one / "two.img", 30 * MIB)) as second:
        (one / "two.img").unlink()
        run("mkfs.ext4", "-q", second)
        with mounted(second, tmp_path / "two") as two, refused(UsageError, "state directory"):
            check_source(disk, two)


# TARGET


def test_a_free_device_or_file_is_a_target(tmp_path: Path, disk: str) -> None:
    assert check_target(disk, size_bytes=64 * MIB).path == disk
    assert check_target(image(tmp_path / "t.img", MIB), size_bytes=MIB) is None
    assert check_target(tmp_path / "new.img", create_bytes=MIB, size_bytes=MIB) is None
    assert not (tmp_path / "new.img").exists()


def test_the_refusal_of_a_missing_target_names_create(tmp_path: Path) -> None:
    with refused(UsageError, "does not exist", "--create SIZE"):
        check_target(tmp_path / "missing")
    with refused(UsageError, "is not a directory"):
        check_target(tmp_path / "no" / "missing", create_bytes=MIB)


def test_a_directory_or_character_device_is_no_target(tmp_path: Path) -> None:
    for path in (tmp_path, "/dev/null"):
        with refused(UsageError, "neither a block device nor an image file"):
            check_target(path)


def test_a_smaller_target_is_refused_with_both_sizes(tmp_path: Path, disk: str) -> None:
    with refused(UsageError, "smaller", str(64 * MIB), str(64 * MIB + 512)):
        check_target(disk, size_bytes=64 * MIB + 512)
    with refused(UsageError, "smaller"):
        check_target(tmp_path / "new.img", create_bytes=MIB, size_bytes=2 * MIB)


def test_a_mounted_target_is_refused_with_the_mount_point(tmp_path: Path, disk: str) -> None:
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, tmp_path / "mount") as point, refused(BusyError, "mounted at", str(point)):
        check_target(disk)


def test_a_disk_with_a_mounted_partition_is_refused_and_so_is_the_partition(tmp_path: Path, disk: str) -> None:
    with partition_of(disk, 1, 2048, 40 * 2048) as part, partition_of(disk, 2, 42 * 2048, 2048) as free:
        run("mkfs.ext4", "-q", part)
        with mounted(part, tmp_path / "mount"):
            for path in (disk, part):
                with refused(BusyError, path, "mounted"):
                    check_target(path)
            check_target(free)


def test_a_target_mounted_in_another_namespace_is_refused(tmp_path: Path, disk: str) -> None:
    """Such a mount is in no mountinfo of ours, and is reached through a process that lives there."""
    run("mkfs.ext4", "-q", disk)
    (tmp_path / "mount").mkdir()
    script = f"mount {disk} {tmp_path}/mount && echo mounted && read line"
    elsewhere = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert elsewhere.stdout is not None and elsewhere.stdout.readline() == "mounted\n"
        (mount,) = BlockDevice.identify(disk).mounts()
        assert mount.point == f"/proc/{elsewhere.pid}/root{tmp_path}/mount"
        with refused(BusyError, f"is mounted at {mount.point}"):
            check_target(disk)
    finally:
        elsewhere.communicate("\n")


def test_swap_is_no_target(tmp_path: Path, disk: str) -> None:
    with swap_on(disk), refused(BusyError, "swap"):
        check_target(disk)


def test_a_read_only_target_is_refused(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "a", MIB), "--read-only") as path, refused(UsageError, "read-only"):
        check_target(path)


def test_a_device_that_another_program_claims_is_refused(disk: str) -> None:
    claim = os.open(disk, os.O_RDWR | os.O_EXCL)
    try:
        with refused(BusyError, "holds it exclusively"):
            check_target(disk)
    finally:
        os.close(claim)
    check_target(disk)


def test_a_device_that_a_program_or_a_loop_device_uses_without_a_claim_is_refused_with_its_name(
    tmp_path: Path, disk: str
) -> None:
    """A virtual machine's emulator and a loop device do not hold their device exclusively."""
    device, node = BlockDevice.identify(disk), tmp_path / "node of a container"
    os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(*device.number))
    with loop_over(Path(disk)) as above:
        refused_as_used(device, above, "losetup -d")
    for name in (disk, str(node)):
        for flags in (os.O_RDWR, os.O_WRONLY | os.O_DIRECT):
            with opened(name, flags):
                refused_as_used(device, f"process {os.getpid()} (", "open for writing")
    with opened(disk, os.O_RDONLY), opened(str(node), os.O_RDONLY):
        check_target(disk)
        require_unused(device, disk)


@contextmanager
def opened(path: str, flags: int) -> Iterator[None]:
    descriptor = os.open(path, flags)
    try:
        yield
    finally:
        os.close(descriptor)


def refused_as_used(device: BlockDevice, *words: object) -> None:
    """As ``secondary``, ``demote`` and ``promote`` ask, and as ``switchover`` does. Exit code 4."""
    assert BusyError.exit_code == 4 and is_used(device)
    with refused(BusyError, device.path, "in use", *words):
        check_target(device.path)
    with refused(BusyError, device.path, "in use", *words):
        require_unused(device, device.path)


def test_an_image_file_that_is_attached_is_refused_under_any_of_its_names(tmp_path: Path, disk: str) -> None:
    os.link(tmp_path / "disk.img", tmp_path / "other-name.img")
    for name in ("disk.img", "other-name.img"):
        with refused(BusyError, "attached to", disk):
            check_target(tmp_path / name)


def test_a_state_directory_on_the_target_is_refused(tmp_path: Path, disk: str) -> None:
    with partition_of(disk, 1, 2048, 40 * 2048) as part:
        run("mkfs.ext4", "-q", part)
        with mounted(part, tmp_path / "mount") as point, refused(PydbtError, "TARGET"):
            check_target(disk, state_dir=point)


# SOURCE and TARGET together


def test_the_source_itself_is_no_target(tmp_path: Path, disk: str) -> None:
    (tmp_path / "link").symlink_to(disk)
    with refused(UsageError, "is the SOURCE itself"):
        check_target(tmp_path / "link", source=disk)


def test_a_partition_of_the_source_or_the_disk_around_it_is_no_target(disk: str) -> None:
    with partition_of(disk, 1, 2048, 2048) as part:
        with refused(UsageError, "whole disk", "a partition of it", part):
            check_target(part, source=disk)
        with refused(UsageError, "the whole disk that SOURCE", part):
            check_target(disk, source=part)
        with partition_of(disk, 2, 8192, 2048) as other:
            check_target(other, source=part)


def test_an_image_file_on_the_source_is_refused_also_one_to_be_made(tmp_path: Path, disk: str) -> None:
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, tmp_path / "mount") as point:
        image(point / "t.img", MIB)
        for options in ({"target": point / "t.img"}, {"target": point / "new.img", "create_bytes": MIB}):
            target = options.pop("target")
            with refused(UsageError, "lies on SOURCE", disk):
                check_target(target, source=disk, **options)
        with loop_over(point / "t.img") as upper, refused(UsageError, "lies on SOURCE"):
            check_target(upper, source=disk)


def test_a_target_that_carries_the_source_is_refused(tmp_path: Path, disk: str) -> None:
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, tmp_path / "mount") as point, loop_over(image(point / "s.img", MIB)) as source:
        with refused(UsageError, "lies on TARGET"):
            check_pair(source, disk)
        with refused(UsageError, "lies on TARGET"):
            check_pair(source, point / "s.img")


def test_two_devices_on_one_file_are_no_pair(tmp_path: Path, disk: str) -> None:
    with loop_over(tmp_path / "disk.img") as again, refused(UsageError, "both kept in", "disk.img"):
        check_pair(disk, again)


def test_two_parts_of_one_file_are_a_pair(tmp_path: Path) -> None:
    file = image(tmp_path / "a", 4 * MIB)
    with (
        loop_over(file, "--sizelimit", str(2 * MIB)) as first,
        loop_over(file, "--offset", str(2 * MIB)) as second,
        loop_over(file, "--offset", str(MIB)) as both,
    ):
        check_pair(first, second)
        check_pair(second, first)
        for target in (both, file):
            with refused(UsageError, str(file)):
                check_pair(first, target)


def test_neighbours_on_one_file_system_are_a_pair(tmp_path: Path, disk: str) -> None:
    image(tmp_path / "t.img", 64 * MIB)
    check_target(tmp_path / "t.img", source=disk, size_bytes=64 * MIB)
    with loop_over(tmp_path / "t.img") as target:
        check_target(target, source=disk)


def test_layers_go_from_a_file_down_to_the_disk(tmp_path: Path, disk: str) -> None:
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, tmp_path / "mount") as point:
        layers = places_under(image(point / "t.img", MIB))
    assert isinstance(layers[0], FileRange) and layers[0].path.endswith("t.img")
    assert isinstance(layers[1], BlockDevice) and layers[1].path == disk
    assert isinstance(layers[2], FileRange) and layers[2].path.endswith("disk.img")


# Root


def test_without_root_the_sentence_names_root(disk: str, tmp_path: Path) -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[3]); import pydbt.device.checks as c; os.setuid(65534)\n"
        "for call in (lambda: c.check_source(sys.argv[1], sys.argv[2]), lambda: c.check_target(sys.argv[1])):\n"
        "    try: call()\n"
        "    except c.MachineError as error: print(error)"
    )
    root = Path(__file__).parents[2]
    words = run(sys.executable, "-c", script, disk, tmp_path, root).splitlines()
    assert len(words) == 2 and all("must run as root" in line for line in words)


def test_a_mistyped_device_never_becomes_a_file_among_the_devices(tmp_path: Path) -> None:
    place = "/dev/pydbt-no-such-disk"
    for create_bytes in (None, MIB):
        with refused(UsageError, place, "no such device", "lsblk"):
            check_target(place, create_bytes=create_bytes)
    with refused(UsageError, "no such device"):
        create_image(place, MIB)
    (tmp_path / "link").symlink_to("/dev")
    with refused(UsageError, "no such device"):
        check_target(tmp_path / "link" / "sdz", create_bytes=MIB)
    assert not os.path.exists(place) and not os.path.exists("/dev/sdz")


def test_a_regular_file_among_the_devices_is_no_target() -> None:
    place = "/dev/pydbt-regular-file"
    image(Path(place), MIB)
    try:
        with refused(UsageError, place, "lies in memory"):
            check_target(place)
    finally:
        os.unlink(place)
