"""Comparing a device with the image of its replica, byte by byte; where neither holds anything, neither is read."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pydbt.core.units import MIB
from tests.lab.patience import StepFailed

GRAIN_BYTES = 4096
_PIECE_BYTES = 4 * MIB


def differing_blocks(source: Path, backing: Path, image: Path, check: Callable[[], None]) -> np.ndarray:
    """Numbers of the blocks of 4 KiB in which a device and an image differ. StepFailed when their sizes do.

    ``source`` is read past the page cache, which a mounted file system does not keep coherent; ``backing`` is the
    file behind it and tells where it is sparse. ``check`` is called often, and may raise.
    """
    found: list[np.ndarray] = []
    ours = os.open(source, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    theirs = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    left, right = (mmap.mmap(-1, _PIECE_BYTES) for _ in range(2))
    try:
        size = os.lseek(ours, 0, os.SEEK_END)
        if os.lseek(theirs, 0, os.SEEK_END) != size:
            raise StepFailed(f"{source} has {size} bytes and {image} {os.lseek(theirs, 0, os.SEEK_END)}")
        for offset in sorted(_pieces_with_data(backing, size) | _pieces_with_data(image, size)):
            check()
            length = min(_PIECE_BYTES, size - offset)
            found.append(_compare(_read(ours, left, length, offset), _read(theirs, right, length, offset), offset))
    finally:
        os.close(ours)
        os.close(theirs)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _compare(one: np.ndarray, other: np.ndarray, offset: int) -> np.ndarray:
    if np.array_equal(one, other):
        return np.empty(0, np.int64)
    return np.unique((offset + 8 * np.flatnonzero(one != other)) // GRAIN_BYTES)


def _read(descriptor: int, memory: mmap.mmap, length: int, offset: int) -> np.ndarray:
    """As 64-bit words; a volume's size is a multiple of 512 bytes."""
    done = 0
    with memoryview(memory) as view:
        while done < length:
            count = os.preadv(descriptor, [view[done:length]], offset + done)
            if not count:
                raise StepFailed(f"a read ended at byte {offset + done}")
            done += count
    return np.frombuffer(memory, np.uint64, length // 8)


def _pieces_with_data(path: Path, size_bytes: int) -> set[int]:
    """Offsets of the pieces that are not a hole from end to end; elsewhere a file reads as zeros."""
    pieces: set[int] = set()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        position = 0
        while position < size_bytes:
            try:
                first = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                    break
                raise
            position = os.lseek(descriptor, first, os.SEEK_HOLE)
            last = min(position, size_bytes) - 1
            pieces.update(range(first // _PIECE_BYTES * _PIECE_BYTES, last + 1, _PIECE_BYTES))
    finally:
        os.close(descriptor)
    return pieces
