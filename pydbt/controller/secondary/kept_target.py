"""The target, but for blocks that it does not take: those are narrowed down, kept aside, and tried again.

It is used by the applier's thread alone. Only errors of single places are narrowed: every other failure, and more bad blocks than
a disk has, is a failure of the target as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from pydbt.core.blocks.apply_plan import PlannedWrites
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import DeviceError, MediumError
from pydbt.core.secondary.bad_blocks import BAD_BLOCK_BYTES, BAD_BLOCK_SECTORS, BadBlocks, halves, in_one_block, moved
from pydbt.device.target import Target

TRY_KEPT_S = 16.0
"""A disk tries for seconds to write a bad sector, and nothing else is written to it meanwhile."""
MOST_FAILURES = 8
"""Of one time that they are tried again."""
NARROW_S = 30.0
"""A disk that takes longer than this to say which blocks are bad is failing."""


def rows_of(writes: PlannedWrites) -> Iterator[tuple[int, int, int]]:
    """(sector, length in sectors, source) of each run."""
    return zip(writes.sectors.tolist(), writes.lengths_sectors.tolist(), writes.sources.tolist(), strict=True)


def one_run(*row: int) -> PlannedWrites:
    """A write of one run alone."""
    return PlannedWrites(*(np.array([number], dtype=np.int64) for number in row))


class KeptTarget:
    """``save`` makes what is kept durable; StateError when that cannot be done."""

    def __init__(self, target: Target, blocks: BadBlocks, save: Callable[[BadBlocks], None]) -> None:
        self._target, self._blocks, self._save = target, blocks, save
        self._told = blocks.runs()
        self._try_at = time.monotonic()  # of an earlier engine: at once
        blocks.tried(target.kept_tried)  # and behind the one that it tried last

    def news(self) -> Runs | None:
        """The numbers of the blocks that are kept aside; None when they are the same as the last time."""
        runs, told = self._blocks.runs(), self._told
        if all(np.array_equal(now, then) for now, then in zip(runs, told, strict=True)):
            return None
        self._told = runs
        return runs

    # --- as of a target -----------------------------------------------------------------------------------
    def write_runs(self, writes: PlannedWrites, buffer: memoryview) -> None:
        """As ``Target.write_runs``. A failed write is narrowed only if every write since the last sync was waited for."""
        writes = self._blocks.divert(writes, buffer)
        try:
            self._target.write_runs(writes, buffer)
        except MediumError:
            if not self._target.is_careful or self._target.is_gone:
                raise  # of what was written before it nobody knows the place, if it fails too: it is all written again
            self._target.stay_careful()
            until = time.monotonic() + NARROW_S
            for row in rows_of(writes):
                # A run before it may have shown that a block of this one is bad.
                for sector, count, source in rows_of(self._blocks.divert(one_run(*row), buffer)):
                    self._narrow(sector, count, source, buffer, until)

    def _narrow(self, sector: int, count: int, source: int, buffer: memoryview, until: float) -> None:
        """Write a run; keep those of its blocks that cannot be written."""
        error = self._write(sector, count, source, buffer)
        if error is None:
            return
        if in_one_block(sector, count):
            self._keep(sector // BAD_BLOCK_SECTORS, until, error)
            self._blocks.lay(sector, count, source, buffer)
            return
        first = halves(sector, count)
        self._narrow(sector, first, source, buffer, until)
        self._narrow(sector + first, count - first, moved(source, first), buffer, until)

    def _write(self, sector: int, count: int, source: int, buffer: memoryview) -> MediumError | None:
        try:
            self._target.write_runs(one_run(sector, count, source), buffer)
        except MediumError as error:
            return error
        return None

    def _keep(self, number: int, until: float, error: MediumError) -> None:
        """From here on a block is kept aside. DeviceError when that is too much."""
        slow = time.monotonic() > until
        if slow or self._blocks.is_full:
            self._save(self._blocks)  # what was found counts the next time
            self._target.failed_at = number * BAD_BLOCK_BYTES
            why = "it takes too long" if slow else f"more than {len(self._blocks)} blocks cannot be written"
            raise DeviceError(f"{error}; {why}")
        self._blocks.add(number, self._read(number))
        self._try_at = time.monotonic() + TRY_KEPT_S

    def _read(self, number: int) -> bytes | None:
        """What is on the disk of a block; None when that cannot be read."""
        offset = number * BAD_BLOCK_BYTES
        block = memoryview(bytearray(self._blocks.length_bytes(number)))
        self._target.forget(offset, len(block))
        try:
            self._target.read_into(offset, block)
        except MediumError:
            return None
        return bytes(block)

    def read_into(self, offset: int, view: memoryview) -> None:
        """As ``Target.read_into``, with what is kept aside. A block of which all is kept is not read."""
        for begin, end in self._blocks.to_read(offset, offset + len(view)):
            self._target.read_into(begin, view[begin - offset : end - offset])
        self._blocks.overlay(offset, view)

    def start_writeback(self) -> None:
        """As ``Target.start_writeback``."""
        self._target.start_writeback()

    def sync(self) -> None:
        """Make every write durable: on the target, or among what is kept aside."""
        self._target.sync()
        if self._blocks.unsaved:
            self._save(self._blocks)
            self._blocks.unsaved = False

    # --- again --------------------------------------------------------------------------------------------
    @property
    def is_due(self) -> bool:
        """Whether blocks that are kept aside are to be tried again now."""
        return len(self._blocks) > 0 and time.monotonic() >= self._try_at

    def try_again(self) -> None:
        """Write to the target what is kept aside, as far as it takes it now, and durably. Call ``sync`` before it.

        So an error of such a write is that of its block: nothing else is on its way to the disk.
        """
        written, failures = [], 0
        until = time.monotonic() + TRY_KEPT_S / 2
        for number in self._blocks.to_try():
            if self._takes(number):
                written.append(number)
                continue
            self._blocks.tried(number)
            self._target.kept_tried = number
            failures += 1
            if failures == MOST_FAILURES or time.monotonic() > until:
                break
        self._try_at = time.monotonic() + TRY_KEPT_S
        if written:
            self._blocks.remove(written)
        if self._blocks.unsaved:
            self.sync()

    def try_what_failed(self) -> None:
        """Before all else is written again after a failure of the whole: the block that could not be written. DeviceError.

        If that was one too many to keep, those that are kept are tried in turn: one that the target takes makes room for it.
        """
        try:
            self._target.try_again()
        except MediumError:
            if not self._blocks.is_full:
                raise
            self.try_again()
            if self._blocks.is_full:
                raise
            self._target.failed_at = None  # it is kept aside when it is written to

    def _takes(self, number: int) -> bool:
        """Whether the target takes a block now. One of which a part is known to nobody is left until the primary sends it."""
        if not self._blocks.is_whole(number):
            found = self._read(number)
            if found is None:
                return False
            self._blocks.complete(number, found)
        content = memoryview(self._blocks.kept[number].content)[: self._blocks.length_bytes(number)]
        try:
            self._target.write_through(number * BAD_BLOCK_BYTES, content)
        except MediumError:
            # Or the cache has what the disk lacks, and at the next start it looks as if others had changed that.
            self._target.forget(number * BAD_BLOCK_BYTES, len(content))
            return False
        return True
