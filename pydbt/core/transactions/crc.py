"""The checksums of file systems' logs: CRC-32C as the kernel's ``crc32c()``, and the older ``crc32_be()`` of jbd2.

Both are raw, as in the kernel: they begin with the given value, and nothing is inverted at the end. The libraries invert
before and behind; so the value is inverted for them, and what they return is inverted back.

Sources: lib/crc32.c, include/linux/crc32c.h; RFC 3720, appendix B.4 (the polynomial of CRC-32C).
"""

from __future__ import annotations

import zlib

import crc32c as library

from pydbt.core.units import Buffer

_ALL_ONES = 0xFFFFFFFF
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc32c(value: int, data: Buffer) -> int:
    """CRC-32C of ``data``, begun with ``value`` (``~0`` in most structures, as 0xFFFFFFFF)."""
    return library.crc32c(data, value ^ _ALL_ONES) ^ _ALL_ONES


def crc32c_of(value: int, *parts: Buffer) -> int:
    """``crc32c`` of parts that follow one another."""
    total = value ^ _ALL_ONES
    for part in parts:
        total = library.crc32c(part, total)
    return total ^ _ALL_ONES


def crc32_be(value: int, data: Buffer) -> int:
    """The CRC of IEEE 802.3, most significant bit first, begun with ``value``."""
    mirrored = zlib.crc32(bytes(data).translate(_REVERSED), _mirrored(value) ^ _ALL_ONES) ^ _ALL_ONES
    return _mirrored(mirrored)


def _mirrored(value: int) -> int:
    return int(f"{value:032b}"[::-1], 2)
