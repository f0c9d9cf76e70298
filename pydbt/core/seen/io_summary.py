"""Sums over records of I/Os: latencies and sizes for each operation, and who and which files made most of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pydbt.core.seen.io_meaning import FileId, IoFlag, Submitter, file_of, submitter_of
from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.core.seen.latency import BUCKETS, Spread, counts_of
from pydbt.core.units import SECTOR_BYTES

_SIZES = 32
# More names than any screen shows. A machine that starts a process for each write would otherwise fill the memory.
GROUPS_MAX = 10_000
OTHERS = Submitter("(others)", 0, "")

_PART_FIELDS = tuple(f"{part}_ns" for part in PARTS)
_WHO = np.dtype([("name", "S16"), ("process", "<u4"), ("flags", "<u2"), ("operation", "u1"), ("has_file", "u1")])
_FILE = np.dtype([("inode", "<u8"), ("generation", "<u4"), ("file_system", "<u4")])
_WHO_FLAGS = IoFlag.KERNEL | IoFlag.DEVICE_CACHE | IoFlag.NO_SUBMITTER


@dataclass(slots=True)
class Sum:
    """I/Os of one group. ``latency``: of the whole time, in buckets."""

    count: int = 0
    bytes: int = 0
    latency: np.ndarray = field(default_factory=lambda: np.zeros(BUCKETS, np.uint64))

    def add(self, records: np.ndarray) -> None:
        self.count += len(records)
        self.bytes += int(records["bytes"].sum(dtype=np.uint64))
        self.latency += counts_of(records["total_ns"])


@dataclass(slots=True)
class OperationSum:
    """I/Os of one operation. ``latencies``: one row of buckets for each of PARTS."""

    count: int = 0
    bytes: int = 0
    errors: int = 0
    sequential: int = 0
    latencies: np.ndarray = field(default_factory=lambda: np.zeros((len(PARTS), BUCKETS), np.uint64))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(_SIZES, np.uint64))

    def add(self, records: np.ndarray) -> None:
        self.count += len(records)
        self.bytes += int(records["bytes"].sum(dtype=np.uint64))
        self.errors += int(np.count_nonzero(records["flags"] & IoFlag.ERROR))
        self.sequential += int(np.count_nonzero(records["flags"] & IoFlag.SEQUENTIAL))
        for part, name in enumerate(_PART_FIELDS):
            self.latencies[part] += counts_of(records[name])
        sectors = records["bytes"][records["bytes"] > 0] // SECTOR_BYTES
        powers = np.log2(np.maximum(sectors, 1)).astype(np.int64)
        self.sizes += np.bincount(powers, minlength=_SIZES).astype(np.uint64)


class IoSummary:
    """Add records in any order; read it at any time."""

    def __init__(self) -> None:
        self.operations = {name: OperationSum() for name in OPERATIONS}
        self.by_submitter: dict[Submitter, Sum] = defaultdict(Sum)
        self.by_file: dict[FileId, Sum] = defaultdict(Sum)
        self.count = 0

    def add(self, records: np.ndarray) -> None:
        """Records of dtype IO_RECORD."""
        self.count += len(records)
        for number, name in enumerate(OPERATIONS):
            of_one = records[records["operation"] == number]
            if len(of_one):
                self.operations[name].add(of_one)
        for part in _parts_by(records, _who(records)):
            self._group(submitter_of(part[0])).add(part)
        with_file = records[records["inode"] != 0]
        for part in _parts_by(with_file, _files(with_file)):
            if (file := file_of(part[0])) is not None and (file in self.by_file or len(self.by_file) < GROUPS_MAX):
                self.by_file[file].add(part)

    def _group(self, submitter: Submitter) -> Sum:
        known = submitter in self.by_submitter or len(self.by_submitter) < GROUPS_MAX
        return self.by_submitter[submitter if known else OTHERS]

    def busiest(self, count: int) -> list[tuple[Submitter, Sum]]:
        """Submitters with the most bytes, and of these the most I/Os, first."""
        return sorted(self.by_submitter.items(), key=lambda one: (-one[1].bytes, -one[1].count, one[0]))[:count]

    def busiest_files(self, count: int) -> list[tuple[FileId, Sum]]:
        return sorted(self.by_file.items(), key=lambda one: (-one[1].bytes, -one[1].count, one[0]))[:count]

    def to_json(self) -> dict[str, Any]:
        """For each operation; times in nanoseconds."""
        return {name: _operation(one) for name, one in self.operations.items()}


def _operation(one: OperationSum) -> dict[str, Any]:
    return {
        "count": one.count,
        "bytes": one.bytes,
        "errors": one.errors,
        "sequential": one.sequential,
        "random": int(one.sizes.sum()) - one.sequential,
        "sizes": [[SECTOR_BYTES << at, int(number)] for at, number in enumerate(one.sizes) if number],
        "latency_ns": {part: Spread.of(one.latencies[at]).to_json() for at, part in enumerate(PARTS)},
    }


def _who(records: np.ndarray) -> np.ndarray:
    """What tells submitters apart."""
    keys = np.zeros(len(records), _WHO)
    keys["name"], keys["process"] = records["name"], records["process"]
    keys["flags"] = records["flags"] & _WHO_FLAGS
    kernel = records["flags"] & IoFlag.KERNEL != 0
    keys["operation"] = np.where(kernel, records["operation"], 0)
    keys["has_file"] = kernel & (records["inode"] != 0)
    return keys


def _files(records: np.ndarray) -> np.ndarray:
    keys = np.zeros(len(records), _FILE)
    for name in _FILE.names or ():
        keys[name] = records[name]
    return keys


def _parts_by(records: np.ndarray, keys: np.ndarray) -> Iterable[np.ndarray]:
    """The records of each key."""
    if not len(records):
        return
    raw = np.ascontiguousarray(keys).view(f"V{keys.dtype.itemsize}").reshape(-1)
    _, inverse = np.unique(raw, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    bounds = np.flatnonzero(np.diff(inverse[order])) + 1
    for part in np.split(order, bounds):
        yield records[part]
