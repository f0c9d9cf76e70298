"""Loop devices, partitions, disks in memory, mounts and swap, each taken down again whatever happens.

Used as context managers; nothing here is shared between its users, and nothing that another process made is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pydbt.core.units import MIB, SECTOR_BYTES
from tests.lab.patience import StepFailed, run, wait_until

BPFFS = Path("/sys/fs/bpf")
_BLKFLSBUF = 0x1261  # include/uapi/linux/fs.h
_CHUNK_BYTES = 8 * MIB


def ensure_bpffs() -> None:
    """Mount bpffs where distributions do; it is left mounted, as there."""
    if not os.path.ismount(BPFFS):
        run("mount", "-t", "bpf", "-o", "mode=0700", "bpf", BPFFS)


@dataclass(frozen=True, slots=True)
class Device:
    """A block device of the bench, whole disk or partition; where a path is wanted, it is that."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def _sysfs(self) -> Path:
        number = os.stat(self.path).st_rdev
        return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")

    @property
    def size_sectors(self) -> int:
        return int((self._sysfs / "size").read_text())

    @property
    def start_sector(self) -> int:
        """From the start of its disk; 0 for a disk."""
        start = self._sysfs / "start"
        return int(start.read_text()) if start.exists() else 0

    @property
    def disk_number(self) -> tuple[int, int]:
        """Major and minor of the disk."""
        folder = self._sysfs.resolve()
        disk = folder.parent if (folder / "partition").exists() else folder
        major, minor = (disk / "dev").read_text().split(":")
        return int(major), int(minor)

    def statistics(self) -> dict[str, int]:
        """Writes and discards completed, from /sys (Documentation/block/stat.rst); sectors of 512 bytes."""
        values = [int(value) for value in (self._sysfs / "stat").read_text().split()]
        return {
            "writes": values[4],
            "write_sectors": values[6],
            "in_flight": values[8],
            "discards": values[11],
            "discard_sectors": values[13],
        }

    def contents(self) -> NDArray[np.uint8]:
        """Every byte of the device, read with O_DIRECT (from the disk, not from a cache)."""
        size = self.size_sectors * SECTOR_BYTES
        data = np.empty(size + 4096, np.uint8)
        data = data[-data.ctypes.data % 4096 :][:size]
        view = data.data
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        try:
            done = 0
            while done < size:
                done += os.preadv(fd, [view[done : done + _CHUNK_BYTES]], done)
        finally:
            os.close(fd)
        return data

    def flush(self) -> None:
        """Write the device's own page cache out and drop it."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(fd)
            fcntl.ioctl(fd, _BLKFLSBUF, 0)
        finally:
            os.close(fd)


# --- files and loop devices over them ---------------------------------------------------------------------
def image(path: Path, size_bytes: int, seed: int | None = None) -> Path:
    """A new file of a size: sparse, or of bytes that neither compress nor repeat, from a seed, and are on the disk."""
    with path.open("wb", buffering=0) as file:
        file.truncate(size_bytes)
        if seed is not None:
            generator = np.random.default_rng(seed)
            for offset in range(0, size_bytes, _CHUNK_BYTES):
                file.write(generator.bytes(min(_CHUNK_BYTES, size_bytes - offset)))
            os.fsync(file.fileno())
    return path


def backing_files() -> dict[str, Path]:
    """The file behind every loop device of this machine, by the device's name."""
    found = {}
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached by somebody just now
            found[path.parts[3]] = Path(path.read_text().strip().removesuffix(" (deleted)"))
    return found


def loops_in(folder: Path) -> list[Device]:
    """Loop devices over files of a folder."""
    return [Device(Path("/dev") / name) for name, file in backing_files().items() if file.parent == folder]


def attach(file: Path, *options: object) -> Device:
    """A loop device over a file; ``options`` are losetup's."""
    return Device(Path(run("losetup", "--find", "--show", *options, file).strip()))


def detach(device: Device, timeout_s: float = 10) -> None:
    """Harmless when it is detached already. Detaching ends with the last opener: the kernel may look for partitions."""
    name = device.path.name
    file = backing_files().get(name)
    run("losetup", "--detach", device, check=False)
    wait_until(lambda: file is None or backing_files().get(name) != file, f"{device} is detached", timeout_s)


@contextlib.contextmanager
def loop_over(file: Path, *options: object) -> Iterator[Device]:
    """A loop device over a file that is there; ``options`` are losetup's.

    When it was detached meanwhile, another process may have its number: that one is left alone.
    """
    device = attach(file, *options)
    folder = backing_files()[device.path.name].parent
    try:
        yield device
    finally:
        behind = backing_files().get(device.path.name)
        if behind is not None and behind.parent == folder:
            detach(device)


