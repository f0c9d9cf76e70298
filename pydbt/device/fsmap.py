"""What a mounted ext4 or XFS tells of its device: to whom each part belongs (``FS_IOC_GETFSMAP``).

XFS names the inode of each part when it was made with ``rmapbt=1`` and the asker has CAP_SYS_ADMIN; without it the parts that
files use are of an unknown owner. ext4 keeps no way back from a block to its file: it names free space and its own metadata.

Sources: linux/fsmap.h, ioctl_getfsmap(2), fs/xfs/xfs_fsmap.c, fs/ext4/fsmap.h.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator

import numpy as np

from pydbt.device.mounts import Mount
from pydbt.device.sysfs import BlockDevice

FSMAP_RECORD = np.dtype(  # struct fsmap
    [
        ("device", "=u4"),
        ("flags", "=u4"),
        ("physical", "=u8"),
        ("owner", "=u8"),
        ("offset", "=u8"),
        ("length", "=u8"),
        ("reserved", "=u8", 3),
    ]
)
SPECIAL_OWNER = 0x10  # FMR_OF_SPECIAL_OWNER
OWNER_FREE = 1  # FMR_OWN_FREE: type 0, code 1

_HEAD = struct.Struct("=IIII48x")  # struct fsmap_head up to its keys: iflags, oflags, count, entries, reserved
_RECORDS_OFFSET = _HEAD.size + 2 * FSMAP_RECORD.itemsize
_FS_IOC_GETFSMAP = 3 << 30 | _RECORDS_OFFSET << 16 | ord("X") << 8 | 59  # _IOWR('X', 59, struct fsmap_head)
_RECORDS_A_CALL = 4096  # 256 KiB of answer
_HEAD_DEVICE_NUMBERS = 0x1  # FMH_OF_DEV_T: fmr_device is a device number
_LAST = 0x20  # FMR_OF_LAST
_FILE_SYSTEMS = ("ext4", "xfs")
_MAX_32, _MAX_64 = (1 << 32) - 1, (1 << 64) - 1
_KEY = struct.Struct("=IIQQQQ24x")  # struct fsmap


class NoMap(Exception):
    """The file system's map cannot be used; the message ends the sentence for the operator."""


def mount_with_map(device: BlockDevice) -> Mount:
    """A mount of the ext4 or XFS that lies directly on a device, in any mount namespace. NoMap when there is none."""
    mounts = [mount for mount in device.mounts() if (mount.major, mount.minor) == device.number]
    if not mounts:
        raise NoMap("no ext4 or XFS is mounted directly on it, so its free space is not known")
    readable = [mount for mount in mounts if mount.fs_type in _FILE_SYSTEMS]
    if not readable:
        raise NoMap(f"{mounts[0].fs_type} does not report its free space in a known way (ext4 and XFS do)")
    return readable[0]


def open_mount(device: BlockDevice, chosen: Mount) -> tuple[int, Mount]:
    """Open any mount point of the device's file system that is not hidden under another mount: the descriptor, and which it is.
    NoMap when none can be opened."""
    number = os.makedev(device.major, device.minor)
    for mount in device.mounts():
        if mount.fs_type != chosen.fs_type:
            continue
        try:
            kind = os.lstat(mount.point).st_mode
            if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
                continue
            descriptor = os.open(mount.point, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        if os.fstat(descriptor).st_dev == number:
            return descriptor, mount
        os.close(descriptor)
    raise NoMap(f"the {chosen.fs_type} on it has no mount point that can be opened")


def map_records(
    descriptor: int, device: BlockDevice, first_byte: int = 0, last_byte: int | None = None
) -> Iterator[np.ndarray]:
    """The parts of ``device`` that reach into these bytes, in order, some thousand at a time (FSMAP_RECORD).

    ``descriptor``: an open file of the file system. ``last_byte`` None: to the end. A part may begin before, and end behind
    them. OSError when the file system has no such map, NoMap when its answer cannot be used.
    """
    number = _encode_device(*device.number)
    if last_byte is None:
        low, high = bytes(_KEY.size), _KEY.pack(_MAX_32, _MAX_32, _MAX_64, _MAX_64, _MAX_64, 0)
    else:
        low = _KEY.pack(number, 0, first_byte, 0, 0, 0)
        high = _KEY.pack(number, _MAX_32, last_byte, _MAX_64, _MAX_64, 0)
    while True:
        request = bytearray(_RECORDS_OFFSET + _RECORDS_A_CALL * FSMAP_RECORD.itemsize)
        request[:_RECORDS_OFFSET] = _HEAD.pack(0, 0, _RECORDS_A_CALL, 0) + low + high
        fcntl.ioctl(descriptor, _FS_IOC_GETFSMAP, request)
        _, flags, _, entries = _HEAD.unpack_from(request)
        if entries == 0:
            return
        if not flags & _HEAD_DEVICE_NUMBERS:
            raise NoMap("its file system's map does not name devices by number")
        records = np.frombuffer(request, dtype=FSMAP_RECORD, count=entries, offset=_RECORDS_OFFSET)
        yield records[records["device"] == number]
        if records[-1]["flags"] & _LAST:
            return
        # The next call continues after the last record, which is the whole low key.
        low = records[-1].tobytes()


def free_parts(records: np.ndarray) -> np.ndarray:
    """Those of the records that are free: one row (first, length) in bytes per part."""
    chosen = records[(records["flags"] & SPECIAL_OWNER != 0) & (records["owner"] == OWNER_FREE)]
    return np.stack((chosen["physical"], chosen["length"]), axis=1).astype(np.int64)


def _encode_device(major: int, minor: int) -> int:
    """A device number as the kernel shows it to programs in 32 bits (new_encode_dev)."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


assert _KEY.size == FSMAP_RECORD.itemsize
