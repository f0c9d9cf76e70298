"""To which file a block belongs, where the mounted file system can tell: the extent, the inode, and its name.

XFS with reverse mapping (``mkfs.xfs -m rmapbt=1``) names the inode of a block. The name of an inode is what the kernel has in
memory of it at this moment: a file is opened by its handle (open_by_handle_at(2), without reading it), and named only when the
name leads back to the same inode. Nothing is guessed: what is not known has no name, and a sentence says why.

All of it may wait for as long as the file system does: ask in a thread.

Sources: linux/fsmap.h, fs/xfs/libxfs/xfs_fs.h (XFS_IOC_BULKSTAT, FMR_OWN_*), fs/xfs/xfs_export.h (handles).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass

import numpy as np

from pydbt.core.printable import printable
from pydbt.core.units import MIB
from pydbt.device.file_handles import open_inode
from pydbt.device.fsmap import OWNER_FREE, SPECIAL_OWNER, NoMap, map_records, mount_with_map, open_mount
from pydbt.device.mounts import Mount
from pydbt.device.sysfs import BlockDevice

_ATTRIBUTE_FORK, _EXTENT_MAP, _SHARED = 0x2, 0x4, 0x8  # FMR_OF_ATTR_FORK, FMR_OF_EXTENT_MAP, FMR_OF_SHARED
_AROUND_BYTES = 32 * MIB
"""Asked for on either side, so that the borders of most pieces are seen: some thousand records of 4 KiB each at the worst."""
_OWNER_UNKNOWN = 2  # FMR_OWN_UNKNOWN
_METADATA = {  # FMR_OWNER(type, code): XFS_FMR_OWN_*, EXT4_FMR_OWN_*
    "X": {1: "superblocks and headers", 2: "the journal", 3: "the management of space", 4: "the index of inodes", 5: "inodes",
          6: "reference counts", 7: "a copy on write that is being made", 8: "a defect that was found"},
    "f": {1: "group descriptors", 2: "group descriptors for growth", 3: "a block bitmap", 4: "an inode bitmap"},
}  # fmt: skip

_BULK_REQUEST = struct.Struct("=QIIII40x")  # struct xfs_bulk_ireq: ino, flags, icount, ocount, agno
_BULK_STAT_BYTES = 192  # struct xfs_bulkstat
_BULK_INODE_OFFSET, _BULK_GENERATION_OFFSET = 0, 64
_XFS_IOC_BULKSTAT = 2 << 30 | _BULK_REQUEST.size << 16 | ord("X") << 8 | 127  # _IOR('X', 127, struct xfs_bulkstat_req)


@dataclass(frozen=True, slots=True)
class BlockOwner:
    """``extent_bytes``: where the file system's own piece begins, and its length; None where it does not tell. ``file``: its
    path, as the mount's own namespace sees it, or the number of its inode; None where it is not known. ``why``: a sentence."""

    extent_bytes: tuple[int, int] | None
    file: str | None
    why: str


def owner_of(device: BlockDevice, offset_bytes: int) -> BlockOwner:
    """The owner of the byte at this place of the device, by the file system that lies directly on it. Never raises for what a
    file system does."""
    try:
        descriptor, mount = open_mount(device, mount_with_map(device))
    except NoMap as why:
        return BlockOwner(None, None, f"unknown: {why}")
    try:
        return _owner_on(descriptor, mount, device, offset_bytes)
    except (OSError, NoMap) as why:
        reason = why.strerror if isinstance(why, OSError) else why
        return BlockOwner(
            None, None, f"unknown: the {mount.fs_type} at {printable(mount.point)} gives no map ({reason})"
        )
    finally:
        os.close(descriptor)


