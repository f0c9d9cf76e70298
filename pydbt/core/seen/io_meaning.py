"""What the record of an I/O says: who submitted it, of which file it is, and what is not known of it."""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

import numpy as np

from pydbt.core.printable import printable
from pydbt.core.seen.io_names import OPERATIONS
from pydbt.core.seen.latency import UNKNOWN_NS
from pydbt.core.units import SECTOR_BYTES

_MINOR_BITS = 20  # include/linux/kdev_t.h
_JOURNALS = ("jbd2/", "xfsaild/", "xfs-cil/", "xfs-log/")


class IoFlag(IntFlag):
    """FLAG_* of bpf/block_io.bpf.c."""

    ERROR = 1
    SEQUENTIAL = 2
    FUA = 4
    META = 8
    SYNC = 16
    READ_AHEAD = 32
    KERNEL = 64
    DEVICE_CACHE = 128
    NO_SUBMITTER = 256
    DIRECT = 512


SHOWN_FLAGS = (IoFlag.SEQUENTIAL, IoFlag.FUA, IoFlag.META, IoFlag.SYNC, IoFlag.READ_AHEAD)


class FileId(NamedTuple):
    """A file as the kernel numbers it: device number of its file system, inode, and that inode's generation."""

    major: int
    minor: int
    inode: int
    generation: int


class Submitter(NamedTuple):
    """Who submitted an I/O. ``name``: of the thread, printable; empty when it is unknown. ``kind``: of a kernel's thread."""

    name: str
    process: int
    kind: str

    @property
    def words(self) -> str:
        if not self.name:
            return "unknown"
        return f"{self.name} ({self.kind})" if self.kind else self.name


def submitter_of(record: np.void) -> Submitter:
    """A thread of the kernel that writes pages out is called *writeback*: who changed these pages is not known here."""
    flags = int(record["flags"])
    if flags & IoFlag.NO_SUBMITTER:
        return Submitter("", 0, "")
    name = thread_name(bytes(record["name"]))
    kind = ""
    if flags & IoFlag.KERNEL:
        pages = bool(record["inode"]) or bool(flags & IoFlag.DEVICE_CACHE)
        writes_out = pages and OPERATIONS[record["operation"]] == "write"
        kind = "journal" if name.startswith(_JOURNALS) else "writeback" if writes_out else "kernel"
    return Submitter(name, int(record["process"]), kind)


def thread_name(raw: bytes) -> str:
    """A name of the kernel's 16 bytes, which any process chooses for itself."""
    return printable(raw.partition(b"\0")[0].decode(errors="backslashreplace")) or "(no name)"


def file_of(record: np.void) -> FileId | None:
    """The file whose page was read or written first; None where the kernel's record names none."""
    if not record["inode"]:
        return None
    number = int(record["file_system"])
    return FileId(
        number >> _MINOR_BITS, number & (1 << _MINOR_BITS) - 1, int(record["inode"]), int(record["generation"])
    )


def content_words(record: np.void) -> str:
    """Of an I/O of no known file: *metadata* when the kernel calls it that, *direct*, or else *unknown*; nothing without data.

    *Direct*: between the device and the memory of a program. Its file is not seen in the block layer.
    """
    flags = int(record["flags"])
    if not record["bytes"]:
        return ""
    if flags & (IoFlag.META | IoFlag.DEVICE_CACHE):
        return "metadata"
    return "direct" if flags & IoFlag.DIRECT else "unknown"


def flag_words(record: np.void) -> list[str]:
    """Names of the flags that people look for."""
    flags = int(record["flags"])
    return [str(flag.name).lower() for flag in SHOWN_FLAGS if flags & flag]


def offset_bytes(record: np.void) -> int | None:
    """From the start of the device; None for a flush, which has no place."""
    return int(record["sector"]) * SECTOR_BYTES if record["bytes"] else None


def known_ns(value: int) -> int | None:
    """A time of a record; None where it is unknown."""
    return None if int(value) == UNKNOWN_NS else int(value)
