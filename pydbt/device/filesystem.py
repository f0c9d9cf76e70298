"""The parts of a device that its mounted file system uses: ``fsmap`` of ext4 and XFS.

An initial copy leaves out free space. Every byte counts as used unless the file system reports it as free: metadata, gaps
between records, records of unknown owners, and the space beyond the file system's end. When the map is doubtful, the whole
device counts as used.

Three steps in this order make it safe: (1) the tracking of writes is armed; (2) the map is read; (3) the file system is told
to commit (``syncfs``). Space that is free in (2) and used later is written later, and tracked. Space that the file system
has freed in memory only at (2) would belong to its old file again after a crash; (3) commits the freeing before the replica
first counts as consistent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from pydbt.device.fsmap import NoMap, free_parts, map_records, mount_with_map, open_mount
from pydbt.device.mounts import Mount
from pydbt.device.sysfs import BlockDevice
from pydbt.posix import libc


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


def used_extents(device: BlockDevice) -> UsedExtents:
    """The runs of ``device`` that an initial copy must read. Arm the tracking of writes before the call."""
    try:
        mount = mount_with_map(device)
        firsts, lengths = _used_of_mount(device, mount)
    except NoMap as why:
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


def _used_of_mount(device: BlockDevice, mount: Mount) -> tuple[np.ndarray, np.ndarray]:
    descriptor, _ = open_mount(device, mount)
    try:
        free = _free_runs(descriptor, device)
        libc.syncfs(descriptor)
    except OSError as error:
        raise NoMap(f"the {mount.fs_type} mounted at {mount.point} gives no map ({error.strerror})") from error
    finally:
        os.close(descriptor)
    return complement(free, device.size_bytes)


def _free_runs(descriptor: int, device: BlockDevice) -> np.ndarray:
    """The runs of ``device`` that are free in its file system's map: one row (first, length) in bytes per run."""
    free = []
    seen = False
    for here in map_records(descriptor, device):
        seen = seen or here.size > 0
        free.append(free_parts(here))
    if not seen:
        raise NoMap("its file system's map does not contain this device")
    return np.concatenate(free)
