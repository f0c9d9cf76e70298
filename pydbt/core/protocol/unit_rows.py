"""Runs of units (of a comparison) as the rows that DIGESTS and WANT carry, and back.

A row has the size and the layout of an extent's row, but it counts units where that counts sectors.
"""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import MAX_SECTOR
from pydbt.core.units import Buffer

UNIT_ROW_DTYPE = np.dtype([("unit", "<u8"), ("units", "<u4"), ("kind", "u1"), ("device", "u1"), ("reserved", "<u2")])
UNIT_ROW_BYTES = UNIT_ROW_DTYPE.itemsize
PLAIN = 1
"""The only kind of such a row."""


def encode_units(units: Runs) -> bytes:
    """Runs as rows, in their order."""
    rows = np.zeros(len(units.firsts), dtype=UNIT_ROW_DTYPE)
    rows["unit"], rows["units"], rows["kind"] = units.firsts, units.counts, PLAIN
    return rows.tobytes()


def decode_units(data: Buffer) -> Runs:
    """Rows as runs. Raises ValueError unless each can be one; limits of a frame are ``frames.check_units``."""
    rows = np.frombuffer(data, dtype=UNIT_ROW_DTYPE)
    if (rows["kind"] != PLAIN).any() or rows["device"].any() or rows["reserved"].any():
        raise ValueError(
            "a run of units has another kind than 1, another device than 0, or a reserved field that is not zero"
        )
    if (rows["unit"] > MAX_SECTOR).any():  # before it is taken for a number with a sign
        raise ValueError(f"a run of units begins past unit {MAX_SECTOR}")
    return Runs(rows["unit"].astype(np.int64), rows["units"].astype(np.int64))
