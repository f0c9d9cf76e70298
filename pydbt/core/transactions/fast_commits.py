"""Fast commits of ext4: small transactions of their own between two of jbd2's, in blocks at the end of the journal.

A fast commit is a row of tags and ends with a tag that has the number of the running transaction and a checksum; the rest of
its last block is not used. The first one behind a full commit begins at the area's first block with a head. They name inodes
and directory entries; no block of the volume. Integers are little-endian.

Sources: fs/ext4/fast_commit.h and fast_commit.c (ext4_fc_replay_scan).
"""

from __future__ import annotations

import struct

from pydbt.core.transactions.crc import crc32c
from pydbt.core.transactions.transaction import JournalTransaction, RunsOfTransaction, TransactionState

_TAG = struct.Struct("<HH")  # kind of the tag, length of its value
_PAIR = struct.Struct("<II")
_ADD_RANGE, _TAIL, _HEAD = 0x1, 0x8, 0x9
_LAST_KIND = _HEAD


class FastCommits:
    """Feed it each block of the area; it returns the fast commits that ended with it."""

    def __init__(self, area_first_block: int) -> None:
        self._area_first_block = area_first_block
        self._expected: int | None = None  # the block that continues the row
        self._began = 0
        self._sum = 0
        self._number: int | None = None
        self._count = 0

    def lost(self) -> None:
        """Writes are missing: the next row begins with a head."""
        self._expected = None

    def take(self, index: int, block: memoryview) -> list[JournalTransaction]:
        """The block ``index`` of the area was written."""
        if index == 0 and _TAG.unpack_from(block)[0] == _HEAD:
            self._expected, self._began, self._sum, self._number, self._count = 0, 0, 0, None, 0
        if index != self._expected:
            return []
        self._expected = index + 1
        position = 0
        while position + _TAG.size <= len(block):
            kind, length = _TAG.unpack_from(block, position)
            end = position + _TAG.size + length
            if not _ADD_RANGE <= kind <= _LAST_KIND or (kind != _TAIL and end > len(block)):
                return self._lost(index)
            if kind == _TAIL:
                return self._end(index, block[position:])
            if kind == _HEAD:
                if length != _PAIR.size:
                    return self._lost(index)
                self._number = _PAIR.unpack_from(block, position + _TAG.size)[1]
            self._sum = crc32c(self._sum, block[position:end])
            position = end
        return []

    def _end(self, index: int, tag: memoryview) -> list[JournalTransaction]:
        covered = _TAG.size + _PAIR.size // 2
        if len(tag) < _TAG.size + _PAIR.size:
            return self._lost(index)
        number, wanted = _PAIR.unpack_from(tag, _TAG.size)
        if self._number not in (None, number):
            return self._lost(index)  # left over from an earlier transaction
        if crc32c(self._sum, tag[:covered]) != wanted:
            return self._lost(index, number)
        first, self._began, self._sum, self._number = self._began, index + 1, 0, number
        self._count += 1
        return [self._outcome(number, TransactionState.COMMITTED, first, index)]

    def _lost(self, index: int, number: int | None = None) -> list[JournalTransaction]:
        """No tag or a wrong checksum: recovery stops here, and so does this row."""
        self._expected = None
        if number is None:
            return []
        self._count += 1
        return [self._outcome(number, TransactionState.ABANDONED, self._began, index, "its checksum is wrong")]

    def _outcome(
        self, number: int, state: TransactionState, first: int, last: int, reason: str = ""
    ) -> JournalTransaction:
        name = f"{number}.{self._count}"
        where, blocks = self._area_first_block + first, last - first + 1
        return JournalTransaction(
            name, number, state, None, where, blocks, number, RunsOfTransaction(), RunsOfTransaction(), reason
        )
