"""The two bitmaps that the programs fill in turn, mapped into memory.

Each has one bit per block. Behind these lies one bit for each aligned group of 32,768 blocks that was discarded whole; a
reader merges both levels. Only the quiet bitmap may be cleared, and only its content is final: no program writes to it once
a grace period has passed since the flip.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_right
from itertools import pairwise

import numpy as np
from bitarray import bitarray

from pydbt.core.errors import StateError
from pydbt.kernel.pins import MapLayout
from pydbt.kernel.record import GROUP_BLOCKS, GROUP_WORDS, WORD_BITS

_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_COUNT_STEP_BITS = 1 << 23  # some tens of microseconds
_COUNT_STEP_WORDS = 1 << 16  # the bits are counted in parts, so that no large temporary array is made


class Bitmaps:
    """Views of map 0 and map 1 of the ``bits`` map."""

    def __init__(self, fd: int, layout: MapLayout) -> None:
        self._level1_words = layout.level1_words
        self._coarse_words = layout.coarse_words
        self._group_words = layout.group_words
        self._memory = mmap.mmap(fd, 2 * layout.map_words * 8)
        words = np.frombuffer(self._memory, "<u8", 2 * layout.map_words)
        self._maps = words.reshape(2, layout.map_words)
        self._lock = threading.Lock()  # nobody counts in memory that is given back
        self._closed = False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            del self._maps
            self._memory.close()

    def words(self, index: int) -> np.ndarray:
        """One bit per block, least significant first: a view, or a copy when whole groups had to be filled in."""
        level1 = self._maps[index, : self._level1_words]
        groups = self._groups(index)
        if not len(groups):
            return level1
        level1 = level1.copy()
        for group in groups.tolist():
            level1[group * self._group_words : (group + 1) * self._group_words] = _ALL
        return level1

    def count(self, index: int) -> int:
        """The number of blocks whose bit is set."""
        level1 = self._maps[index, : self._level1_words]
        total = sum(_count_bits(level1[at : at + _COUNT_STEP_WORDS]) for at in range(0, len(level1), _COUNT_STEP_WORDS))
        for group in self._groups(index).tolist():
            own = level1[group * self._group_words : (group + 1) * self._group_words]
            total += self._group_words * WORD_BITS - _count_bits(own)
        return total

    def counts(self, index: int, edges: np.ndarray) -> np.ndarray:
        """For each range of blocks from one edge to the next: how many bits are set in it. May be called from any thread.

        The edges rise. StateError once the bitmaps are closed.
        """
        with self._lock:
            if self._closed:
                raise StateError("the programs' bitmaps were closed: the controller is ending")
            level1 = self._maps[index, : self._level1_words]
            bits = bitarray(buffer=level1.view(np.uint8), endian="little")  # a view
            counts = [_count_range(bits, low, high) for low, high in pairwise(edges.tolist())]
            for group in self._groups(index).tolist():
                _fill_group(bits, group * self._group_words * WORD_BITS, self._group_words * WORD_BITS, edges, counts)
            del bits, level1
        return np.array(counts, np.int64)

    def zero(self, index: int) -> None:
        """Clear the bitmap. Parts that are all zero are not written."""
        words = self._maps[index]
        for at in range(0, len(words), _COUNT_STEP_WORDS):
            part = words[at : at + _COUNT_STEP_WORDS]
            if part.any():
                part[:] = 0

    def _groups(self, index: int) -> np.ndarray:
        coarse = self._maps[index, self._level1_words : self._level1_words + self._coarse_words]
        if not coarse.any():
            return np.empty(0, np.int64)
        return np.flatnonzero(np.unpackbits(coarse.view(np.uint8), bitorder="little"))


def _count_bits(words: np.ndarray) -> int:
    if not words.any():  # most parts of a large volume, and quicker than to look for those that are not 0
        return 0
    occupied = words[words != 0]
    return int(np.unpackbits(occupied.view(np.uint8)).sum())


def _count_range(bits: bitarray, low: int, high: int) -> int:
    """In pieces: the interpreter's lock is held while one is counted. To find that there is none takes a quarter of the time."""
    total = 0
    for at in range(low, high, _COUNT_STEP_BITS):
        stop = min(at + _COUNT_STEP_BITS, high)
        first = bits.find(1, at, stop)
        total += bits.count(1, first, stop) if first >= 0 else 0
    return total


def _fill_group(bits: bitarray, first: int, size: int, edges: np.ndarray, counts: list[int]) -> None:
    """A group whose blocks all count as set: those of its bits that are not set are added to their ranges."""
    end = min(first + size, int(edges[-1]))
    block = max(first, int(edges[0]))
    while block < end:
        cell = bisect_right(edges, block) - 1
        stop = min(end, int(edges[cell + 1]))
        counts[cell] += stop - block - bits.count(1, block, stop)
        block = stop


assert GROUP_WORDS * WORD_BITS == GROUP_BLOCKS
