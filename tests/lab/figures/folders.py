"""Folders of a measurement: on a disk with room for it, or in memory, where no disk's mood disturbs."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB

_DISK_ROOT = Path("/var/tmp")
_MEMORY_ROOT = Path("/dev/shm")
# Left to everybody else: a measurement must not fill a disk, or make a machine swap.
_DISK_RESERVE_BYTES = 2048 * MIB
_MEMORY_RESERVE_BYTES = 1024 * MIB


@contextlib.contextmanager
def disk_folder(need_bytes: int) -> Iterator[Path]:
    """A folder on a disk with that much room. MachineError when there is none."""
    free = shutil.disk_usage(_DISK_ROOT).free
    if free < need_bytes + _DISK_RESERVE_BYTES:
        raise MachineError(
            f"{_DISK_ROOT} has {free // MIB} MiB free, and this figure needs"
            f" {(need_bytes + _DISK_RESERVE_BYTES) // MIB} MiB: make room, or use --quick"
        )
    with _folder(_DISK_ROOT) as folder:
        yield folder


@contextlib.contextmanager
def memory_folder(need_bytes: int) -> Iterator[Path]:
    """A folder in memory; on a disk when memory is short."""
    available = _available_memory_bytes()
    fits = _MEMORY_ROOT.is_dir() and shutil.disk_usage(_MEMORY_ROOT).free > need_bytes
    if fits and available > need_bytes + _MEMORY_RESERVE_BYTES:
        with _folder(_MEMORY_ROOT) as folder:
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
