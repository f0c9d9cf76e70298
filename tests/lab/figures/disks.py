"""Scratch folders and loop devices of a measurement, taken down again whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB, SECTOR_BYTES
from pydbt.kernel.capture import VolumeSpec

DISK_ROOT = Path("/var/tmp")
MEMORY_ROOT = Path("/dev/shm")
# Left to everybody else: a measurement must not fill a disk, or make a machine swap.
_DISK_RESERVE_BYTES = 2048 * MIB
_MEMORY_RESERVE_BYTES = 1024 * MIB
_CHUNK_BYTES = 8 * MIB


def run(*command: str | Path) -> str:
    """Run a program and return its output. MachineError with its own words when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise MachineError(f"{' '.join(map(str, command))} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def wait_until(
    condition: Callable[[], bool], description: str, timeout_s: float = 60, interval_s: float = 0.002
) -> None:
    """Poll until it comes true. MachineError with the description when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise MachineError(f"not within {timeout_s:g} s: {description}")
        time.sleep(interval_s)


@contextlib.contextmanager
def disk_folder(need_bytes: int) -> Iterator[Path]:
    """A folder on a disk with that much room. MachineError when there is none."""
    free = shutil.disk_usage(DISK_ROOT).free
    if free < need_bytes + _DISK_RESERVE_BYTES:
        raise MachineError(
            f"{DISK_ROOT} has {free // MIB} MiB free, and this figure needs {(need_bytes + _DISK_RESERVE_BYTES) // MIB}"
            " MiB: make room, or use --quick"
        )
    with _folder(DISK_ROOT) as folder:
        yield folder


@contextlib.contextmanager
def memory_folder(need_bytes: int) -> Iterator[Path]:
    """A folder in memory, where no disk's mood disturbs; on a disk when memory is short."""
    available = _available_memory_bytes()
    fits = MEMORY_ROOT.is_dir() and shutil.disk_usage(MEMORY_ROOT).free > need_bytes
    if fits and available > need_bytes + _MEMORY_RESERVE_BYTES:
        with _folder(MEMORY_ROOT) as folder:
            yield folder
    else:
        with disk_folder(need_bytes) as folder:
            yield folder


@contextlib.contextmanager
def _folder(root: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pydbt-bench-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _available_memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True, slots=True)
class Disk:
    """A loop device and the file behind it."""

    path: Path
    image: Path
    size_bytes: int

    def volume(self, block_bytes: int = 4096) -> VolumeSpec:
        """The whole device, as capture wants it described."""
        number = os.stat(self.path).st_rdev
        return VolumeSpec(os.major(number), os.minor(number), 0, self.size_bytes // SECTOR_BYTES, block_bytes)


@contextlib.contextmanager
def loop_device(image: Path, size_bytes: int, *, direct: bool = False) -> Iterator[Disk]:
    """A loop device over a file, which is made (sparse) unless it is there; ``direct`` bypasses its page cache."""
    with image.open("ab") as file:
        file.truncate(size_bytes)
    mode = ["--direct-io=on"] if direct else []
    path = Path(run("losetup", "--find", "--show", *mode, image).strip())
    try:
        yield Disk(path, image, size_bytes)
    finally:
        subprocess.run(["losetup", "--detach", str(path)], capture_output=True)
        image.unlink(missing_ok=True)


def fill(path: Path, size_bytes: int, seed: int = 1) -> None:
    """Bytes that neither compress nor repeat, so that nobody saves work by their nature."""
    generator = np.random.default_rng(seed)
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        for offset in range(0, size_bytes, _CHUNK_BYTES):
            file.write(generator.bytes(min(_CHUNK_BYTES, size_bytes - offset)))
        os.fsync(file.fileno())


def direct_writer(path: Path) -> int:
    """A descriptor for direct writes."""
    return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)


def page_aligned(size_bytes: int) -> memoryview:
    """Memory fit for direct writes."""
    return memoryview(mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def write_scattered_blocks(path: Path, blocks: np.ndarray, block_bytes: int, seed: int) -> None:
    """New random content for each of these blocks, written directly, in their order."""
    generator = np.random.default_rng(seed)
    buffer = page_aligned(block_bytes)
    descriptor = direct_writer(path)
    try:
        for block in blocks.tolist():
            buffer[:] = generator.bytes(block_bytes)
            os.pwrite(descriptor, buffer, block * block_bytes)
    finally:
        os.close(descriptor)


def differing_blocks(one: Path, other: Path, block_bytes: int = 4096) -> int:
    """How many blocks of two images differ."""
    count = 0
    with one.open("rb", buffering=0) as left, other.open("rb", buffering=0) as right:
        while ours := left.read(_CHUNK_BYTES):
            theirs = right.read(_CHUNK_BYTES)
            if ours == theirs:
                continue
            width = block_bytes // 8
            differs = np.frombuffer(ours, np.uint64) != np.frombuffer(theirs, np.uint64)
            count += int(np.count_nonzero(differs.reshape(-1, width).any(axis=1)))
    return count


def end_with_parent() -> None:
    """For a child process about to begin: the kernel kills it when its parent dies (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, 9)
