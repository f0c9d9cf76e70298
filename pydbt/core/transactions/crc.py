"""The checksums of file systems' logs: CRC-32C as the kernel's ``crc32c()``, and the older ``crc32_be()`` of jbd2.

Both are raw, as in the kernel: they begin with the given value, and nothing is inverted at the end. numpy looks up every byte
of a piece at once, in a table of the byte's own distance to the end of its row; then every row's sum in the same way.

Sources: lib/crc32.c, include/linux/crc32c.h; RFC 3720, appendix B.4 (the polynomial of CRC-32C).
"""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pydbt.core.units import Buffer

_POLYNOMIAL = 0x82F63B78  # CRC-32C, least significant bit first
_ROW_BYTES = 64
_ROWS = 64
_PIECE_BYTES = _ROW_BYTES * _ROWS
_Words = NDArray[np.uint32]
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc32c(value: int, data: Buffer) -> int:
    """CRC-32C of ``data``, begun with ``value`` (``~0`` in most structures, as 0xFFFFFFFF)."""
    content = np.frombuffer(data, np.uint8)
    for first in range(0, content.size, _PIECE_BYTES):
        value = _of_piece(value, content[first : first + _PIECE_BYTES])
    return value


def crc32_be(value: int, data: Buffer) -> int:
    """The CRC of IEEE 802.3, most significant bit first, begun with ``value``."""
    mirrored = zlib.crc32(bytes(data).translate(_REVERSED), _mirrored(value) ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return _mirrored(mirrored)


def _mirrored(value: int) -> int:
    return int(f"{value:032b}"[::-1], 2)


def _of_piece(value: int, piece: NDArray[np.uint8]) -> int:
    if piece.size < 4:
        table = _table_of_a_byte()
        for byte in piece.tolist():
            value = (value >> 8) ^ int(table[(value ^ byte) & 0xFF])
        return value
    # Zeroes before the first byte change nothing when the sum begins with 0; the value goes into the first four bytes.
    rows = np.zeros(_PIECE_BYTES, np.uint8)
    rows[_PIECE_BYTES - piece.size :] = piece
    start = rows[_PIECE_BYTES - piece.size :][:4]
    start ^= np.frombuffer(value.to_bytes(4, "little"), np.uint8)
    table, places = _row_table()
    of_rows: _Words = np.bitwise_xor.reduce(table.take(rows.reshape(_ROWS, _ROW_BYTES) + places), axis=1)
    table, places = _rows_table()
    parts = of_rows.astype("<u4").view(np.uint8).reshape(_ROWS, 4)
    return int(np.bitwise_xor.reduce(table.take(parts + places), axis=None))


@cache
def _table_of_a_byte() -> _Words:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


def _behind_a_zero(sums: _Words) -> _Words:
    behind: _Words = (sums >> np.uint32(8)) ^ _table_of_a_byte()[sums & np.uint32(0xFF)]
    return behind


@cache
def _row_table() -> tuple[_Words, NDArray[np.int32]]:
    """The sums of each byte at each place of a row, and where the table of each place begins."""
    tables = [_table_of_a_byte()]
    while len(tables) < _ROW_BYTES:
        tables.append(_behind_a_zero(tables[-1]))
    return np.concatenate(tables[::-1]), np.arange(_ROW_BYTES, dtype=np.int32) * 256


@cache
def _rows_table() -> tuple[_Words, NDArray[np.int32]]:
    """The same of each byte of a row's sum, behind which the other rows follow."""
    sums = (np.arange(256, dtype=np.uint32)[None, :] << np.arange(0, 32, 8, dtype=np.uint32)[:, None]).reshape(-1)
    tables = [sums]
    while len(tables) < _ROWS:
        for _ in range(_ROW_BYTES):
            sums = _behind_a_zero(sums)
        tables.append(sums)
    places = np.arange(_ROWS * 4, dtype=np.int32).reshape(_ROWS, 4) * 256
    return np.concatenate(tables[::-1]), places
