"""Runs of blocks: the one place for arithmetic on sets of blocks that are few, long and in order.

For sets that are scattered there is ``dirty_map``; changed sectors that travel or are kept are a ``sector_table``.
A *block* here is of any size: of the volume's blocks, or of the units of a comparison (``compared``). Whoever holds runs
of both gives each its name.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pydbt.core.units import Geometry

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
BlockNumbers = Integers


def changes(values: npt.NDArray[Any]) -> Mask:
    """One truth value for each: whether it is another one than the one before. The first always is."""
    found = np.empty(len(values), np.bool_)
    found[:1] = True
    np.not_equal(values[1:], values[:-1], out=found[1:])
    return found


def distinct(numbers: Integers) -> Integers:
    """In order, and each once: np.unique, which newer numpy does by a hash table, forty times slower for 100,000 numbers."""
    ordered = np.sort(numbers, axis=None)
    return ordered[changes(ordered)]


def among(numbers: Integers, others: Integers) -> Mask:
    """One truth value for each of ``numbers``: whether it is one of ``others``.

    Here and in ``distinct`` nothing of numpy is called that loads a module at its first use, in the middle of the loop.
    """
    ordered = np.sort(others, axis=None)
    if not ordered.size:
        return np.zeros(len(numbers), bool)
    at = np.minimum(np.searchsorted(ordered, numbers), ordered.size - 1)
    found: Mask = ordered[at] == numbers
    return found


class Runs(NamedTuple):
    """Runs of blocks: ``firsts[i] .. firsts[i] + counts[i]``, as two int64 arrays of one length.

    It is a pair, for unpacking: ``total`` tells how many blocks it holds, ``len`` does not.
    """

    firsts: BlockNumbers
    counts: BlockNumbers

    @classmethod
    def none(cls) -> Runs:
        return _NONE

    @classmethod
    def of_ranges(cls, firsts: BlockNumbers, ends: BlockNumbers) -> Runs:
        """The union of ranges in any order, overlapping or empty, as maximal disjoint runs in block order."""
        filled = ends > firsts
        if not filled.all():
            firsts, ends = firsts[filled], ends[filled]
        if not firsts.size:
            return cls.none()
        if (firsts[1:] < firsts[:-1]).any():
            order = np.argsort(firsts, kind="stable")
            firsts, ends = firsts[order], ends[order]
        reach = np.maximum.accumulate(ends)
        begins = np.empty(firsts.size, np.bool_)
        begins[0] = True
        np.greater(firsts[1:], reach[:-1], out=begins[1:])
        if begins.all():
            return cls(firsts.copy(), reach - firsts)
        opens = np.flatnonzero(begins)
        closes = np.append(opens[1:], firsts.size) - 1
        firsts = firsts[opens]
        return cls(firsts, reach[closes] - firsts)

    @classmethod
    def of_blocks(cls, blocks: BlockNumbers) -> Runs:
        """Block numbers in any order, repeated or not, as maximal runs in block order."""
        ordered = np.sort(blocks)
        return cls.of_ranges(ordered, ordered + 1)

    @classmethod
    def of_sectors(cls, sectors: npt.NDArray[np.uint64], lengths: npt.NDArray[np.uint32], geometry: Geometry) -> Runs:
        """Runs of sectors as runs of the blocks they touch, even in part; one for one, in their order."""
        first_sectors = sectors.astype(np.int64)
        firsts = first_sectors // geometry.block_sectors
        return cls(firsts, -(-(first_sectors + lengths.astype(np.int64)) // geometry.block_sectors) - firsts)

    def total(self) -> int:
        """How many blocks the runs hold together."""
        return int(self.counts.sum()) if self.counts.size else 0

    def ends(self) -> BlockNumbers:
        """The block after each run."""
        return self.firsts + self.counts

    def blocks(self) -> BlockNumbers:
        """Every block number, spelled out in the order of the runs. As long as ``total()``: mind discards."""
        if not self.counts.size:
            return np.empty(0, np.int64)
        before = np.cumsum(self.counts) - self.counts
        return np.repeat(self.firsts - before, self.counts) + np.arange(self.total(), dtype=np.int64)

    def split(self, factor: int, end_block: int) -> Runs:
        """The same runs in blocks of which ``factor`` make one of these, cut at ``end_block`` (of the smaller ones)."""
        firsts = self.firsts * factor
        return Runs(firsts, np.minimum(self.counts * factor, end_block - firsts))

    def beside(self, other: Runs) -> Runs:
        """These runs and the other ones, in block order; none becomes part of another one."""
        firsts = np.concatenate((self.firsts, other.firsts))
        order = np.argsort(firsts, kind="stable")
        return Runs(firsts[order], np.concatenate((self.counts, other.counts))[order])

    def minus(self, other: Runs) -> Runs:
        """The blocks of these runs that ``other`` does not hold. Both must be disjoint and in block order."""
        if not self.firsts.size or not other.firsts.size:
            return self
        cuts = distinct(np.concatenate((self.firsts, self.ends(), other.firsts, other.ends())))
        keep = self.mask(cuts[:-1]) & ~other.mask(cuts[:-1])
        return Runs.of_ranges(cuts[:-1][keep], cuts[1:][keep])

    def blocks_before(self, blocks: BlockNumbers) -> Integers:
        """For each of ``blocks``: how many blocks of these runs lie before it. The runs must be disjoint and in block order."""
        if not self.firsts.size:
            return np.zeros(blocks.shape, np.int64)
        total = np.append(0, np.cumsum(self.counts))
        run = np.searchsorted(self.firsts, blocks, side="right") - 1
        inside = np.where(run >= 0, np.minimum(blocks - self.firsts[run], self.counts[run]), 0)
        return total[np.maximum(run, 0)] + inside

    def mask(self, blocks: BlockNumbers) -> Mask:
        """Which of ``blocks`` lie in one of these runs. The runs must be disjoint and in block order."""
        if not self.firsts.size:
            return np.zeros(blocks.shape, np.bool_)
        run = np.searchsorted(self.firsts, blocks, side="right") - 1
        return (run >= 0) & (blocks < self.ends()[run])


_NONE = Runs(np.empty(0, np.int64), np.empty(0, np.int64))
