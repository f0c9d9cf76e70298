"""A fingerprint of a file system, which every write to it changes: its superblock, and the log of an XFS.

Mounting for writing, unmounting, checking and restoring all change the superblock of an ext4 (times of mount and write,
number of mounts, lifetime writes), and leave a record in the log of an XFS. Writes that bypass the file system do not show.
Nor do writes to a file system that is mounted already. So there is a fingerprint only of one that was unmounted cleanly: an
ext4 that is marked as valid and has nothing to recover, an XFS whose log ends with an unmount record.
Sources: fs/ext4/ext4.h (struct ext4_super_block), fs/xfs/libxfs/xfs_format.h (struct xfs_dsb),
fs/xfs/libxfs/xfs_log_format.h (struct xlog_rec_header, struct xlog_op_header), fs/xfs/xfs_log_recover.c
(xlog_check_unmount_rec).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import xxhash

from pydbt.core.errors import DeviceError
from pydbt.core.units import KIB, MIB
from pydbt.device.block import DirectReader, aligned_buffer
from pydbt.device.magic import EXT4_SUPERBLOCK_BYTES, EXT4_SUPERBLOCK_OFFSET, is_ext4, is_xfs

_EXT4_VALID = 0x1  # EXT4_VALID_FS in s_state; a mount without a journal clears it
_EXT4_RECOVER = 0x4  # EXT4_FEATURE_INCOMPAT_RECOVER: a mount with a journal sets it
_LOG_MAGIC = 0xFEEDBABE  # XLOG_HEADER_MAGIC_NUM
_LOG_SECTOR_BYTES = 512
_LOG_VERSION, _LOG_LSN, _LOG_OPERATIONS, _LOG_SIZE = 8, 16, 40, 320  # offsets in struct xlog_rec_header
_LOG_HEADER_COVERS_BYTES = 32 * KIB  # of a record: a longer one has further header sectors
_OPERATION_FLAGS = 9  # offset in struct xlog_op_header
_UNMOUNT = 0x20  # XLOG_UNMOUNT_TRANS
_HEAD_BYTES = 4 * KIB
# A larger log is not read, because to read gigabytes at every stop takes too long.
_MAX_LOG_BYTES = 512 * MIB


def fingerprint(reader: DirectReader) -> str | None:
    """A value that changes whenever the file system is written.

    None without an ext4 or XFS that was unmounted cleanly, or when it cannot be read.
    """
    head = aligned_buffer(_HEAD_BYTES)
    try:
        reader.read_extent(0, min(_HEAD_BYTES, reader.size_bytes), head)
        if is_ext4(head):
            return _ext4(bytes(head[EXT4_SUPERBLOCK_OFFSET : EXT4_SUPERBLOCK_OFFSET + EXT4_SUPERBLOCK_BYTES]))
        if is_xfs(head):
            return _xfs(reader, bytes(head[:512]))
    except DeviceError:
        pass
    return None


def _ext4(superblock: bytes) -> str | None:
    (state,) = struct.unpack_from("<H", superblock, 58)
    (incompatible,) = struct.unpack_from("<I", superblock, 96)
    if not state & _EXT4_VALID or incompatible & _EXT4_RECOVER:
        return None
    return f"ext4 {xxhash.xxh3_128_hexdigest(superblock)}"


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
    last = _LogRecord(-1, 0, b"")
    for offset in range(0, length, MIB):
        size = min(MIB, length - offset)
        reader.read_extent(start + offset, size, buffer)
        digest.update(buffer[:size])
        last = max(last, _last_record(buffer[:size], offset))
    if not last.is_unmount(reader, start, length):
        return None
    return f"xfs {digest.hexdigest()}"


@dataclass(frozen=True, slots=True, order=True)
class _LogRecord:
    """A record of an XFS log: its number (-1: none), its place in the log, and its header."""

    number: int
    offset_bytes: int
    header: bytes

    def is_unmount(self, reader: DirectReader, log_start: int, log_bytes: int) -> bool:
        """Whether all that it says is that the file system was unmounted."""
        if self.number < 0:
            return False
        (version,) = struct.unpack_from(">I", self.header, _LOG_VERSION)
        (operations,) = struct.unpack_from(">I", self.header, _LOG_OPERATIONS)
        (size,) = struct.unpack_from(">I", self.header, _LOG_SIZE)
        headers = -(-size // _LOG_HEADER_COVERS_BYTES) if version & 2 and size > _LOG_HEADER_COVERS_BYTES else 1
        sector = aligned_buffer(_LOG_SECTOR_BYTES)
        place = (self.offset_bytes + headers * _LOG_SECTOR_BYTES) % log_bytes
        reader.read_extent(log_start + place, _LOG_SECTOR_BYTES, sector)
        return operations == 1 and bool(sector[_OPERATION_FLAGS] & _UNMOUNT)


def _last_record(log: memoryview, offset_bytes: int) -> _LogRecord:
    """The newest record whose header lies in a piece of the log. Each other sector begins with the number of its cycle."""
    words = np.frombuffer(log, dtype=">u4").reshape(-1, _LOG_SECTOR_BYTES // 4)
    last = _LogRecord(-1, 0, b"")
    for index in np.flatnonzero(words[:, 0] == _LOG_MAGIC).tolist():
        header = words[index].tobytes()
        (number,) = struct.unpack_from(">Q", header, _LOG_LSN)
        last = max(last, _LogRecord(number, offset_bytes + index * _LOG_SECTOR_BYTES, header))
    return last
