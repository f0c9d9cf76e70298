"""Runs of units (of a comparison) as the rows that frames carry, and back.

A row has the size and the layout of an extent's row, but it counts units where that counts sectors.
"""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import MAX_SECTOR
from pydbt.core.units import MAX_COMPARED_BYTES, MIN_BLOCK_BYTES, Buffer

UNIT_ROW_DTYPE = np.dtype([("unit", "<u8"), ("units", "<u4"), ("kind", "u1"), ("device", "u1"), ("reserved", "<u2")])
UNIT_ROW_BYTES = UNIT_ROW_DTYPE.itemsize
PLAIN = 1
"""The only kind of such a row."""
MAX_DIGESTS = 262_144
"""Units in one DIGESTS frame: 4 MiB of digests, 1 GiB of 4 KiB units."""
COMPARED_UNITS_BYTES = frozenset(
    1 << power for power in range(MIN_BLOCK_BYTES.bit_length() - 1, MAX_COMPARED_BYTES.bit_length())
)
"""The units that one digest may stand for: every power of two from a sector to 4 KiB."""


def encode_units(units: Runs) -> bytes:
    """Runs as rows, in their order."""
    rows = np.zeros(len(units.firsts), dtype=UNIT_ROW_DTYPE)
    rows["unit"], rows["units"], rows["kind"] = units.firsts, units.counts, PLAIN
    return rows.tobytes()


def decode_units(data: Buffer) -> Runs:
    """Rows as runs. Raises ValueError unless each can be one; limits of a frame are ``check_units``."""
    rows = np.frombuffer(data, dtype=UNIT_ROW_DTYPE)
    if (rows["kind"] != PLAIN).any() or rows["device"].any() or rows["reserved"].any():
        raise ValueError(
            "a run of units has another kind than 1, another device than 0, or a reserved field that is not zero"
        )
    if (rows["unit"] > MAX_SECTOR).any():  # before it is taken for a number with a sign
        raise ValueError(f"a run of units begins past unit {MAX_SECTOR}")
    return Runs(rows["unit"].astype(np.int64), rows["units"].astype(np.int64))


def same_units(one: Runs, other: Runs) -> bool:
    """Whether these are the same runs, in the same order."""
    return np.array_equal(one.firsts, other.firsts) and np.array_equal(one.counts, other.counts)


def check_units(units: Runs) -> None:
    """The units that a frame names. Raises ValueError."""
    if len(units.firsts) > MAX_DIGESTS:
        raise ValueError(f"{len(units.firsts)} runs in a frame that takes {MAX_DIGESTS}")
    if not len(units.firsts):
        return
    if int(units.counts.min()) <= 0:
        raise ValueError("a run of units is empty")
    if int(units.firsts.min()) < 0 or int(units.firsts.max()) > MAX_SECTOR:
        raise ValueError(f"a run of units begins past unit {MAX_SECTOR}")
    if units.total() > MAX_DIGESTS:
        raise ValueError(f"{units.total()} units in a frame that takes {MAX_DIGESTS}")
