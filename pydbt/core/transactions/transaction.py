"""One transaction of a file system, as its log tells it: the dirty block record of US 7,039,661, ¶56."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

NamedRuns = NDArray[np.int64]
"""Runs of the volume that a transaction names: one row (offset, length) in bytes per run."""

Words = NDArray[np.uint32]
"""Of 32 bits, as they stand in a log or in the other order."""

_MAX_NAMED_RUNS = 32_768  # 512 KiB; a quarter of a journal of 512 MiB, and few transactions are above 1,000 blocks
_PARTS_AT_ONCE = 256
_HEADER_BYTES, _TAG_BYTES = (
    12,
    16,
)  # of a descriptor block, and journal_block_tag3_t; the file system's identity has 16 as well
_MAX_LISTED = 2_048  # runs in lists of numbers, 80 KiB
NO_RUNS: NamedRuns = np.empty((0, 2), np.int64)


class TransactionState(StrEnum):
    OPEN = "open"
    """Its commit has not been seen."""
    COMMITTED = "committed"
    """Its commit, and everything that belongs to it, has been seen, and every checksum is right."""
    ABANDONED = "abandoned"
    """It will never be complete, or is damaged; its ``reason`` tells why."""


class JournalTransaction(NamedTuple):
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
    named_parts: NamedParts
    revoked_parts: NamedParts
    reason: str = ""

    @property
    def named(self) -> NamedRuns:
        """Joined anew at each call: most are never asked for."""
        return self.named_parts.together()

    @property
    def revoked(self) -> NamedRuns:
        """As ``named``."""
        return self.revoked_parts.together()

    @property
    def named_whole(self) -> bool:
        return self.named_parts.whole and self.revoked_parts.whole


class RunsOfTransaction:
    """The runs that one transaction names, in bounded memory."""

    __slots__ = ("_blocks", "_joined", "_parts", "_rows", "_runs", "whole")

    def __init__(self) -> None:
        self.whole = True
        self._parts: list[NamedRuns] = []
        self._blocks: list[tuple[list[int], int]] = []  # numbers of blocks, and bytes per block
        self._runs: list[tuple[int, int]] = []
        self._rows = self._joined = 0

    @property
    def count(self) -> int:
        """How many runs are kept."""
        return self._rows

    def add_blocks(self, numbers: list[int], block_bytes: int) -> None:
        """One run per block number. A number that no volume can have is left out."""
        room = _MAX_NAMED_RUNS - self._rows
        if len(numbers) > room:
            self.whole = False
            numbers = numbers[:room]
        if numbers:
            self._blocks.append((numbers, block_bytes))
            self._rows += len(numbers)
            if len(self._blocks) >= _PARTS_AT_ONCE or self._rows - self._joined > _MAX_LISTED:
                self._join_blocks()

    def add_run(self, offset_bytes: int, length_bytes: int) -> None:
        """One run of the volume."""
        if self._rows >= _MAX_NAMED_RUNS:
            self.whole = False
            return
        self._runs.append((offset_bytes, length_bytes))
        self._rows += 1
        if len(self._runs) >= _MAX_LISTED:
            self._join_blocks()

    def add_runs(self, runs: NamedRuns) -> None:
        """As many runs as there are rows."""
        room = _MAX_NAMED_RUNS - self._rows
        self.whole = self.whole and len(runs) <= room
        self._join_blocks()
        self._parts.append(runs[:room].copy())
        self._rows += len(self._parts[-1])

    def kept(self) -> RunsOfTransaction:
        """Of use for long: these have nothing in common with others."""
        return self

    def _join_blocks(self) -> None:
        """Lists are quick to make and take four times the room of an array."""
        blocks, self._blocks, self._joined = self._blocks, [], self._rows
        runs, self._runs = self._runs, []
        if blocks:
            self._parts.append(np.concatenate([runs_of_blocks(*one) for one in blocks]))
        if runs:
            self._parts.append(np.array(runs, np.int64))
        if len(self._parts) >= _PARTS_AT_ONCE:
            self._parts = [np.concatenate(self._parts)]

    def together(self) -> NamedRuns:
        """All of them in one."""
        self._join_blocks()
        return np.concatenate(self._parts) if self._parts else NO_RUNS


class RunsOfTags:
    """The runs that one descriptor block of jbd2 names, kept as they stand there: most are never asked for.

    ``head``: the beginning of the block, with ``count`` tags of version 3, the first of them with the identity behind it.
    """

    __slots__ = ("_block_bytes", "_head", "_wide", "count")
    whole = True

    def __init__(self, head: bytes, count: int, wide: bool, block_bytes: int) -> None:
        self._head, self.count, self._wide, self._block_bytes = head, count, wide, block_bytes

    def kept(self) -> RunsOfTags:
        """As that of others."""
        return self

    def together(self) -> NamedRuns:
        """All of them, made anew at each call."""
        second = _HEADER_BYTES + _TAG_BYTES
        tags = self._head[_HEADER_BYTES:second] + self._head[second + _TAG_BYTES :]
        words = np.frombuffer(tags, ">u4", self.count * _TAG_BYTES // 4).reshape(-1, _TAG_BYTES // 4)
        numbers = words[:, 0].astype(np.int64)
        if self._wide:
            numbers |= words[:, 2].astype(np.int64) << 32
        return runs_of_blocks(numbers.tolist(), self._block_bytes)


class NamedParts(Protocol):
    """Runs that a transaction names. ``count``: how many; ``whole``: whether these are all of them."""

    @property
    def count(self) -> int: ...
    @property
    def whole(self) -> bool: ...
    def together(self) -> NamedRuns:
        """All of them in one."""

    def kept(self) -> NamedParts:
        """The same for who keeps them: without anything that they share with other transactions."""


NOTHING_NAMED = RunsOfTransaction()
"""In the place of runs that never came. Nothing is added to it."""


def runs_of_blocks(numbers: list[int], block_bytes: int) -> NamedRuns:
    """One run per block number. A number that no volume can have is left out."""
    limit = (1 << 62) // block_bytes
    inside = np.array([number for number in numbers if 0 <= number < limit], np.int64)
    return np.stack((inside * block_bytes, np.full(inside.size, block_bytes, np.int64)), axis=1)
