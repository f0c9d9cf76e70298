"""Files: whole writes, durable names, locks, and entries of ``/sys`` and ``/proc``."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from pydbt.core.units import Buffer
from pydbt.posix.ownership import open_own

IOV_MAX = 1024
"""The most buffers that one call takes (UIO_MAXIOV, include/uapi/linux/uio.h)."""

LONGEST_SOCKET_WAIT_S = 86_400.0
"""The longest single wait for a socket: poll(2) counts milliseconds in an int, and 25 days already come out as a moment."""
_FLOCK = "hhqqi4x"  # struct flock of 64 bits: type, whence, start, length, process


def write_all(descriptor: int, buffers: Iterable[Buffer], offset_bytes: int | None = None, flags: int = 0) -> None:
    """Write buffers one behind the other, also when a call takes only a part of them.

    They begin at ``offset_bytes``, or without it at the descriptor's own position. ``flags`` of pwritev2(2), which needs an
    offset: RWF_DSYNC waits for the disk. OSError when the disk fails.
    """
    assert offset_bytes is not None or not flags, "writev takes no flags"

    def take(views: list[memoryview]) -> int:
        nonlocal offset_bytes
        if offset_bytes is None:
            return os.writev(descriptor, views)
        count = os.pwritev(descriptor, views, offset_bytes, flags)
        offset_bytes += count
        return count

    hand_over(buffers, take)


def hand_over(buffers: Iterable[Buffer], take: Callable[[list[memoryview]], int]) -> int:
    """Hand buffers to a call that may take only a part, until all is taken; returns the bytes.

    ``take`` gets up to IOV_MAX views, none of them empty, and returns how many bytes it took from their beginning.
    """
    views = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
    index = total = 0
    while index < len(views):
        count = take(views[index : index + IOV_MAX])
        total += count
        while index < len(views) and count >= len(views[index]):
            count -= len(views[index])
            index += 1
        if count:
            views[index] = views[index][count:]
    return total


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file for as long as it is open (flock(2)); False when another process has the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def try_write_lock(descriptor: int) -> bool:
    """Lock a file that is open for writing, for as long as it is; False when another process that may write to it has the lock.

    Anybody who may read a file can take every lock of flock(2) on it. A lock for writing of fcntl_locking(2) needs a descriptor
    that can write. One for reading is no reason not to go on: then nothing is locked.
    """
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # the whole file
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted))
        return bool(kind != fcntl.F_WRLCK)
    return True


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of a file. When none does, this takes the lock for a moment."""
    try:
        descriptor = open_own(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def read_entry(path: Path) -> str | None:
    """The text of an entry of ``/sys`` or ``/proc`` without blanks around it; None when it is absent or unreadable.

    Other bytes stay as they are: names in there may have any of them.
    """
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape").strip(" \t\n")
    except OSError:
        return None
