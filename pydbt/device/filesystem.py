"""The parts of a device that its mounted file system uses: ``FS_IOC_GETFSMAP`` on ext4 and XFS.

An initial copy leaves out free space. Every byte counts as used unless the file system reports it as free: metadata, gaps
between records, records of unknown owners, and the space beyond the file system's end. When the map is doubtful, the whole
device counts as used.

Three steps in this order make it safe: (1) the tracking of writes is armed; (2) the map is read; (3) the file system is told
to commit (``syncfs``). Space that is free in (2) and used later is written later, and tracked. Space that the file system
has freed in memory only at (2) would belong to its old file again after a crash; (3) commits the freeing before the replica
first counts as consistent.

Sources: linux/fsmap.h, ioctl_getfsmap(2).
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from dataclasses import dataclass

import numpy as np

from pydbt.device.mounts import Mount
from pydbt.device.sysfs import BlockDevice
from pydbt.posix import libc

_RECORD = np.dtype(  # struct fsmap
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
_HIGHEST_KEY = b"\xff" * 32 + bytes(32)  # every field at its maximum, but length and reserved, which must be 0
_HEAD = struct.Struct("=IIII48x")  # struct fsmap_head up to its keys: iflags, oflags, count, entries, reserved
_RECORDS_OFFSET = _HEAD.size + 2 * _RECORD.itemsize
_FS_IOC_GETFSMAP = 3 << 30 | _RECORDS_OFFSET << 16 | ord("X") << 8 | 59  # _IOWR('X', 59, struct fsmap_head)
_RECORDS_A_CALL = 4096  # 256 KiB of answer
_HEAD_DEVICE_NUMBERS = 0x1  # FMH_OF_DEV_T: fmr_device is a device number
_SPECIAL_OWNER = 0x10  # FMR_OF_SPECIAL_OWNER
_LAST = 0x20  # FMR_OF_LAST
_OWNER_FREE = 1  # FMR_OWN_FREE: type 0, code 1
_FILE_SYSTEMS = ("ext4", "xfs")


@dataclass(frozen=True, slots=True)
class UsedExtents:
    """The used runs of a device, ascending, disjoint and not touching, in bytes (int64 arrays of one length).

    ``reason`` names their origin in one sentence. ``whole``: they are the whole device.
    """

    firsts_bytes: np.ndarray
    lengths_bytes: np.ndarray
    reason: str
    whole: bool

    @property
    def total_bytes(self) -> int:
        return int(self.lengths_bytes.sum())


class _NoMap(Exception):
    """The file system's map cannot be used; the message ends the sentence for the operator."""


def used_extents(device: BlockDevice) -> UsedExtents:
    """The runs of ``device`` that an initial copy must read. Arm the tracking of writes before the call."""
    try:
        mount = _mount_of(device)
        firsts, lengths = _used_of_mount(device, mount)
    except _NoMap as why:
        everything = np.array([device.size_bytes], dtype=np.int64)
        return UsedExtents(np.zeros(1, dtype=np.int64), everything, f"the whole device is copied: {why}", True)
    reason = f"free space is left out, as reported by the {mount.fs_type} mounted at {mount.point}"
    return UsedExtents(firsts, lengths, reason, False)


def complement(free: np.ndarray, size_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """The rest of ``size_bytes`` without the free runs: ``free`` has one row (first, length) per run, in any order.

    Runs may be empty, touch, overlap, or reach beyond the size.
    """
    free = free[free[:, 1] > 0]
    order = np.argsort(free[:, 0], kind="stable")
    starts = np.clip(free[order, 0], 0, size_bytes)
    ends = np.maximum.accumulate(np.clip(free[order, 0] + free[order, 1], 0, size_bytes))
    used_from = np.concatenate(([0], ends)).astype(np.int64)
    used_to = np.concatenate((starts, [size_bytes])).astype(np.int64)
    keep = used_to > used_from
    return used_from[keep], (used_to - used_from)[keep]


def _mount_of(device: BlockDevice) -> Mount:
    mounts = [mount for mount in device.mounts() if (mount.major, mount.minor) == device.number]
    if not mounts:
        raise _NoMap("no ext4 or XFS is mounted directly on it, so its free space is not known")
    readable = [mount for mount in mounts if mount.fs_type in _FILE_SYSTEMS]
    if not readable:
        raise _NoMap(f"{mounts[0].fs_type} does not report its free space in a known way (ext4 and XFS do)")
    return readable[0]


def _used_of_mount(device: BlockDevice, mount: Mount) -> tuple[np.ndarray, np.ndarray]:
    descriptor = _open_mount(device, mount)
    try:
        free = _free_runs(descriptor, device)
        libc.syncfs(descriptor)
    except OSError as error:
        raise _NoMap(f"the {mount.fs_type} mounted at {mount.point} gives no map ({error.strerror})") from error
    finally:
        os.close(descriptor)
    return complement(free, device.size_bytes)


def _open_mount(device: BlockDevice, chosen: Mount) -> int:
    """Open any mount point of the device's file system that is not hidden under another mount."""
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
            return descriptor
        os.close(descriptor)
    raise _NoMap(f"the {chosen.fs_type} on it has no mount point that can be opened")


def _free_runs(descriptor: int, device: BlockDevice) -> np.ndarray:
    """The runs of ``device`` that are free in its file system's map: one row (first, length) in bytes per run."""
    number = _encode_device(*device.number)
    low = bytes(_RECORD.itemsize)
    free = []
    seen = False
    while True:
        request = bytearray(_RECORDS_OFFSET + _RECORDS_A_CALL * _RECORD.itemsize)
        request[:_RECORDS_OFFSET] = _HEAD.pack(0, 0, _RECORDS_A_CALL, 0) + low + _HIGHEST_KEY
        fcntl.ioctl(descriptor, _FS_IOC_GETFSMAP, request)
        _, flags, _, entries = _HEAD.unpack_from(request)
        if entries == 0:
            break
        if not flags & _HEAD_DEVICE_NUMBERS:
            raise _NoMap("its file system's map does not name devices by number")
        records = np.frombuffer(request, dtype=_RECORD, count=entries, offset=_RECORDS_OFFSET)
        here = records[records["device"] == number]
        seen = seen or here.size > 0
        chosen = here[(here["flags"] & _SPECIAL_OWNER != 0) & (here["owner"] == _OWNER_FREE)]
        free.append(np.stack((chosen["physical"], chosen["length"]), axis=1).astype(np.int64))
        if records[-1]["flags"] & _LAST:
            break
        # The next call continues after the last record, which is the whole low key.
        low = records[-1].tobytes()
    if not seen:
        raise _NoMap("its file system's map does not contain this device")
    return np.concatenate(free)


def _encode_device(major: int, minor: int) -> int:
    """A device number as the kernel shows it to programs in 32 bits (new_encode_dev)."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
