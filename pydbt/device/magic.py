"""How a file system is known by the first bytes of its device.

Sources: fs/ext4/ext4.h (struct ext4_super_block: s_magic), include/uapi/linux/magic.h, fs/xfs/libxfs/xfs_format.h
(struct xfs_dsb: sb_magicnum).
"""

from __future__ import annotations

from pydbt.core.units import KIB, Buffer

EXT4_SUPERBLOCK_OFFSET = 1 * KIB
EXT4_SUPERBLOCK_BYTES = 1 * KIB
_EXT4_MAGIC, _EXT4_MAGIC_OFFSET = b"\x53\xef", EXT4_SUPERBLOCK_OFFSET + 56  # EXT4_SUPER_MAGIC, little-endian
_XFS_MAGIC = b"XFSB"


def is_ext4(head: Buffer) -> bool:
    """Whether a device that begins with these bytes, 2 KiB of them or more, has an ext4 (or its external journal)."""
    return bytes(head[_EXT4_MAGIC_OFFSET : _EXT4_MAGIC_OFFSET + len(_EXT4_MAGIC)]) == _EXT4_MAGIC


def is_xfs(head: Buffer) -> bool:
    """Whether a device that begins with these bytes has an XFS."""
    return bytes(head[: len(_XFS_MAGIC)]) == _XFS_MAGIC
