"""One transaction of a file system, as its log tells it: the dirty block record of US 7,039,661, ¶56."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

NamedRuns = NDArray[np.int64]
"""Runs of the volume that a transaction names: one row (offset, length) in bytes per run."""

_MAX_NAMED_RUNS = 32_768  # 512 KiB; a quarter of a journal of 512 MiB, and few transactions are above 1,000 blocks
NO_RUNS: NamedRuns = np.empty((0, 2), np.int64)


class TransactionState(StrEnum):
    OPEN = "open"
    """Its commit has not been seen."""
    COMMITTED = "committed"
    """Its commit, and everything that belongs to it, has been seen, and every checksum is right."""
    ABANDONED = "abandoned"
    """It will never be complete, or is damaged; its ``reason`` tells why."""


@dataclass(frozen=True, slots=True, eq=False)
class JournalTransaction:
    """A transaction: ``name`` and ``number`` are its tid (ext4) or the log sequence number of its commit record (XFS).

    ``name`` is ``48211``, ``48211.3`` for a fast commit, and ``cycle:block`` on XFS. ``committed_ns``: the file system's own
    time in nanoseconds since 1970, None where it records none. ``first_block`` and ``block_count``: the part of the log that it
    consists of, in blocks of the log, which may wrap at the log's end. ``starts_at``: on XFS the log sequence number of the
    record with its start, else ``number``. ``named`` are the runs that it changes when it is written back, ``revoked`` those
    whose earlier changes no longer count; ``named_whole`` is false when there were more than are kept.
    """

    name: str
    number: int
    state: TransactionState
    committed_ns: int | None
    first_block: int
    block_count: int
    starts_at: int
    named: NamedRuns
    revoked: NamedRuns
    named_whole: bool = True
    reason: str = ""


class RunsOfTransaction:
    """The runs that one open transaction names, in bounded memory."""

    def __init__(self) -> None:
        self.whole = True
        self._parts: list[NamedRuns] = []
        self._rows = 0

    def add(self, runs: NamedRuns) -> None:
        room = _MAX_NAMED_RUNS - self._rows
        if len(runs) > room:
            self.whole = False
            runs = runs[:room]
        if len(runs):
            self._parts.append(runs)
            self._rows += len(runs)
            if len(self._parts) >= 256:  # many small arrays take more room than one
                self._parts = [np.concatenate(self._parts)]

    def together(self) -> NamedRuns:
        return np.concatenate(self._parts) if self._parts else NO_RUNS


def runs_of_blocks(numbers: NDArray[np.int64], block_bytes: int) -> NamedRuns:
    """One run per block number. A number that no volume can have is left out."""
    inside = numbers[(numbers >= 0) & (numbers < (1 << 62) // block_bytes)]
    return np.stack((inside * block_bytes, np.full(inside.size, block_bytes, np.int64)), axis=1)
