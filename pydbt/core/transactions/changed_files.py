"""Files that were changed last, by the copies of inode tables in a journal of ext4: where their data lies.

Nothing in the journal tells which of its blocks are a part of an inode table. An inode is known by the root of its tree of
extents. What is found wrongly costs an order that is no better than another one, and nothing rests on it.

Source: fs/ext4/ext4.h (struct ext4_inode), fs/ext4/ext4_extents.h. Integers are little-endian.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydbt.core.units import Buffer

_CTIME, _MTIME, _TREE = 0xC, 0x10, 0x28
_MAGIC = 0xF30A
_ROOT_ENTRIES, _ENTRY_BYTES = 4, 12
_UNWRITTEN = 32_768  # EXT_INIT_MAX_LEN: a longer one is allocated, and reads as zeroes
MAX_FOUND = 16_384

FileExtents = NDArray[np.int64]
"""Rows of (time of the change in seconds, offset, length in bytes of the volume)."""
NO_EXTENTS: FileExtents = np.empty((0, 3), np.int64)


def extents_of_inodes(data: Buffer, block_bytes: int, inode_bytes: int, size_bytes: int) -> FileExtents:
    """Of whole inodes in ``data`` whose extents are in the inode itself; those beyond the volume's size are left out."""
    count = len(data) // inode_bytes
    inodes = np.frombuffer(data, np.uint8, count * inode_bytes).reshape(count, inode_bytes)
    header = np.ascontiguousarray(inodes[:, _TREE : _TREE + _ENTRY_BYTES]).view("<u2")
    entries, depth = header[:, 1], header[:, 3]
    inodes = inodes[(header[:, 0] == _MAGIC) & (entries > 0) & (entries <= _ROOT_ENTRIES) & (depth == 0)]
    if not len(inodes):
        return NO_EXTENTS
    times = np.ascontiguousarray(inodes[:, _CTIME : _MTIME + 4]).view("<u4").max(axis=1).astype(np.int64)
    entries = np.ascontiguousarray(inodes[:, _TREE + 2 : _TREE + 4]).view("<u2")[:, 0]
    found = []
    for place in range(_ROOT_ENTRIES):
        at = _TREE + _ENTRY_BYTES * (1 + place)
        fields = np.ascontiguousarray(inodes[:, at : at + _ENTRY_BYTES]).view("<u2").astype(np.int64)
        lengths = np.where(fields[:, 2] > _UNWRITTEN, fields[:, 2] - _UNWRITTEN, fields[:, 2]) * block_bytes
        offsets = (fields[:, 4] | fields[:, 5] << 16 | fields[:, 3] << 32) * block_bytes
        good = (place < entries) & (lengths > 0) & (offsets > 0) & (offsets + lengths <= size_bytes)
        found.append(np.stack((times, offsets, lengths), axis=1)[good])
    return np.concatenate(found)


def newest_of(found: list[FileExtents]) -> FileExtents:
    """At most ``MAX_FOUND`` different ones, those that were changed last before the others."""
    together = np.unique(np.concatenate(found), axis=0) if found else NO_EXTENTS
    return together[np.argsort(-together[:, 0], kind="stable")][:MAX_FOUND]
