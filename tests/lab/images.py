"""Comparing a source device with an image of its replica, byte by byte."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PIECE_BYTES = 4 << 20
GRAIN_BYTES = 4096


def pieces(path: Path, size_bytes: int, direct: bool) -> Iterator[np.ndarray]:
    """The first ``size_bytes`` in order; ``direct`` reads past the page cache (a mounted device is not coherent with it)."""
    memory = np.empty(PIECE_BYTES + 4096, np.uint8)
    memory = memory[-memory.ctypes.data % 4096 :][:PIECE_BYTES]
    descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    try:
        done = 0
        while done < size_bytes:
            want = min(PIECE_BYTES, size_bytes - done)
            got = os.preadv(descriptor, [memoryview(memory)[:want]], done)
            assert got > 0, f"{path} ends at {done}"
            yield memory[:got]
            done += got
    finally:
        os.close(descriptor)


def differing_blocks(source: Path, image: Path, size_bytes: int) -> np.ndarray:
    """Numbers of the 4 KiB blocks in which a device and an image differ."""
    found: list[np.ndarray] = []
    done = 0
    with contextlib.closing(pieces(source, size_bytes, True)) as ours, image.open("rb") as theirs:
        for piece in ours:
            other = np.frombuffer(theirs.read(len(piece)), np.uint8)
            assert len(other) == len(piece), f"{image} ends at {done + len(other)}"
            if not np.array_equal(piece, other):
                unequal = np.flatnonzero(piece != other) // GRAIN_BYTES
                found.append(np.unique(unequal) + done // GRAIN_BYTES)
            done += len(piece)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def assert_identical(source: Path, image: Path, size_bytes: int, when: str) -> None:
    """Every byte is equal, or an AssertionError that names where it is not."""
    blocks = differing_blocks(source, image, size_bytes)
    assert not len(blocks), f"{when}: {len(blocks)} blocks of 4 KiB differ, the first are {blocks[:20].tolist()}"
