"""Calls of the C library that Python's ``os`` lacks, by their own names; each raises OSError when it fails.

No other module of the package loads the C library, but for ``device/suspender.py``, which runs isolated.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 0x1, 0x2
SYNC_FILE_RANGE_WRITE = 2
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h

_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_STATX_INO, _STATX_BTIME = 0x100, 0x800
_STRUCT_BYTES = 256  # struct statx has 256; struct statfs is smaller

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p]
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char]) -> int:
    """A system call by its number (syscall(2)). An int argument is passed in 32 bits."""
    return _checked(_libc.syscall(number, *arguments))


def syncfs(descriptor: int) -> None:
    """Write out the file system that an open file is on, and wait for it."""
    _checked(_libc.syncfs(descriptor))


def open_by_handle(mount: int, kind: int, handle: bytes, flags: int) -> int:
    """A descriptor of the file that a handle names, on the mount that an open file is on (open_by_handle_at(2))."""
    return _checked(_libc.open_by_handle_at(mount, struct.pack("=Ii", len(handle), kind) + handle, flags))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """Change the room of a part of a file or block device, in bytes."""
    _checked(_libc.fallocate(descriptor, mode, offset, length))


def sync_file_range(descriptor: int, offset: int, length: int, flags: int) -> None:
    """Begin to write, or wait for, the dirty pages of a part of a file; length 0 reaches to its end."""
    _checked(_libc.sync_file_range(descriptor, offset, length, flags))


def prctl(option: int, argument: int) -> None:
    """Change an attribute of this process."""
    _checked(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0))


def capset(header: bytes, data: bytes) -> None:
    """Change the capabilities of this thread (capset(2)); the C library has the call and no declaration of it."""
    _checked(_libc.capset(header, data))


def file_system_magic(path: str | os.PathLike[str]) -> int:
    """Which kind of file system a path is on (``f_type`` of statfs(2))."""
    buffer = ctypes.create_string_buffer(_STRUCT_BYTES)
    _checked(_libc.statfs(os.fsencode(path), buffer))
    return int.from_bytes(buffer.raw[:4], "little")


def inode_and_birth(file: int | str) -> tuple[int, tuple[int, int] | None]:
    """The inode number of a path or descriptor, and its time of birth in seconds and nanoseconds (statx(2)).

    No birth: the file system does not keep it.
    """
    buffer = ctypes.create_string_buffer(_STRUCT_BYTES)
    folder, path, flags = (file, b"", _AT_EMPTY_PATH) if isinstance(file, int) else (_AT_FDCWD, os.fsencode(file), 0)
    _checked(_libc.statx(folder, path, flags, _STATX_INO | _STATX_BTIME, buffer))
    (mask,) = struct.unpack_from("=I", buffer, 0)
    (inode,) = struct.unpack_from("=Q", buffer, 32)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, 80)
    return inode, (seconds, nanoseconds) if mask & _STATX_BTIME else None


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno() or errno.EIO
        raise OSError(code, os.strerror(code))
    return result
