"""The two bitmaps that the programs fill in turn, mapped into memory.

Each has one bit per block. Behind these lies one bit for each aligned group of 32,768 blocks that was discarded whole; a
reader merges both levels. Only the quiet bitmap may be cleared, and only its content is final: no program writes to it once
a grace period has passed since the flip.
"""

from __future__ import annotations

import mmap

import numpy as np

from pydbt.kernel.pins import MapLayout
from pydbt.kernel.record import GROUP_BLOCKS, GROUP_WORDS, WORD_BITS

_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
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

    def close(self) -> None:
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
    occupied = words[words != 0]
    return int(np.unpackbits(occupied.view(np.uint8)).sum())


assert GROUP_WORDS * WORD_BITS == GROUP_BLOCKS
