"""Loop devices, partitions, zram devices and mounts for tests, each taken down again whatever happens.

Used as context managers; nothing here is shared between tests, and nothing that another process made is
touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BPFFS = Path("/sys/fs/bpf")
_BLKFLSBUF = 0x1261  # include/uapi/linux/fs.h


def run(*command: str | Path, check: bool = True) -> str:
    """Run a command and return its output; its own message is in the error."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def wait_until(condition: Callable[[], bool], description: str, timeout_s: float = 10) -> None:
    """Poll; AssertionError with the description when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {description}"
        time.sleep(0.005)


def ensure_bpffs() -> None:
    """Mount bpffs where distributions do; it is left mounted, as there."""
    if not os.path.ismount(BPFFS):
        run("mount", "-t", "bpf", "bpf", BPFFS)


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A block device under test, whole disk or partition."""

    path: Path

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

    def contents(self) -> np.ndarray:
        """Every byte of the device, read with O_DIRECT (what is on the disk, not in a cache)."""
        size = self.size_sectors * 512
        data = np.empty(size + 4096, np.uint8)
        data = data[-data.ctypes.data % 4096 :][:size]
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        try:
            done = 0
            while done < size:
                done += os.preadv(fd, [memoryview(data)[done : done + (8 << 20)]], done)
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


@contextlib.contextmanager
def loop_device(
    folder: Path, size_bytes: int, sector_bytes: int = 512, partitions: bool = False
) -> Iterator[BlockDevice]:
    """A loop device over a new sparse file in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"disk-{os.urandom(4).hex()}.img"
    with image.open("wb") as file:
        file.truncate(size_bytes)
    options = ["--sector-size", str(sector_bytes)] + (["--partscan"] if partitions else [])
    path = None
    try:
        path = Path(run("losetup", "--find", "--show", *options, image).strip())
        yield BlockDevice(path)
    finally:
        if path:
            run("losetup", "--detach", path, check=False)
            wait_until(lambda: not _backed_by(path, image), f"{path} is let go")
        image.unlink(missing_ok=True)


def _backed_by(path: Path, image: Path) -> bool:
    backing = Path("/sys/block") / path.name / "loop" / "backing_file"
    try:
        return backing.read_text().strip() == str(image)
    except OSError:
        return False


@contextlib.contextmanager
def partition_of(disk: BlockDevice, number: int, start_sector: int, size_sectors: int) -> Iterator[BlockDevice]:
    """A partition made known to the kernel without writing a table to the disk (addpart, delpart)."""
    run("addpart", disk.path, str(number), str(start_sector), str(size_sectors))
    path = Path(f"{disk.path}p{number}")
    node_made = False
    try:
        if not path.exists():  # no udev here
            name = path.name
            major, minor = (Path("/sys/block") / disk.path.name / name / "dev").read_text().split(":")
            os.mknod(path, 0o600 | 0o060000, os.makedev(int(major), int(minor)))
            node_made = True
        yield BlockDevice(path)
    finally:
        run("delpart", disk.path, str(number), check=False)
        if node_made:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def zram_device(size_bytes: int) -> Iterator[BlockDevice]:
    """A compressed disk in memory: bio-based, as dm volumes are."""
    number = Path("/sys/class/zram-control/hot_add").read_text().strip()
    sysfs, path = Path(f"/sys/block/zram{number}"), Path(f"/dev/zram{number}")
    try:
        (sysfs / "disksize").write_text(str(size_bytes))
        wait_until(path.exists, f"{path} appears")
        yield BlockDevice(path)
    finally:

        def removed() -> bool:
            try:
                Path("/sys/class/zram-control/hot_remove").write_text(number)
            except OSError:  # still open somewhere for a moment
                return not sysfs.exists()
            return True

        wait_until(removed, f"{path} is removed")


@contextlib.contextmanager
def mounted(device: BlockDevice, folder: Path, options: str = "") -> Iterator[Path]:
    """Mount, and unmount again."""
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", *(["-o", options] if options else []), device.path, folder)
    try:
        yield folder
    finally:
        wait_until(lambda: _unmounted(folder), f"{folder} is unmounted")
        folder.rmdir()


def _unmounted(folder: Path) -> bool:
    run("umount", folder, check=False)
    return not os.path.ismount(folder)
