"""Reads again, past the cache, what was written to a device whose success proves nothing.

A loop device takes a write for done of which its file took only the first part (pydbt/device/loops.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence

import numpy as np

from pydbt.core.errors import DeviceError
from pydbt.core.units import MIB, Buffer
from pydbt.device.block import aligned_buffer
from pydbt.device.loops import loops_below, needs_room
from pydbt.device.sysfs import BlockDevice

_BUFFER_BYTES = MIB
_COMPARED_BYTES = _BUFFER_BYTES // 2
_GRAIN_BYTES = 4096  # of direct reads: a loop device has no larger logical block
_WORDS = "a part of what was written is not there, as on a loop device whose file system is full"


class NotTaken(OSError):
    """A write was told to be done, and is not. ``place``: the first byte that is missing."""

    def __init__(self, place: int) -> None:
        super().__init__(errno.ENOSPC, _WORDS)
        self.place = place


class ReadBack:
    """``descriptor``: the open device, which stays the caller's. ``files``: those behind the loop devices below it."""

    def __init__(self, descriptor: int, files: Sequence[str]) -> None:
        self._files = files
        self._descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        self._buffer = aligned_buffer(_BUFFER_BYTES)

    @classmethod
    def where_needed(cls, descriptor: int, number: int) -> ReadBack | None:
        """For the block device of this number, if a loop device is it or lies below it."""
        with contextlib.suppress(DeviceError, OSError):  # gone just now: no write succeeds any more
            loops = loops_below(BlockDevice.from_number(os.major(number), os.minor(number)))
            if loops:
                return cls(descriptor, [loop.backing_file() or "" for loop in loops])
        return None

    @property
    def is_due(self) -> bool:
        """Whether a file may take more room when it is written: what is discarded becomes a hole, also in one without any."""
        return any(needs_room(file) for file in self._files)

    def close(self) -> None:
        os.close(self._descriptor)

    def require(self, offset: int, pieces: Sequence[Buffer]) -> None:
        """That the device has these, one behind the other, from ``offset`` on. NotTaken; OSError.

        A direct read makes the kernel write first what its cache has of that range and the disk has not.
        """
        wanted = np.concatenate([np.frombuffer(piece, np.uint8) for piece in pieces])
        for begin in range(0, len(wanted), _COMPARED_BYTES):
            part = wanted[begin : begin + _COMPARED_BYTES]
            unequal = np.frombuffer(self._read(offset + begin, len(part)), np.uint8) != part
            if unequal.any():
                raise NotTaken(offset + begin + int(unequal.argmax()))

    def _read(self, offset: int, length: int) -> memoryview:
        first = offset // _GRAIN_BYTES * _GRAIN_BYTES
        end = -(-(offset + length) // _GRAIN_BYTES) * _GRAIN_BYTES
        done = 0
        while first + done < offset + length:
            count = os.preadv(self._descriptor, [self._buffer[done : end - first]], first + done)
            if not count:
                raise OSError(errno.EIO, "the device ends before what was written to it")
            done += count
        return self._buffer[offset - first : offset - first + length]
