"""Blocks of a log, put together from writes that were split or merged: sectors come in any number and order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from pydbt.core.units import MIB, SECTOR_BYTES, Buffer

_MAX_PARTIAL_BYTES = MIB // 2  # more than any file system has in flight with a part of a block missing


class WholeBlocks:
    """Feed it writes; it gives each block as soon as all its sectors have come.

    It keeps the blocks of which only some sectors have come, the latest 512 KiB of them.
    """

    def __init__(self, block_bytes: int, block_count: int) -> None:
        self.block_bytes = block_bytes
        self.block_count = block_count
        self._end_bytes = block_bytes * block_count
        self._all = (1 << block_bytes // SECTOR_BYTES) - 1
        self._max_partial = max(4, _MAX_PARTIAL_BYTES // block_bytes)
        self._partial: OrderedDict[int, tuple[bytearray, int]] = OrderedDict()

    @property
    def in_part(self) -> bool:
        """Whether of some block a part has come, and not all of it."""
        return bool(self._partial)

    def replaced(self, index: int) -> None:
        """This block was written as a whole, which somebody else takes."""
        if self._partial:
            self._partial.pop(index, None)

    def clear(self) -> None:
        """Writes are missing: what has come in part will not be whole."""
        self._partial.clear()

    def written(self, offset_bytes: int, data: Buffer) -> Iterator[tuple[int, memoryview]]:
        """The number and content of each block that this write completes, in the order of the write.

        Bytes outside of the log, and sectors that are not whole, are left out.
        """
        view = memoryview(data).cast("B")
        skip = max(0, -offset_bytes) if offset_bytes < 0 else -offset_bytes % SECTOR_BYTES
        skip += -(offset_bytes + skip) % SECTOR_BYTES
        position = offset_bytes + skip
        end = min(offset_bytes + len(view), self._end_bytes)
        end -= end % SECTOR_BYTES
        while position < end:
            index, within = divmod(position, self.block_bytes)
            length = min(self.block_bytes - within, end - position)
            part = view[position - offset_bytes : position - offset_bytes + length]
            if length == self.block_bytes:
                self._partial.pop(index, None)
                yield index, part
            else:
                whole = self._keep(index, within, part)
                if whole is not None:
                    yield index, whole
            position += length

    def _keep(self, index: int, within: int, part: memoryview) -> memoryview | None:
        content, seen = self._partial.pop(index, (None, 0))
        if content is None:
            content = bytearray(self.block_bytes)
        content[within : within + len(part)] = part
        seen |= ((1 << len(part) // SECTOR_BYTES) - 1) << within // SECTOR_BYTES
        if seen == self._all:
            return memoryview(content)
        self._partial[index] = content, seen
        if len(self._partial) > self._max_partial:
            self._partial.popitem(last=False)
        return None
