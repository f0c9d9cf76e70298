"""What one look at the observing programs' tables tells (bpf/writers.bpf.c)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """Of bytes: how they came to the volume. The numbers are the programs' own."""

    DIRECT = 1  # submitted by the process itself, past the page cache; and discards
    BUFFERED = 2  # through the page cache
    JOURNAL = 3
    METADATA = 4
    BEFORE = 5  # in pages that were dirtied before the programs were attached
    UNKNOWN = 6


class File(NamedTuple):
    """A file of a file system, as the kernel numbers it. ``device``: of the file system, in the kernel's 32 bits."""

    device: int
    inode: int
    generation: int


NO_ROOM = File(0, 0, 0)
"""Of a row: the programs' table was full, and its bytes are counted without their file."""


class RowKey(NamedTuple):
    """Whose bytes, of which kind, to which file (or ``NO_ROOM``).

    ``writer`` 0: of nobody who is known; ``file`` None: not known, or none.
    """

    kind: int
    writer: int
    file: File | None


class Amount(NamedTuple):
    """Bytes of pages that became dirty, and bytes that were submitted to the volume."""

    dirtied: int
    written: int


NOTHING = Amount(0, 0)


@dataclass(frozen=True, slots=True)
class Process:
    """A process, wherever it is seen: its control group may change, and exec() changes its name."""

    process: int
    started_ns: int


@dataclass(frozen=True, slots=True)
class Writer:
    """A process. ``started_ns``: since the boot; with it a number that is used again is another process.

    ``name`` is chosen by the process: any bytes. ``cgroup`` is the kernel's number of its control group (version 2).
    """

    process: int
    started_ns: int
    cgroup: int
    user: int
    is_kernel: bool
    name: bytes

    @property
    def subject(self) -> Process:
        return Process(self.process, self.started_ns)


@dataclass(frozen=True, slots=True)
class WriterReading:
    """All figures are counted from the moment of attaching. ``rows`` may lose rows that nobody wrote to for long.

    ``captured_bytes``: by the capture's own counters, read after the rows, from a moment before they began.
    ``lost``: bytes for which there was no room at all. ``lost_rows``: how often there was no room for a row.
    ``looks``: how often the programs had to do with a page, or a direct write. ``ended``: rows that were taken away after this
    reading.
    """

    rows: Mapping[RowKey, Amount]
    writers: Mapping[int, Writer]
    captured_bytes: int
    lost: Amount = NOTHING
    lost_rows: int = 0
    lost_writers: int = 0
    looks: int = 0
    ended: frozenset[RowKey] = frozenset()


NOTHING_READ = WriterReading({}, {}, 0)


@dataclass(frozen=True, slots=True)
class Names:
    """What the machine calls them, as far as it is known: paths of control groups and of files, and names of users, as bytes."""

    groups: Mapping[int, bytes] = field(default_factory=dict)
    files: Mapping[File, bytes] = field(default_factory=dict)
    users: Mapping[int, bytes] = field(default_factory=dict)
