"""Direct writes, past the page cache, and loads on a raw device that are made of them, of discards and of zeroes."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import numpy as np

from pydbt.core.units import MIB, SECTOR_BYTES
from tests.lab.disks import Device

_BLKDISCARD, _BLKZEROOUT = 0x1277, 0x127F  # include/uapi/linux/fs.h


class DirectWriter:
    """Writes to a device or file with O_DIRECT, from ``memory`` of its own.

    Shared memory is a file's, and ``private`` memory is not. Where capture does not watch memory, it takes each write from a
    file's for one whose data may have changed in flight, so that the controller reads its blocks again.

    ``flags``: more of open(2).
    """

    def __init__(self, path: Path, room_bytes: int = MIB, *, private: bool = False, flags: int = 0) -> None:
        kind = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        self.memory = mmap.mmap(-1, room_bytes, flags=kind | mmap.MAP_ANONYMOUS)
        self.descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC | flags)

    def put(self, offset_bytes: int, data: bytes) -> None:
        self.memory[: len(data)] = data
        self.put_memory(offset_bytes, len(data))

    def put_memory(self, offset_bytes: int, length_bytes: int) -> None:
        """What is in ``memory`` now."""
        with memoryview(self.memory) as view:
            done = os.pwrite(self.descriptor, view[:length_bytes], offset_bytes)
        assert done == length_bytes, "a direct write was cut short"

    def erase(self, request: int, sector: int, sectors: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.descriptor, request, struct.pack("=QQ", sector * SECTOR_BYTES, sectors * SECTOR_BYTES))

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_scattered_blocks(path: Path, blocks: Iterable[int], block_bytes: int, seed: int) -> None:
    """New random content for each of these blocks, in their order."""
    generator = np.random.default_rng(seed)
    with DirectWriter(path, block_bytes, private=True) as writer:
        for block in blocks:
            writer.put(block * block_bytes, generator.bytes(block_bytes))


class _Direct(DirectWriter):
    def __init__(self, device: Path, seed: int, *, private: bool = False) -> None:
        super().__init__(device, private=private)
        self.random = random.Random(seed)

    def write(self, sector: int, sectors: int) -> None:
        self.put(sector * SECTOR_BYTES, self.random.randbytes(sectors * SECTOR_BYTES))


class Overlapping(_Direct):
    """Several of these write the same few sectors at once."""

    def __init__(self, device: Path, sectors: int, seed: int, *, private: bool = False) -> None:
        super().__init__(device, seed, private=private)
        self._sectors = sectors

    def __call__(self) -> None:
        length = self.random.randrange(1, min(self._sectors, 160))
        self.write(self.random.randrange(self._sectors - length), length)


class Scattered(_Direct):
    """Blocks of 4 KiB all over the device."""

    def __init__(self, device: Path, size_bytes: int, seed: int) -> None:
        super().__init__(device, seed)
        self._blocks = size_bytes // 4096

    def __call__(self) -> None:
        self.write(self.random.randrange(self._blocks) * 8, 8)


class Erasing(_Direct):
    """Writes, discards and zeroes, from one sector to most of the device."""

    def __init__(self, device: Path, size_bytes: int, seed: int) -> None:
        super().__init__(device, seed)
        self._sectors = size_bytes // SECTOR_BYTES

    def __call__(self) -> None:
        if self.random.random() < 0.8:
            length = self.random.randrange(1, 2000)
            self.write(self.random.randrange(self._sectors - length), length)
            return
        length = int(2 ** self.random.uniform(0, self._sectors.bit_length() - 1.1))
        at = self.random.randrange(self._sectors - length)
        self.erase(self.random.choice((_BLKDISCARD, _BLKZEROOUT)), at, length)


class Hammer(Overlapping):
    """Writes all over the device."""

    def __call__(self) -> None:
        length = self.random.randrange(1, 600)
        self.write(self.random.randrange(self._sectors - length), length)


def write_blocks(device: Device, count: int, length: int = 4096, first: int = 0) -> None:
    fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, length)
    buffer[:] = os.urandom(length)
    for number in range(first, first + count):
        os.pwrite(fd, buffer, number * length)
    os.close(fd)
