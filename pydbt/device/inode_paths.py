"""The name of a file by its inode: by a file handle, which a mounted file system takes (open_by_handle_at(2)).

A name is told only when the file that has it now is that inode; else it is not known. Nothing is searched.
"""

from __future__ import annotations

import contextlib
import os

from pydbt.device.file_handles import open_inode
from pydbt.device.mounts import read_mounts

_WITH_SUCH_HANDLES = ("ext4", "ext3", "ext2", "xfs", "f2fs")
_KEPT = 20_000  # names; more are forgotten all at once


class InodePaths:
    """Looks up and remembers. Only mounts of this mount namespace are known. For one thread at a time.

    A mount is open for a moment only: an open one could not be unmounted.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int], str | None] = {}
        self._mounts: dict[tuple[int, int], str] = {}

    def path(self, major: int, minor: int, inode: int, generation: int) -> str | None:
        """The file's name now, from the root of this mount namespace; None when it is not known."""
        key = (major, minor, inode, generation)
        if key not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = self._look(*key)
        return self._known[key]

    def _look(self, major: int, minor: int, inode: int, generation: int) -> str | None:
        with contextlib.ExitStack() as stack:
            try:
                folder = self._open_mount(major, minor)
                stack.callback(os.close, folder)
                descriptor = open_inode(folder, inode, generation)
                stack.callback(os.close, descriptor)
                path = os.readlink(f"/proc/self/fd/{descriptor}")
                status = os.stat(path, follow_symlinks=False)
            except (OSError, LookupError):
                return None
        is_it = (status.st_ino, status.st_dev) == (inode, os.makedev(major, minor))
        return path if is_it else None

    def _open_mount(self, major: int, minor: int) -> int:
        """A mount of that file system, open. LookupError when there is none."""
        number = major, minor
        with contextlib.suppress(LookupError, OSError):
            return _open_on(self._mounts[number], number)
        for mount in read_mounts():
            if (mount.major, mount.minor) == number and mount.fs_type in _WITH_SUCH_HANDLES:
                with contextlib.suppress(LookupError, OSError):
                    folder = _open_on(mount.point, number)
                    self._mounts[number] = mount.point
                    return folder
        raise LookupError


def _open_on(point: str, number: tuple[int, int]) -> int:
    """LookupError when another file system is mounted over it."""
    folder = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if os.fstat(folder).st_dev == os.makedev(*number):
        return folder
    os.close(folder)
    raise LookupError
