"""Loads on a raw device: overlapping direct writes, and discards and zeroes of any size and place."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import random
import struct
from pathlib import Path
from typing import Self

_BLKDISCARD, _BLKZEROOUT = 0x1277, 0x127F  # include/uapi/linux/fs.h
SECTOR = 512


class _Direct:
    def __init__(self, device: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self._descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        self._memory = mmap.mmap(-1, 1 << 20)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, sector: int, sectors: int) -> None:
        length = sectors * SECTOR
        self._memory[:length] = self.random.randbytes(length)
        os.pwrite(self._descriptor, memoryview(self._memory)[:length], sector * SECTOR)

    def erase(self, request: int, sector: int, sectors: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._descriptor, request, struct.pack("=QQ", sector * SECTOR, sectors * SECTOR))


class Overlapping(_Direct):
    """Several of these write the same few sectors at once."""

    def __init__(self, device: Path, sectors: int, seed: int) -> None:
        super().__init__(device, seed)
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
        self._sectors = size_bytes // SECTOR

    def __call__(self) -> None:
        if self.random.random() < 0.8:
            length = self.random.randrange(1, 2000)
            self.write(self.random.randrange(self._sectors - length), length)
            return
        length = int(2 ** self.random.uniform(0, self._sectors.bit_length() - 1.1))
        at = self.random.randrange(self._sectors - length)
        self.erase(self.random.choice((_BLKDISCARD, _BLKZEROOUT)), at, length)
