"""Blocks of the target that cannot be written, and what is to be in them: kept aside until the target takes it.

A write to such a block goes here and not to the target, so that one bad sector holds nothing else up. What is kept is part of the
replica's content, as the journal is; but the target is no image of any moment until it has all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pydbt.core.blocks.apply_plan import ZEROS, PlannedWrites
from pydbt.core.blocks.runs import BlockNumbers, Runs
from pydbt.core.units import KIB, SECTOR_BYTES

BAD_BLOCK_BYTES = 4 * KIB
"""The page, and the sector of most disks: less cannot be written alone."""
BAD_BLOCK_SECTORS = BAD_BLOCK_BYTES // SECTOR_BYTES
MOST_BAD_BLOCKS = 1024
"""Memory and state of 4 MiB. A disk with more bad sectors is failing."""
MOST_OF_THE_TARGET = 100
"""And so is one with more than this part of it, for a target of at least ..."""
FEWEST_BAD_BLOCKS = 64
"""... this many times as many blocks: of a small target this many may be bad."""
_NAMED_PLACES = 3


@dataclass(slots=True)
class KeptBlock:
    """The content of a block. ``known``: a bit for each of its sectors whose content is here; the others may be unreadable."""

    content: bytearray
    known: int = 0


class BadBlocks:
    """The set. ``unsaved``: something in it has changed since ``saved``."""

    def __init__(self, size_bytes: int, kept: dict[int, KeptBlock] | None = None) -> None:
        """``size_bytes`` of the target; ``kept`` by the number of the block."""
        self.size_bytes = size_bytes
        self.kept = kept or {}
        self.unsaved = False
        self._numbers = self._sorted()
        self._last_tried = -1

    def __len__(self) -> int:
        return len(self.kept)

    def runs(self) -> Runs:
        """The numbers of the blocks."""
        return Runs.of_blocks(self._numbers)

    @property
    def is_full(self) -> bool:
        """Whether one more would be more than a disk has bad sectors."""
        share = self.size_bytes // BAD_BLOCK_BYTES // MOST_OF_THE_TARGET
        return len(self) >= min(max(share, FEWEST_BAD_BLOCKS), MOST_BAD_BLOCKS)

    def is_whole(self, number: int) -> bool:
        """Whether the content of every sector of a kept block is known."""
        return self.kept[number].known == (1 << -(-self.length_bytes(number) // SECTOR_BYTES)) - 1

    def length_bytes(self, number: int) -> int:
        """The last block of the target may be shorter than the others."""
        return min(BAD_BLOCK_BYTES, self.size_bytes - number * BAD_BLOCK_BYTES)

    # --- blocks in and out --------------------------------------------------------------------------------
    def add(self, number: int, found: bytes | None) -> None:
        """A block could not be written. ``found``: what can be read of it all the same: its content before that write."""
        block = self.kept[number] = KeptBlock(bytearray(BAD_BLOCK_BYTES))
        if found is not None:
            block.content[: len(found)] = found
            block.known = (1 << -(-len(found) // SECTOR_BYTES)) - 1
        self.unsaved, self._numbers = True, self._sorted()

    def complete(self, number: int, found: bytes) -> None:
        """The sectors of a kept block that are not known were read after all."""
        block = self.kept[number]
        for index in range(-(-len(found) // SECTOR_BYTES)):
            if not block.known >> index & 1:
                place = slice(index * SECTOR_BYTES, (index + 1) * SECTOR_BYTES)
                block.content[place] = found[place]
                block.known |= 1 << index
        self.unsaved = True

    def remove(self, numbers: Iterable[int]) -> None:
        """The target took these, durably."""
        for number in numbers:
            del self.kept[number]
            self.unsaved = True
        self._numbers = self._sorted()

    def to_try(self) -> list[int]:
        """All of them, in the order in which they are to be tried again: behind the one that was tried last."""
        after = int(np.searchsorted(self._numbers, self._last_tried, side="right"))
        return [*self._numbers[after:].tolist(), *self._numbers[:after].tolist()]

    def tried(self, number: int) -> None:
        """It still cannot be written."""
        self._last_tried = number

    def _sorted(self) -> BlockNumbers:
        return np.array(sorted(self.kept), dtype=np.int64)

    # --- writes -------------------------------------------------------------------------------------------
    def divert(self, writes: PlannedWrites, buffer: memoryview) -> PlannedWrites:
        """Take what goes to kept blocks; the rest is to be written."""
        if not self.kept:
            return writes
        firsts, ends = writes.sectors, writes.sectors + writes.lengths_sectors
        low = np.searchsorted(self._numbers, firsts // BAD_BLOCK_SECTORS)
        high = np.searchsorted(self._numbers, -(-ends // BAD_BLOCK_SECTORS))
        if (high == low).all():
            return writes
        rows: list[tuple[int, int, int]] = []
        for row in range(len(firsts)):
            sector, end, source = int(firsts[row]), int(ends[row]), int(writes.sources[row])
            for number in self._numbers[low[row] : high[row]].tolist():
                begin, stop = max(number * BAD_BLOCK_SECTORS, sector), min((number + 1) * BAD_BLOCK_SECTORS, end)
                if begin > sector:
                    rows.append((sector, begin - sector, source))
                source = moved(source, begin - sector)
                self.lay(begin, stop - begin, source, buffer)
                source, sector = moved(source, stop - begin), stop
            if end > sector:
                rows.append((sector, end - sector, source))
        columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
        return PlannedWrites(columns[:, 0], columns[:, 1], columns[:, 2])

    def lay(self, sector: int, count: int, source: int, buffer: memoryview) -> None:
        """New content of some sectors of one kept block."""
        number, first = divmod(sector, BAD_BLOCK_SECTORS)
        block, begin, length = self.kept[number], first * SECTOR_BYTES, count * SECTOR_BYTES
        data = bytes(length) if source == ZEROS else buffer[source : source + length]
        block.content[begin : begin + length] = data
        block.known |= ((1 << count) - 1) << first
        self.unsaved = True

    # --- reads --------------------------------------------------------------------------------------------
    def to_read(self, begin: int, end: int) -> list[tuple[int, int]]:
        """The parts of a range, from byte to byte, of which not all is known here."""
        parts = []
        low = np.searchsorted(self._numbers, begin // BAD_BLOCK_BYTES)
        high = np.searchsorted(self._numbers, -(-end // BAD_BLOCK_BYTES))
        for number in filter(self.is_whole, self._numbers[low:high].tolist()):
            if number * BAD_BLOCK_BYTES > begin:
                parts.append((begin, number * BAD_BLOCK_BYTES))
            begin = (number + 1) * BAD_BLOCK_BYTES
        return [*parts, (begin, end)] if begin < end else parts

    def overlay(self, offset: int, view: memoryview) -> None:
        """Put what is kept over what was read of the target from ``offset`` on."""
        end = offset + len(view)
        low = np.searchsorted(self._numbers, offset // BAD_BLOCK_BYTES)
        high = np.searchsorted(self._numbers, -(-end // BAD_BLOCK_BYTES))
        for number in self._numbers[low:high].tolist():
            block = self.kept[number]
            for index in range(BAD_BLOCK_SECTORS):
                at = number * BAD_BLOCK_BYTES + index * SECTOR_BYTES
                begin, stop = max(at, offset), min(at + SECTOR_BYTES, end)
                if block.known >> index & 1 and stop > begin:
                    inside = index * SECTOR_BYTES + begin - at
                    view[begin - offset : stop - offset] = block.content[inside : inside + stop - begin]


def moved(source: int, sectors: int) -> int:
    """Where in the buffer the data of a later part of a run is."""
    return ZEROS if source == ZEROS else source + sectors * SECTOR_BYTES


def halves(sector: int, count: int) -> int:
    """How many sectors of a run that is longer than a block are its first half, cut between two blocks."""
    middle = (sector + count // 2) // BAD_BLOCK_SECTORS * BAD_BLOCK_SECTORS
    return (middle if middle > sector else (sector // BAD_BLOCK_SECTORS + 1) * BAD_BLOCK_SECTORS) - sector


def in_one_block(sector: int, count: int) -> bool:
    """Whether a run of sectors goes to one block alone."""
    return sector // BAD_BLOCK_SECTORS == (sector + count - 1) // BAD_BLOCK_SECTORS


def bad_words(kept: Runs) -> str:
    """Where the target cannot be written, and what that means; empty when it can be written everywhere."""
    if not kept.total():
        return ""
    places = [f"at byte {first * BAD_BLOCK_BYTES}" for first in kept.firsts[:_NAMED_PLACES].tolist()]
    more = len(kept.firsts) - len(places)
    words = ", ".join(places) + (f" and at {more} more places" if more > 1 else " and at 1 more place" if more else "")
    return (
        f"TARGET cannot be written {words}: the data for these places ({kept.total() * BAD_BLOCK_BYTES} bytes) is kept in "
        "the state directory and tried again now and then, and the replica cannot be used until it is on TARGET"
    )
