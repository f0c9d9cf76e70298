"""The blocks of a jbd2 journal: superblock, descriptor, commit and revoke blocks. Integers in them are big-endian.

Sources: include/linux/jbd2.h, fs/jbd2/recovery.c and journal.c (sizes of tags, checksums, the area of fast commits).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from pydbt.core.transactions.crc import crc32c, crc32c_of
from pydbt.core.units import Buffer

JBD2_MAGIC = 0xC03B3998
DESCRIPTOR, COMMIT, _SUPERBLOCK_V1, _SUPERBLOCK_V2, REVOKE = 1, 2, 3, 4, 5
HEADER = struct.Struct(">III")  # magic, type of the block, number of the transaction
HEADER_BYTES = HEADER.size
JOURNAL_SUPERBLOCK_BYTES = 1024

_SUPERBLOCK = struct.Struct(">12x6I2I4x16s")
_CHECKSUM_TYPE_OFFSET, _NUM_FC_OFFSET, _SUPERBLOCK_SUM_OFFSET = 80, 84, 252
_CRC32C_TYPE = 4
_COMPAT_CHECKSUM = 0x1
_REVOKES, WIDE, _ASYNC_COMMIT, _CSUM_V2, _CSUM_V3, _FAST_COMMIT = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
_KNOWN_INCOMPAT = _REVOKES | WIDE | _ASYNC_COMMIT | _CSUM_V2 | _CSUM_V3 | _FAST_COMMIT
_DEFAULT_FAST_COMMIT_BLOCKS = 256
_MIN_JOURNAL_BLOCKS = 1024
TAIL_BYTES = 4  # struct jbd2_journal_block_tail
SAME_UUID, LAST_TAG = 0x2, 0x8
_UUID_BYTES = 16
_TAG_V3, _TAG, _TAG_WIDE = struct.Struct(">4I"), struct.Struct(">IHH"), struct.Struct(">IHHI")
_TAG_V2, _TAG_WIDE_V2 = struct.Struct(">IHH2x"), struct.Struct(">IHHI2x")
TAG_BYTES = _TAG_V3.size
FIRST_TAG_END = HEADER_BYTES + TAG_BYTES + _UUID_BYTES
_REVOKE_HEADER_BYTES = 16
COMMIT_SUM_OFFSET, _SUM_BYTES = 16, 4
_NO_SUM = bytes(_SUM_BYTES)
_COMMIT_TIME = struct.Struct(">QI")
COMMIT_TIME_OFFSET = 48
_ALL_ONES = 0xFFFFFFFF


class NotUnderstood(Exception):
    """A log that this program cannot follow; the message tells why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class JournalSuperblock:
    """What a journal's first block tells. ``start_block`` is 0 when nothing needs to be replayed (s_start).

    Transactions lie in the blocks from ``first_block`` to ``last_block``, without the latter; fast commits from
    ``fast_first_block`` to the end, or there are none.
    """

    block_bytes: int
    block_count: int
    first_block: int
    sequence: int
    start_block: int
    error: int
    incompat: int
    summed_as_a_whole: bool
    uuid: bytes
    last_block: int
    fast_first_block: int
    seed: int

    @property
    def block_sums(self) -> bool:
        """Checksums of version 2 or 3: each block of the log has its own."""
        return bool(self.incompat & (_CSUM_V2 | _CSUM_V3))

    @property
    def full_tag_sums(self) -> bool:
        """Version 3: a tag has all 32 bits of its block's checksum; in version 2 it has 16."""
        return bool(self.incompat & _CSUM_V3)

    @property
    def layout(self) -> tuple[int, int, int, int, bytes]:
        """What must be the same for a transaction to go on behind this superblock."""
        return self.block_bytes, self.block_count, self.first_block, self.incompat, self.uuid

    def behind(self, block: int, count: int) -> int:
        """The block that follows ``count`` blocks from ``block`` on; the log is circular."""
        size = self.last_block - self.first_block
        return self.first_block + (block - self.first_block + count) % size

    def tags(self, block: memoryview) -> tuple[list[int], list[int]]:
        """The home blocks that a descriptor block names, and the checksums of their content in the log."""
        if self.full_tag_sums and (found := self._usual_tags(block)) is not None:
            return found
        layout = self._tag_layout()
        end = self.block_bytes - (TAIL_BYTES if self.block_sums else 0) - layout.size
        position, numbers, sums = HEADER_BYTES, [], []
        while position <= end:
            low, flags, high, total = self._tag_at(layout, block, position)
            numbers.append(low | high << 32)
            sums.append(total)
            position += layout.size
            if flags & LAST_TAG:
                break
            if not flags & SAME_UUID:  # only the first tag carries the identity of the file system
                position += _UUID_BYTES
        return numbers, sums

    def _usual_tags(self, block: memoryview) -> tuple[list[int], list[int]] | None:
        """The quick way for tags of version 3 as the kernel writes them: the identity stands behind the first. Else None."""
        low, flags, high, total = _TAG_V3.unpack_from(block, HEADER_BYTES)
        if flags & SAME_UUID:
            return None
        wide = self.incompat & WIDE  # else the high half is not used
        numbers, sums = [low | high << 32 if wide else low], [total]
        begin = HEADER_BYTES + _TAG_V3.size + _UUID_BYTES
        count = 0 if flags & LAST_TAG else (self.block_bytes - TAIL_BYTES - begin) // _TAG_V3.size
        for low, flags, high, total in _TAG_V3.iter_unpack(block[begin : begin + count * _TAG_V3.size]):
            if not flags & SAME_UUID:
                return None
            numbers.append(low | high << 32 if wide else low)
            sums.append(total)
            if flags & LAST_TAG:
                break
        return numbers, sums

    def _tag_at(self, layout: struct.Struct, block: memoryview, position: int) -> tuple[int, int, int, int]:
        if self.full_tag_sums:
            low, flags, high, total = layout.unpack_from(block, position)
            return low, flags, high if self.incompat & WIDE else 0, total
        low, total, flags, *more = layout.unpack_from(block, position)
        return low, flags, more[0] if more else 0, total

    def _tag_layout(self) -> struct.Struct:
        """Low half of the block, flags, high half and checksum; before version 3 low half, checksum, flags and high half."""
        if self.full_tag_sums:
            return _TAG_V3
        if self.incompat & _CSUM_V2:  # two bytes more than are used, in every version of the kernel
            return _TAG_WIDE_V2 if self.incompat & WIDE else _TAG_V2
        return _TAG_WIDE if self.incompat & WIDE else _TAG

    def revoked(self, block: memoryview) -> list[int]:
        """The home blocks that a revoke block names."""
        (used,) = struct.unpack_from(">I", block, HEADER_BYTES)
        kind = np.dtype(">i8" if self.incompat & WIDE else ">u4")
        end = min(used, self.block_bytes - (TAIL_BYTES if self.block_sums else 0))
        count = max(0, end - _REVOKE_HEADER_BYTES) // kind.itemsize
        found: list[int] = np.frombuffer(block, kind, count, _REVOKE_HEADER_BYTES).astype(np.int64).tolist()
        return found

    def sum_is_right(self, kind: int, block: memoryview) -> bool:
        """Whether a descriptor, commit or revoke block has its own checksum; true where the journal has none."""
        if not self.block_sums:
            return True
        place = COMMIT_SUM_OFFSET if kind == COMMIT else self.block_bytes - TAIL_BYTES
        return _sum_at(place, block, self.seed)

    def sum_of_block(self, sequence: int, block: memoryview) -> int:
        """The checksum of a copied block, as its tag has it."""
        total = crc32c(crc32c(self.seed, sequence.to_bytes(4, "big")), block)
        return total if self.full_tag_sums else total & 0xFFFF


