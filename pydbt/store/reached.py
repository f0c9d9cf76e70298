"""The position up to which the secondary's journal was durable, kept beside it: a journal that ends earlier is damaged.

The journal alone does not show that whole records are missing at its end, or whether a record is damaged or was never
finished. The position is written after each sync of the journal and is not synced itself, so it is never too high. After
a kill of the process it is exact; after a power loss it may be an older one.

``reached``, 32 bytes: magic ``PDREACH`` and a zero byte, the position (u64, little-endian), xxh3_128 of both.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import xxhash

from pydbt.core.errors import StateError
from pydbt.posix.files import write_all
from pydbt.posix.ownership import OPEN_OWN, read_own

REACHED_FILE_NAME = "reached"
_MAGIC = b"PDREACH\0"
_CONTENT = struct.Struct("<8sQ")
_BYTES = _CONTENT.size + 16


class Reached:
    """The position file in a secondary's state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / REACHED_FILE_NAME

    def load(self) -> int | None:
        """The position; None when none was ever written. StateError when the file is not whole."""
        try:
            data = read_own(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{self._path} cannot be read: {error.strerror}") from None
        if not data:
            return None  # killed between creating it and writing it
        content = data[: _CONTENT.size]
        if (
            len(data) != _BYTES
            or content[: len(_MAGIC)] != _MAGIC
            or xxhash.xxh3_128_digest(content) != data[_CONTENT.size :]
        ):
            raise StateError(
                f"{self._path} is not whole: remove it, and run 'controller verify --repair' at the primary"
            )
        position: int = _CONTENT.unpack(content)[1]
        return position

    def save(self, position: int, *, durable: bool = False) -> None:
        """Write the position. Use ``durable`` before the journal is cut at a lower position. Raises StateError."""
        content = _CONTENT.pack(_MAGIC, position)
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | OPEN_OWN, 0o600)
            try:
                write_all(descriptor, [content + xxhash.xxh3_128_digest(content)], 0)
                if durable:
                    os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StateError(f"{self._path} cannot be written: {error.strerror}") from None