def _owner_on(descriptor: int, mount: Mount, device: BlockDevice, offset: int) -> BlockOwner:
    low, high = max(0, offset - _AROUND_BYTES), min(device.size_bytes, offset + _AROUND_BYTES) - 1
    for records in map_records(descriptor, device, low, high):
        first = records["physical"].astype(np.int64)
        ends = first + records["length"].astype(np.int64)
        for index in np.flatnonzero((first <= offset) & (offset < ends)).tolist():
            record, begin, end = records[index], int(first[index]), min(int(ends[index]), device.size_bytes)
            flags, owner = int(record["flags"]), int(record["owner"])
            if not flags & SPECIAL_OWNER:
                in_file = int(record["offset"]) + offset - begin
                return _file_of(descriptor, mount, (begin, end - begin), owner, flags, in_file)
            # Free space is told as far as it was asked for, and no further; what is unknown is no piece of anything.
            is_whole = owner != _OWNER_UNKNOWN and (owner != OWNER_FREE or (begin > low and end <= high))
            return BlockOwner((begin, end - begin) if is_whole else None, None, _words_of_special(owner, mount.fs_type))
    return BlockOwner(None, None, f"unknown: the {mount.fs_type} says nothing of this place")


def _words_of_special(owner: int, fs_type: str) -> str:
    kind, code = chr(owner >> 32 & 0x7F), owner & 0xFFFFFFFF
    if owner == OWNER_FREE:
        return "free space of the file system"
    if owner == _OWNER_UNKNOWN and fs_type == "xfs":
        return (
            "unknown: this XFS was made without reverse mapping (mkfs.xfs -m rmapbt=1), so that it cannot name the file"
        )
    if owner == _OWNER_UNKNOWN:
        return "unknown: ext4 keeps no way back from a block to its file"
    words = _METADATA.get(kind, {}).get(code)
    return f"metadata of the file system: {words}" if words else "metadata of the file system"


def _file_of(
    descriptor: int, mount: Mount, extent: tuple[int, int], inode: int, flags: int, in_file: int
) -> BlockOwner:
    part = "its extended attributes" if flags & _ATTRIBUTE_FORK else f"byte {in_file} of it"
    if flags & _EXTENT_MAP:
        part = "its extent map"
    name, why = _name_of(descriptor, mount, inode)
    if flags & _SHARED:
        part += ", shared with other files or with other places of this one"
    if name is not None:
        return BlockOwner(extent, printable(name), f"{part}; inode {inode}")
    return BlockOwner(extent, f"inode {inode}", f"{part}; its name is unknown: {why}")


def _name_of(descriptor: int, mount: Mount, inode: int) -> tuple[str | None, str]:
    """The path of an inode as its mount's namespace sees it, or None and why not."""
    try:
        file = open_inode(descriptor, inode, _generation(descriptor, inode))
    except OSError as error:
        if error.errno in (errno.ESTALE, errno.ENOENT, errno.EINVAL):
            return None, "it has no inode any more, or one of another file"
        return None, str(error.strerror)
    try:
        name = os.readlink(f"/proc/self/fd/{file}")
        if _is_at(f"{mount.root}{name}", file):
            return name, ""
    except OSError as error:
        return None, str(error.strerror)
    finally:
        os.close(file)
    return None, "nobody has used it by its name lately"


def _is_at(path: str, file: int) -> bool:
    try:
        found, own = os.lstat(path), os.fstat(file)
    except (OSError, ValueError):
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _generation(descriptor: int, inode: int) -> int:
    """The number that tells this file from others that have had its inode (XFS_IOC_BULKSTAT). OSError, ENOENT: there is none."""
    request = bytearray(_BULK_REQUEST.size + _BULK_STAT_BYTES)
    _BULK_REQUEST.pack_into(request, 0, inode, 0, 1, 0, 0)
    fcntl.ioctl(descriptor, _XFS_IOC_BULKSTAT, request)
    found, generation = (
        struct.unpack_from(code, request, _BULK_REQUEST.size + offset)[0]
        for code, offset in (("=Q", _BULK_INODE_OFFSET), ("=I", _BULK_GENERATION_OFFSET))
    )
    if not _BULK_REQUEST.unpack_from(request)[3] or found != inode:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return int(generation)
