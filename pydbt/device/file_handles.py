"""Files and control groups by the numbers that the kernel has for them: open_by_handle_at(2).

A file is not opened, only found (O_PATH): nothing is read of it, and its file system hears nothing. For that moment it is in use,
so that an unmount in the same moment fails.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from pydbt.device.freezer import mount_id_of_descriptor
from pydbt.posix import libc

# include/linux/exportfs.h; fs/xfs/xfs_export.h has the flag of 64 bits.
_INODE_32, _INODE_64, _KERNFS = 0x01, 0x81, 0xFE
_GROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_CGROUP2_MAGIC = 0x63677270  # include/uapi/linux/magic.h


class MountPoint(NamedTuple):
    """Where a file system is mounted, and the kernel's number of that mount."""

    path: str
    mount_id: int


def path_of_file(point: MountPoint, inode: int, generation: int) -> bytes | None:
    """A path of a file under this mount, as this process would reach it; None when it cannot be told.

    It is one of its names, and the one by which it was found last. `` (deleted)`` follows that of a file without a name.
    """
    with _opened(point.path, point.mount_id) as mount:
        if mount is None:
            return None
        try:
            found = open_inode(mount, inode, generation)
        except OSError:
            return None
        path = _name_of(found)
    below = os.fsencode(point.path).rstrip(b"/") + b"/"
    return path if path is not None and path.startswith(below) and path != below else None


def open_inode(mount: int, inode: int, generation: int) -> int:
    """A descriptor (O_PATH) of the file with this inode, on the mount that an open file is on.

    OSError when there is none: ESTALE where the inode is another file's by now. ``generation`` tells these apart.
    """
    handles = [(_INODE_64, struct.pack("<QI", inode, generation))]
    if inode < 1 << 32:
        handles.insert(0, (_INODE_32, struct.pack("<II", inode, generation)))
    problem = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    for kind, handle in handles:
        try:
            found = libc.open_by_handle(mount, kind, handle, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            problem = error
            continue
        if os.fstat(found).st_ino == inode:
            return found
        os.close(found)
    raise problem


def group_mount() -> str | None:
    """Where the control groups of version 2 are mounted; None where they are not."""
    for place in _GROUPS:
        with contextlib.suppress(OSError):
            if libc.file_system_magic(place) == _CGROUP2_MAGIC:
                return place
    return None


def path_of_group(mount_point: str, number: int) -> bytes | None:
    """The path of a control group from their root; None when it is gone, or in another hierarchy."""
    path = None
    with _opened(mount_point) as mount, contextlib.suppress(OSError):
        if mount is not None:
            flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
            path = _name_of(libc.open_by_handle(mount, _KERNFS, struct.pack("<Q", number), flags), number)
    root = os.fsencode(mount_point)
    if path is None or not path.startswith(root):
        return None
    return path.removeprefix(root) or b"/"


@contextlib.contextmanager
def _opened(place: str, mount_id: int | None = None) -> Iterator[int | None]:
    """Open a folder, if it is on this mount: another file system that lies over it might never answer."""
    with contextlib.ExitStack() as stack:
        try:
            found = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, found)
            if mount_id is not None and mount_id_of_descriptor(found) != mount_id:
                raise FileNotFoundError
            opened = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, opened)
        except OSError:
            yield None
        else:
            yield opened


def _name_of(found: int, inode: int | None = None) -> bytes | None:
    """The name of what is open, if it has that inode; closes it."""
    try:
        if inode is not None and os.fstat(found).st_ino != inode:
            return None
        return os.readlink(b"/proc/self/fd/%d" % found)
    except OSError:
        return None
    finally:
        os.close(found)
