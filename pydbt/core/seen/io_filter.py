"""Which records of I/Os somebody wants to see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pydbt.core.seen.io_meaning import IoFlag
from pydbt.core.seen.io_names import OPERATIONS
from pydbt.core.seen.latency import UNKNOWN_NS

_NAME_BYTES = 15  # the kernel keeps no more of a thread's name


@dataclass(frozen=True, slots=True)
class IoFilter:
    """``operations``: a bit for each of OPERATIONS. ``names`` and ``processes``: none means every one."""

    operations: int
    names: tuple[bytes, ...]
    processes: tuple[int, ...]
    least_ns: int

    @classmethod
    def of(cls, operations: Iterable[str], processes: Iterable[str], least_ns: int) -> IoFilter:
        """``processes``: numbers of processes, or names of threads."""
        bits = sum(1 << OPERATIONS.index(name) for name in set(operations)) or (1 << len(OPERATIONS)) - 1
        named = tuple(processes)
        numbers = tuple(int(one) for one in named if one.isascii() and one.isdigit() and int(one) < 1 << 32)
        names = tuple(one.encode(errors="surrogateescape")[:_NAME_BYTES] for one in named)
        return cls(bits, names, numbers, least_ns)

    def chosen(self, records: np.ndarray) -> np.ndarray:
        """Those that pass. A latency that is not known is not more than any other."""
        keep = self.operations >> records["operation"] & 1 != 0
        if self.least_ns:
            total = records["total_ns"]
            keep &= (total != np.uint64(UNKNOWN_NS)) & (total >= np.uint64(self.least_ns))
        if self.names:
            known = records["flags"] & IoFlag.NO_SUBMITTER == 0
            keep &= known & (np.isin(records["name"], self.names) | np.isin(records["process"], self.processes))
        chosen: np.ndarray = records if keep.all() else records[keep]
        return chosen

    def to_json(self) -> dict[str, object]:
        """For the head of a recording."""
        return {
            "operations": [name for at, name in enumerate(OPERATIONS) if self.operations >> at & 1],
            "processes": [name.decode(errors="backslashreplace") for name in self.names],
            "least_ns": self.least_ns,
        }
