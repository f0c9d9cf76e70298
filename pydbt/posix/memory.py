"""File systems whose files lie in memory, and are gone after a power loss."""

from __future__ import annotations

import os

from pydbt.posix import libc

# include/uapi/linux/magic.h
_IN_MEMORY = {0x01021994: "tmpfs", 0x858458F6: "ramfs"}


def memory_file_system(path: str | os.PathLike[str]) -> str:
    """The name of such a file system on which a path is; empty for another one. OSError when there is nothing."""
    return _IN_MEMORY.get(libc.file_system_magic(path), "")
