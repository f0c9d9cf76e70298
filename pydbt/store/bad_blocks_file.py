"""What is kept of the blocks that a replica's target does not take, beside the replica's state file.

Written before anything that says that the target has everything: then a journal that is freed, or a position that is
acknowledged, leaves nothing behind that is neither on the target nor here. The file is replaced as a whole.

``bad-blocks``, little-endian: magic ``PDBAD`` and three zero bytes, version u32, count u32, the incarnation of the replica's
record at that moment u64; for each block its number (of 4 KiB) u64, a bit per sector that is known u8, 7 zero bytes, and 4096
bytes; at the end xxh3_128 of all before it.
"""

from __future__ import annotations

import struct
from pathlib import Path

import xxhash

from pydbt.core.errors import StateError
from pydbt.core.protocol.frame_checks import NewerVersion, check_version
from pydbt.core.secondary.bad_blocks import BAD_BLOCK_BYTES, BadBlocks, KeptBlock
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.posix.atomic import remove_file, replace_file
from pydbt.posix.ownership import read_own
from pydbt.store.versions import newer

BAD_BLOCKS_NAME = "bad-blocks"
BAD_BLOCKS_VERSION = 1
_MAGIC = b"PDBAD\0\0\0"
_HEADER = struct.Struct("<8sIIQ")
_ROW = struct.Struct("<QB7x")
_DIGEST_BYTES = 16


def load_bad_blocks(state_dir: Path, size_bytes: int, record: ReplicaRecord | None) -> BadBlocks:
    """What is kept for a target of this size. Raises StateError.

    Where the ``record`` does not tell of it, a file of its incarnation was saved a moment before a kill. Any other one was left
    behind: an earlier version of the program knew nothing of it and wrote to the target since, or it is another replica's.
    """
    required = record is not None and record.kept_aside
    path = state_dir / BAD_BLOCKS_NAME
    try:
        data = read_own(path)
    except FileNotFoundError:
        if required:
            raise StateError(
                f"{path} is gone, with blocks that TARGET lacks: restore it, or use a new directory"
            ) from None
        return BadBlocks(size_bytes)
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from None
    try:
        incarnation, kept = _decoded(data, size_bytes)
    except NewerVersion as error:
        raise newer(path, error) from None
    except (ValueError, struct.error) as error:
        raise StateError(f"{path} is damaged ({error}): restore it, or use a new directory") from None
    belongs = record is not None and (record.kept_aside or record.incarnation == incarnation)
    return BadBlocks(size_bytes, kept if belongs else None)


def forget_bad_blocks(state_dir: Path) -> None:
    """Remove a file that does not count, before a record gets its incarnation. Raises StateError."""
    path = state_dir / BAD_BLOCKS_NAME
    if path.exists():
        remove_file(path)


def save_bad_blocks(state_dir: Path, blocks: BadBlocks, incarnation: int) -> None:
    """Durable when it returns. ``incarnation``: of the record on disk. Raises StateError."""
    path = state_dir / BAD_BLOCKS_NAME
    if not len(blocks) and not path.exists():
        return
    body = bytearray(_HEADER.pack(_MAGIC, BAD_BLOCKS_VERSION, len(blocks), incarnation))
    for number, block in sorted(blocks.kept.items()):
        body += _ROW.pack(number, block.known) + block.content
    replace_file(path, bytes(body) + xxhash.xxh3_128_digest(body))


def _decoded(data: bytes, size_bytes: int) -> tuple[int, dict[int, KeptBlock]]:
    magic, version, count, incarnation = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("it begins with something else")
    check_version(version, BAD_BLOCKS_VERSION)
    if xxhash.xxh3_128_digest(data[:-_DIGEST_BYTES]) != data[-_DIGEST_BYTES:]:
        raise ValueError("its digest is wrong")
    row_bytes = _ROW.size + BAD_BLOCK_BYTES
    if len(data) != _HEADER.size + count * row_bytes + _DIGEST_BYTES:
        raise ValueError("its length is wrong")
    kept: dict[int, KeptBlock] = {}
    for offset in range(_HEADER.size, _HEADER.size + count * row_bytes, row_bytes):
        number, known = _ROW.unpack_from(data, offset)
        if number * BAD_BLOCK_BYTES >= size_bytes:
            raise ValueError(f"it has a block behind the end of TARGET, of {size_bytes} bytes")
        kept[number] = KeptBlock(bytearray(data[offset + _ROW.size : offset + row_bytes]), known)
    return incarnation, kept
