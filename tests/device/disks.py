"""Loop devices on any file, and mounts anywhere, by path; gone when the block ends, whatever happened in it."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.disks import BlockDevice, partition_of, wait_until

MIB = 1 << 20


def run(*command: object) -> str:
    """A command's output; its own words are the failure's."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr or done.stdout}"
    return done.stdout.strip()


def require_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests need root: use sudo scripts/test")


def image(path: Path, size_bytes: int, seed: int | None = None) -> Path:
    """A file of a size: sparse, or of random content that the seed repeats."""
    with open(path, "wb") as file:
        file.truncate(size_bytes)
        if seed is not None:
            file.write(random.Random(seed).randbytes(size_bytes))
    return path


@contextlib.contextmanager
def loop(file: Path, *options: str) -> Iterator[str]:
    """A loop device on a file."""
    require_root()
    device = run("losetup", "--find", "--show", *options, file)
    try:
        yield device
    finally:
        run("losetup", "--detach", device)
        # Detaching ends with the last opener; the kernel may still be looking for partitions.
        backing = Path(f"/sys/block/{os.path.basename(device)}/loop/backing_file")
        wait_until(lambda: _words_of(backing) != str(file), f"{device} is detached")


def _words_of(entry: Path) -> str:
    try:
        return entry.read_text().strip()
    except OSError:  # gone, or going
        return ""


@contextlib.contextmanager
def partition(disk: str, number: int, start_sector: int, size_sectors: int) -> Iterator[str]:
    """A partition that the kernel is told of; the disk itself gets no table."""
    with partition_of(BlockDevice(Path(disk)), number, start_sector, size_sectors) as part:
        yield str(part.path)


@contextlib.contextmanager
def mounted(device: str, point: Path, *options: str) -> Iterator[Path]:
    """A file system, mounted."""
    point.mkdir(exist_ok=True)
    run("mount", *options, device, point)
    try:
        yield point
    finally:
        run("umount", point)


@contextlib.contextmanager
def swap_on(path: str | Path) -> Iterator[None]:
    run("mkswap", path)
    run("swapon", path)
    try:
        yield
    finally:
        run("swapoff", path)
