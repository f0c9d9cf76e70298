"""Partitions that the kernel made of a target's content: taken away while it is a replica, and read again afterwards.

They exist in the kernel alone; nothing is written. Sources: include/uapi/linux/blkpg.h, block/ioctl.c (``blkpg_do_ioctl``).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import stat

from pydbt.core.errors import PydbtError
from pydbt.device.sysfs import BlockDevice

_BLKPG, _BLKRRPART = 0x1269, 0x125F
_DELETE = 2


class _Partition(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_longlong),
        ("length", ctypes.c_longlong),
        ("number", ctypes.c_int),
        ("device_name", ctypes.c_char * 64),
        ("volume_name", ctypes.c_char * 64),
    )


class _Argument(ctypes.Structure):
    _fields_ = (
        ("operation", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("length", ctypes.c_int),
        ("data", ctypes.c_void_p),
    )


def remove_partitions(descriptor: int) -> list[int]:
    """Take the partitions of an open whole disk out of the kernel; the numbers of those that are gone now.

    One that is in use stays; so do all of them where this process may not do it. While the disk is held exclusively the kernel
    does not read its table again.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISBLK(status.st_mode):
        return []
    try:
        disk = BlockDevice.from_number(os.major(status.st_rdev), os.minor(status.st_rdev))
        numbers = [part.partition for part in disk.partitions() if part.partition is not None]
    except (PydbtError, OSError):
        return []  # it goes away
    removed = []
    for number in numbers:
        partition = _Partition(number=number)
        argument = _Argument(_DELETE, 0, ctypes.sizeof(partition), ctypes.addressof(partition))
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, _BLKPG, bytes(argument))
            removed.append(number)
    return removed


def read_partitions_again(path: str | os.PathLike[str]) -> bool:
    """Let the kernel read the table of a whole disk again. False: it is in use, or the device has no partitions."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.ioctl(descriptor, _BLKRRPART)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