@contextlib.contextmanager
def loop_device(folder: Path, size_bytes: int, sector_bytes: int = 512, partitions: bool = False) -> Iterator[Device]:
    """A loop device over a new sparse file in ``folder``, which goes with it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = image(folder / f"disk-{os.urandom(4).hex()}.img", size_bytes)
    try:
        with loop_over(file, "--sector-size", sector_bytes, *(["--partscan"] if partitions else [])) as device:
            yield device
    finally:
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def crowded_loop(folder: Path, size_bytes: int, room_bytes: int, *options: object) -> Iterator[tuple[Device, Path]]:
    """A loop device over a sparse file on a file system in memory of that size, and the path of a file to fill that with.

    When it is full, writes to new places of the device fail, or go in only in part. ``options`` are losetup's.
    """
    with mounted("tmpfs", folder / "small", "-t", "tmpfs", "-o", f"size={room_bytes}") as small:
        file = image(small / "disk.img", size_bytes)
        with loop_over(file, *options) as device:
            yield device, small / "filler"


@contextlib.contextmanager
def partition_of(disk: Device | str, number: int, start_sector: int, size_sectors: int) -> Iterator[Device]:
    """A partition made known to the kernel without writing a table to the disk (addpart, delpart)."""
    run("addpart", disk, number, start_sector, size_sectors)
    path = Path(f"{disk}p{number}")
    node_made = False
    try:
        if not path.exists():  # no udev here
            major, minor = (Path("/sys/block") / Path(disk).name / path.name / "dev").read_text().split(":")
            os.mknod(path, 0o600 | 0o060000, os.makedev(int(major), int(minor)))
            node_made = True
        yield Device(path)
    finally:
        run("delpart", disk, number, check=False)
        if node_made:
            path.unlink(missing_ok=True)


# --- file systems -----------------------------------------------------------------------------------------
def mkfs_words(kind: str, device: object, *options: object) -> tuple[object, ...]:
    """The command that makes a file system, ext4 or xfs."""
    quietly = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}[kind]
    return *quietly, *options, device


def make_filesystem(kind: str, device: object, *options: object) -> None:
    run(*mkfs_words(kind, device, *options))


# --- disks in memory --------------------------------------------------------------------------------------
@contextlib.contextmanager
def zram_device(size_bytes: int) -> Iterator[Device]:
    """A compressed disk in memory: bio-based, as dm volumes are."""
    number = Path("/sys/class/zram-control/hot_add").read_text().strip()
    sysfs, path = Path(f"/sys/block/zram{number}"), Path(f"/dev/zram{number}")
    try:
        (sysfs / "disksize").write_text(str(size_bytes))
        wait_until(path.exists, f"{path} appears")
        yield Device(path)
    finally:

        def removed() -> bool:
            try:
                Path("/sys/class/zram-control/hot_remove").write_text(number)
            except OSError:  # still open somewhere for a moment
                return not sysfs.exists()
            return True

        wait_until(removed, f"{path} is removed")


# --- mounts and swap --------------------------------------------------------------------------------------
@contextlib.contextmanager
def mounted(source: object, folder: Path, *options: object) -> Iterator[Path]:
    """Mount, with mount's own options, and unmount again; the folder goes with it."""
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", *options, source, folder)
    try:
        yield folder
    finally:
        unmount(folder)
        if not os.path.ismount(folder):  # of several, one over the other
            folder.rmdir()


def unmount(folder: Path, timeout_s: float = 10) -> None:
    """Busy is a matter of moments, when whoever worked there has just ended; StepFailed with umount's words after them."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            run("umount", folder)
            return
        except StepFailed:
            if not os.path.ismount(folder):
                return
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


@contextlib.contextmanager
def swap_on(path: object) -> Iterator[None]:
    run("mkswap", path)
    run("swapon", path)
    try:
        yield
    finally:
        run("swapoff", path)


# --- other mount namespaces -------------------------------------------------------------------------------
@contextlib.contextmanager
def mounted_elsewhere(source: object, folder: Path) -> Iterator[Path]:
    """Mount in a mount namespace of its own, as a container does; the path that leads there through its process."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    script = 'mount "$0" "$1" && echo mounted && read end; umount "$1"'
    container = subprocess.Popen(
        [*words, script, str(source), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert container.stdout is not None and container.stdout.readline() == b"mounted\n"
        yield Path(f"/proc/{container.pid}/root{folder}")
    finally:
        container.communicate(b"end\n", timeout=10)
        folder.rmdir()


@contextlib.contextmanager
def mounted_out_of_reach(source: object, folder: Path) -> Iterator[None]:
    """Mount in a mount namespace in which no process lives: a bind mount of the namespace keeps it."""
    folder.mkdir(parents=True, exist_ok=True)
    # A namespace is bound only below a mount that is private (mount_namespaces(7)).
    keep = folder.parent / f"{folder.name}-namespace"
    keep.mkdir()
    run("mount", "--bind", "--make-private", keep, keep)
    try:
        (keep / "namespace").touch()
        run("unshare", f"--mount={keep}/namespace", "--propagation", "private", "mount", source, folder)
        try:
            yield
        finally:
            run("umount", keep / "namespace")
    finally:
        run("umount", keep)
        (keep / "namespace").unlink()
        keep.rmdir()
        folder.rmdir()
