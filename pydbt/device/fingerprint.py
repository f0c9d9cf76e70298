"""A fingerprint of a file system, which every write to it changes: its superblock, and the log of an XFS.

Mounting for writing, unmounting, checking and restoring all change the superblock of an ext4 (times of mount and write,
number of mounts, lifetime writes), and leave a record in the log of an XFS. Writes that bypass the file system do not show.
Sources: fs/ext4/ext4.h (struct ext4_super_block), fs/xfs/libxfs/xfs_format.h (struct xfs_dsb).
"""

from __future__ import annotations

import struct

import xxhash

from pydbt.core.errors import DeviceError
from pydbt.core.units import KIB, MIB
from pydbt.device.block import DirectReader, aligned_buffer

_EXT4_OFFSET, _EXT4_BYTES = 1024, 1024
_EXT4_MAGIC = struct.pack("<H", 0xEF53), _EXT4_OFFSET + 56
_XFS_MAGIC = b"XFSB"
_HEAD_BYTES = 4 * KIB
# A larger log is not read, because to read gigabytes at every stop takes too long.
_MAX_LOG_BYTES = 512 * MIB


def fingerprint(reader: DirectReader) -> str | None:
    """A value that changes whenever the file system is written; None without an ext4 or XFS, or when it cannot be read."""
    head = aligned_buffer(_HEAD_BYTES)
    try:
        reader.read_extent(0, min(_HEAD_BYTES, reader.size_bytes), head)
        magic, at = _EXT4_MAGIC
        if head[at : at + 2] == magic:
            return f"ext4 {xxhash.xxh3_128_hexdigest(head[_EXT4_OFFSET : _EXT4_OFFSET + _EXT4_BYTES])}"
        if head[:4] == _XFS_MAGIC:
            return _xfs(reader, bytes(head[:512]))
    except DeviceError:
        pass
    return None


def _xfs(reader: DirectReader, superblock: bytes) -> str | None:
    """The digest of superblock and log; None with an external log."""
    (block_bytes,) = struct.unpack_from(">I", superblock, 4)
    (log_start,) = struct.unpack_from(">Q", superblock, 48)
    (group_blocks,) = struct.unpack_from(">I", superblock, 84)
    (log_blocks,) = struct.unpack_from(">I", superblock, 96)
    group_bits = superblock[124]
    start = ((log_start >> group_bits) * group_blocks + (log_start & (1 << group_bits) - 1)) * block_bytes
    length = log_blocks * block_bytes
    if not log_start or not 0 < length <= _MAX_LOG_BYTES or start + length > reader.size_bytes:
        return None
    digest = xxhash.xxh3_128(superblock)
    buffer = aligned_buffer(MIB)
    for offset in range(start, start + length, MIB):
        size = min(MIB, start + length - offset)
        reader.read_extent(offset, size, buffer)
        digest.update(buffer[:size])
    return f"xfs {digest.hexdigest()}"