def commit_time_ns(block: memoryview) -> int:
    """When a commit block was written, by the clock of its machine."""
    seconds, nanoseconds = _COMMIT_TIME.unpack_from(block, COMMIT_TIME_OFFSET)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def whole_sum(block: memoryview) -> int | None:
    """The checksum of a whole transaction in its commit block (checksums of version 1); None when it has none."""
    kind, size, total = struct.unpack_from(">BB2xI", block, HEADER_BYTES)
    return int(total) if (kind, size) == (1, 4) else None  # JBD2_CRC32_CHKSUM, JBD2_CRC32_CHKSUM_SIZE


def read_journal_superblock(block: Buffer) -> JournalSuperblock:
    """NotUnderstood when these bytes, 1 KiB or more, are no superblock of a journal that can be followed."""
    view = memoryview(block)
    if len(view) < JOURNAL_SUPERBLOCK_BYTES:
        raise NotUnderstood("its first block is cut off")
    magic, kind, _ = HEADER.unpack_from(view)
    if magic != JBD2_MAGIC or kind not in (_SUPERBLOCK_V1, _SUPERBLOCK_V2):
        raise NotUnderstood("it does not begin with a superblock of jbd2")
    block_bytes, blocks, first, sequence, start, error, compat, incompat, uuid = _SUPERBLOCK.unpack_from(view)
    if kind == _SUPERBLOCK_V1:
        compat = incompat = 0
    unknown = incompat & ~_KNOWN_INCOMPAT
    if unknown:
        raise NotUnderstood(f"it has features that this program does not know (0x{unknown:x})")
    if block_bytes & (block_bytes - 1) or not 1024 <= block_bytes <= 65536 or not 0 < first < blocks or start >= blocks:
        raise NotUnderstood("its superblock has impossible numbers")
    if incompat & (_CSUM_V2 | _CSUM_V3):
        if view[_CHECKSUM_TYPE_OFFSET] != _CRC32C_TYPE:
            raise NotUnderstood(f"its checksums are of an unknown kind ({view[_CHECKSUM_TYPE_OFFSET]})")
        if not _sum_at(_SUPERBLOCK_SUM_OFFSET, view[:JOURNAL_SUPERBLOCK_BYTES], _ALL_ONES):
            raise NotUnderstood("the checksum of its superblock is wrong")
    last, fast = blocks, blocks
    if incompat & _FAST_COMMIT:
        (wanted,) = struct.unpack_from(">I", view, _NUM_FC_OFFSET)
        wanted = wanted or _DEFAULT_FAST_COMMIT_BLOCKS
        if blocks - wanted >= _MIN_JOURNAL_BLOCKS:
            last = blocks - wanted
        fast = last + 1
    return JournalSuperblock(
        block_bytes, blocks, first, sequence, start, error, incompat,
        bool(compat & _COMPAT_CHECKSUM) and not incompat & (_CSUM_V2 | _CSUM_V3), uuid, last, fast,
        crc32c(_ALL_ONES, uuid),
    )  # fmt: skip


def _sum_at(place: int, block: memoryview, seed: int) -> bool:
    """Whether the 32 bits at a place are the checksum of the block, in which they count as 0."""
    behind = place + _SUM_BYTES
    total = crc32c_of(seed, block[:place], _NO_SUM, block[behind:])
    return total.to_bytes(4, "big") == block[place:behind]
