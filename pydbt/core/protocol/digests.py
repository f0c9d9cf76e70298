"""Digests of the blocks that both sides compare, keyed by a secret that the secondary makes for each connection.

Who can write to the volume chooses its blocks, and so could prepare two that have one digest. Of a keyed digest nobody can
prepare that: the key is told in WELCOME, and no user of the volume sees it or a digest made with it.

SHA-256 over the key, filled up with zeros to one block of the function (64 bytes), and the unit; of that the first 16 bytes.
docs/internals/decisions.md says why this function.
"""

from __future__ import annotations

import hashlib

from pydbt.core.units import Buffer

DIGEST_BYTES = 16
DIGEST_KEY_BYTES = 32


class UnitDigest:
    """The digest of one connection. May be used by several threads."""

    def __init__(self, key: bytes) -> None:
        if len(key) != DIGEST_KEY_BYTES:
            raise ValueError(f"a key of digests has {DIGEST_KEY_BYTES} bytes, not {len(key)}")
        self._keyed = hashlib.sha256()
        self._keyed.update(key.ljust(self._keyed.block_size, b"\0"))

    def of(self, unit: Buffer) -> bytes:
        """The digest of one unit, 16 bytes."""
        state = self._keyed.copy()
        state.update(unit)
        return state.digest()[:DIGEST_BYTES]

    def of_each(self, data: memoryview, unit_bytes: int) -> bytes:
        """The digests of all units of ``data``, one after the other; the last one may be short."""
        return b"".join(self.of(data[at : at + unit_bytes]) for at in range(0, len(data), unit_bytes))
