"""Where files really lie, asked of their file system block by block."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_FIBMAP = 1  # ioctl: the number of a file's block on the device


def place_of(file: Path, block: int = 0) -> int:
    """Where a file's block really lies on its device, in bytes."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        answer = bytearray(struct.pack("=I", block))
        fcntl.ioctl(descriptor, _FIBMAP, answer)
        found: int = struct.unpack("=I", answer)[0] * os.fstatvfs(descriptor).f_bsize
    finally:
        os.close(descriptor)
    assert found, "the file has no block there"
    return found
