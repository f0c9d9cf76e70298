"""Where an XFS has its log, from the superblock. Integers are big-endian.

Source: fs/xfs/libxfs/xfs_format.h (struct xfs_dsb).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydbt.core.transactions.crc import crc32c
from pydbt.core.transactions.jbd2_blocks import NotUnderstood
from pydbt.core.units import Buffer

XFS_SUPERBLOCK_BYTES = 512
_MAGIC = b"XFSB"
_LOG_V2 = 0x0400  # XFS_SB_VERSION_LOGV2BIT
_VERSION_MASK = 0xF
_INCOMPAT_OFFSET, _META_UUID_FEATURE = 0xD8, 0x4
_KNOWN_INCOMPAT, _KNOWN_LOG_INCOMPAT = 0x7FF, 0x1  # XFS_SB_FEAT_INCOMPAT_ALL and ..._LOG_ALL of Linux 7.0
_SUM_OFFSET, _SECTOR_OFFSET = 0xE0, 102
_ALL_ONES = 0xFFFFFFFF
_MAX_LOG_BYTES = 2 << 30  # XFS_MAX_LOG_BYTES


@dataclass(frozen=True, slots=True)
class XfsVolume:
    """``log_offset_bytes`` and ``log_bytes``: the log's place on the volume. ``group_blocks``: blocks of an allocation group."""

    block_bytes: int
    group_blocks: int
    log_offset_bytes: int
    log_bytes: int
    uuid: bytes


def is_xfs_superblock(block: Buffer) -> bool:
    """Whether a volume that begins with these bytes has an XFS."""
    return bytes(block[:4]) == _MAGIC


def read_xfs_superblock(block: Buffer) -> XfsVolume:
    """NotUnderstood when these bytes, 512 or more, are no superblock of an XFS with a log on the same device."""
    view = memoryview(block)
    if len(view) < XFS_SUPERBLOCK_BYTES or not is_xfs_superblock(view):
        raise NotUnderstood("it does not begin with a superblock of XFS")
    block_bytes, volume_blocks = struct.unpack_from(">IQ", view, 4)
    uuid, log_start = struct.unpack_from(">16sQ", view, 32)
    group_blocks, groups = struct.unpack_from(">II", view, 84)
    log_blocks, version = struct.unpack_from(">IH", view, 96)
    group_bits = view[124]
    if log_start == 0:
        raise NotUnderstood("its log is on another device")
    if block_bytes & (block_bytes - 1) or not 512 <= block_bytes <= 65536 or not group_blocks or group_bits > 31:
        raise NotUnderstood("its superblock has impossible numbers")
    group, block_of_group = log_start >> group_bits, log_start & ((1 << group_bits) - 1)
    first = group * group_blocks + block_of_group
    if (
        group >= groups
        or not log_blocks
        or first + log_blocks > volume_blocks
        or log_blocks * block_bytes > _MAX_LOG_BYTES
    ):
        raise NotUnderstood("its superblock has impossible numbers")
    if version & _VERSION_MASK == 5:
        _check_sum(view)
        incompat, log_incompat = struct.unpack_from(">II", view, _INCOMPAT_OFFSET)
        for words, unknown in (
            ("it", incompat & ~_KNOWN_INCOMPAT),
            ("its log", log_incompat & ~_KNOWN_LOG_INCOMPAT),
        ):
            if unknown:
                raise NotUnderstood(f"{words} has features that this program does not know ({unknown:#x})")
        if incompat & _META_UUID_FEATURE:  # the log goes on with the identity of before xfs_admin -U
            uuid = bytes(view[248:264])
    elif not version & _LOG_V2:
        raise NotUnderstood("its log has the format of version 1, which this program does not read")
    return XfsVolume(block_bytes, group_blocks, first * block_bytes, log_blocks * block_bytes, uuid)


def _check_sum(view: memoryview) -> None:
    """Over a sector, in which the checksum itself counts as 0. Where less than a sector was read it is not known."""
    (sector_bytes,) = struct.unpack_from(">H", view, _SECTOR_OFFSET)
    if not XFS_SUPERBLOCK_BYTES <= sector_bytes <= len(view):
        return
    (wanted,) = struct.unpack_from("<I", view, _SUM_OFFSET)
    total = crc32c(_ALL_ONES, view[:_SUM_OFFSET])
    total = crc32c(crc32c(total, bytes(4)), view[_SUM_OFFSET + 4 : sector_bytes])
    if total ^ _ALL_ONES != wanted:
        raise NotUnderstood("the checksum of its superblock is wrong")
