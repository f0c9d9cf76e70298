"""Comparing a device with the image of its replica, byte by byte; where neither holds anything, neither is read."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pydbt.core.blocks.runs import distinct
from pydbt.core.units import MIB
from tests.lab.disks import loop_over, mounted
from tests.lab.load import check_database
from tests.lab.patience import StepFailed

GRAIN_BYTES = 4096
_PIECE_BYTES = 4 * MIB

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


@contextlib.contextmanager
def decaying(image: Path, held_by: int | None = None) -> Iterator[None]:
    """Changes of an image as its disk would make them, and no program: the time of its last change stays what it was.

    ``held_by`` is a process that watches the image; it stands still meanwhile.
    """
    before = image.stat()
    if held_by is not None:
        os.kill(held_by, signal.SIGSTOP)
    try:
        yield
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        if held_by is not None:
            os.kill(held_by, signal.SIGCONT)


def differing_blocks(
    source: Path,
    image: Path,
    size_bytes: int,
    *,
    source_offset: int = 0,
    image_offset: int = 0,
    direct: bool = True,
    backing: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> Numbers:
    """Numbers of the blocks of 4 KiB in which a device and an image differ, within a number of bytes from their offsets on.

    ``direct`` reads the source past the page cache, which a mounted file system does not keep coherent. ``backing``
    is the file behind it, and tells where it is sparse. ``check`` is called often, and may raise.
    """
    ours = os.open(source, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
    theirs = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    left, right = (mmap.mmap(-1, _PIECE_BYTES) for _ in range(2))
    found: list[Numbers] = []
    try:
        held = _pieces_held(backing or source, source_offset, size_bytes)
        for offset in sorted(held | _pieces_held(image, image_offset, size_bytes)):
            check()
            length = min(_PIECE_BYTES, size_bytes - offset)
            one = _read(ours, left, length, source_offset + offset, source)
            other = _read(theirs, right, length, image_offset + offset, image)
            found.append(differing_of(one, other) + offset // GRAIN_BYTES)
    finally:
        os.close(ours)
        os.close(theirs)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def differing_of(one: Bytes, other: Bytes, block_bytes: int = GRAIN_BYTES) -> Numbers:
    """Numbers of the blocks in which two pieces of memory of one length differ; the last block may be short."""
    if np.array_equal(one, other):
        return np.empty(0, np.int64)
    return distinct(np.flatnonzero(one != other) // block_bytes)


def assert_identical(source: Path, image: Path, size_bytes: int, when: str) -> None:
    """Every byte is equal, or an AssertionError that names where it is not."""
    blocks = differing_blocks(source, image, size_bytes)
    assert not len(blocks), f"{when}: {len(blocks)} blocks of 4 KiB differ, the first are {blocks[:20].tolist()}"


def _read(descriptor: int, memory: mmap.mmap, length: int, offset: int, path: Path) -> Bytes:
    done = 0
    with memoryview(memory) as view:
        while done < length:
            count = os.preadv(descriptor, [view[done:length]], offset + done)
            if not count:
                raise StepFailed(f"{path} ends at byte {offset + done}")
            done += count
    return np.frombuffer(memory, np.uint8, length)


def _pieces_held(path: Path, first_byte: int, size_bytes: int) -> set[int]:
    """Offsets of the pieces that are not a hole from end to end; elsewhere a file reads as zeros. A device has no holes."""
    pieces: set[int] = set()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if size < first_byte + size_bytes:
            raise StepFailed(f"{path} ends at byte {size}, before byte {first_byte + size_bytes}")
        position, end = first_byte, first_byte + size_bytes
        while position < end:
            try:
                data = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                    break
                if error.errno == errno.EINVAL:  # a device
                    return set(range(0, size_bytes, _PIECE_BYTES))
                raise
            position = os.lseek(descriptor, data, os.SEEK_HOLE)
            last = min(position, end) - 1 - first_byte
            pieces.update(range((data - first_byte) // _PIECE_BYTES * _PIECE_BYTES, last + 1, _PIECE_BYTES))
    finally:
        os.close(descriptor)
    return pieces


def check_image(filesystem: str, image: Path, folder: Path, name: str, least_rows: int) -> int:
    """Mount as after a crash: the log is replayed, nothing is left to repair, and every promised row is there."""
    with loop_over(image) as device:
        with mounted(device, folder, "-o", "nouuid" if filesystem == "xfs" else "rw") as root:
            rows = check_database(root / name, least_rows)
        checker = ["xfs_repair", "-n"] if filesystem == "xfs" else ["e2fsck", "-fn"]
        done = subprocess.run([*checker, str(device.path)], capture_output=True, text=True)
        assert done.returncode == 0, f"{checker}: {done.stdout[-2000:]} {done.stderr[-500:]}"
    return rows
