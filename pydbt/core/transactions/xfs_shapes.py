"""Where the operations of a whole checkpoint stand in its record: most records are like one that was seen before.

One look at the same places tells whether a record is like it, word for word where it matters; so nothing is guessed.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from pydbt.core.blocks.runs import Integers, Mask
from pydbt.core.transactions.transaction import Words
from pydbt.core.transactions.xfs_operations import OPERATION_WORDS

_MAX_KNOWN = 64
_MAX_WORDS = 1_024  # of one shape, 20 KiB: larger records are few


@dataclass(frozen=True, slots=True)
class Shape:
    """In words from the beginning of the data: where operations begin, and the formats of its items, with their ``lengths``.
    ``looked_at``: where the words stand that tell so, and which ones these are."""

    operations: Integers
    formats: Integers
    lengths: Words
    looked_at: Integers
    expected: Words

    def fits(self, words: Words, begins: Integers) -> Mask:
        """Which records have it, of those whose data begins at these words."""
        found = words.take(begins[:, None] + self.looked_at, mode="clip") == self.expected
        numbers = words.take(begins[:, None] + self.operations, mode="clip")
        fits: Mask = found.all(axis=1) & (numbers == numbers[:, :1]).all(axis=1)
        return fits


class Shapes:
    """Those of the last records, by how many operations a record has, and its length."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, Shape] = OrderedDict()

    def get(self, kind: int) -> Shape | None:
        """That of records of this kind, if one is known."""
        return self._known.get(kind)

    def learn(
        self, kind: int, words: Words, begin: int, operations: Integers, formats: Integers, lengths: Words
    ) -> None:
        """That of one whole checkpoint: its operations, and the formats of its items with their lengths, in words of what it
        lies in, where its data begins at ``begin``."""
        if len(operations) > _MAX_WORDS:
            return
        header = operations[1:2] + OPERATION_WORDS
        looked_at = np.concatenate((operations + 1, operations + 2, header, formats))
        self._known.pop(kind, None)
        self._known[kind] = Shape(
            operations - begin, formats - begin, lengths.copy(), looked_at - begin, words.take(looked_at)
        )
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
