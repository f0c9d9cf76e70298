"""Tables of extents: the one shape in which changed sectors travel, are kept and are applied.

An extent is a run of sectors and what happened to it. Tables are numpy structured arrays, because a batch of
4 KiB writes has thousands of them. Only DATA extents have payload; their bytes follow each other in table order.
Everything here works on whole tables; nothing loops over extents.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from pydbt.core.units import SECTOR_BYTES

EXTENT_DTYPE = np.dtype(
    [("sector", "<u8"), ("sectors", "<u4"), ("kind", "u1"), ("flags", "u1"), ("sequence_delta", "<u2")]
)
EXTENT_BYTES = EXTENT_DTYPE.itemsize

MAX_SECTOR = 1 << 54
"""Sectors above this are past the largest offset a file or device can have (2**63 bytes)."""

WORDS_A_SECTOR = SECTOR_BYTES // 8
MAX_EXTENT_SECTORS = 0xFFFF_FFFF

Buffer = bytes | bytearray | memoryview
SectorTable = np.ndarray
"""One-dimensional array of EXTENT_DTYPE."""


class ExtentKind(IntEnum):
    """What happened to a run of sectors. ZERO must read as zeros; so does DISCARD here, which frees room too."""

    DATA = 1
    ZERO = 2
    DISCARD = 3


def make_extents(
    sectors: np.ndarray | list[int],
    lengths_sectors: np.ndarray | list[int],
    kinds: np.ndarray | int = ExtentKind.DATA,
    sequence_deltas: np.ndarray | int = 0,
) -> SectorTable:
    """A table from columns. Columns given as one number hold for every row."""
    table = np.zeros(len(sectors), dtype=EXTENT_DTYPE)
    table["sector"] = sectors
    table["sectors"] = lengths_sectors
    table["kind"] = kinds
    table["sequence_delta"] = sequence_deltas
    return table


def payload_bytes(extents: SectorTable) -> int:
    """Bytes of payload that belong to a table."""
    data = extents["kind"] == ExtentKind.DATA
    return int(extents["sectors"][data].sum(dtype=np.uint64)) * SECTOR_BYTES


def covered_bytes(extents: SectorTable) -> int:
    """Bytes of the volume a table touches, overlaps counted twice."""
    return int(extents["sectors"].sum(dtype=np.uint64)) * SECTOR_BYTES


def end_sector(extents: SectorTable) -> int:
    """The sector after the last one touched; 0 for an empty table."""
    return int((extents["sector"] + extents["sectors"]).max()) if len(extents) else 0


def check_extents(extents: SectorTable) -> None:
    """Raise ValueError unless every row is legal in itself. Bounds of a volume are ``end_sector``'s matter."""
    if extents.dtype != EXTENT_DTYPE or extents.ndim != 1:
        raise ValueError(f"an extent table is a one-dimensional array of EXTENT_DTYPE, not {extents.dtype}")
    if not len(extents):
        return
    if not extents["sectors"].all():
        raise ValueError("an extent is empty")
    if int(extents["sector"].max()) > MAX_SECTOR:
        raise ValueError(f"an extent begins past sector {MAX_SECTOR}")
    if int(extents["kind"].min()) < ExtentKind.DATA or int(extents["kind"].max()) > ExtentKind.DISCARD:
        raise ValueError("an extent has an unknown kind")
    if extents["flags"].any():
        raise ValueError("an extent has unknown flags")


def merge_adjacent(extents: SectorTable) -> SectorTable:
    """Rows that continue the row before them (same kind, same sequence, next sector) become part of it.

    The payload stays as it is, because its order does not change.
    """
    if len(extents) < 2:
        return extents
    before, after = extents[:-1], extents[1:]
    starts = np.ones(len(extents), dtype=bool)
    starts[1:] = (
        (before["sector"] + before["sectors"] != after["sector"])
        | (before["kind"] != after["kind"])
        | (before["sequence_delta"] != after["sequence_delta"])
    )
    firsts = np.flatnonzero(starts)
    if len(firsts) == len(extents):
        return extents
    lengths = np.add.reduceat(extents["sectors"].astype(np.uint64), firsts)
    if int(lengths.max()) > MAX_EXTENT_SECTORS:
        return extents  # terabytes in one run: leave them as the rows they came in
    merged = extents[firsts].copy()
    merged["sectors"] = lengths
    return merged


def zero_sectors(payload: Buffer) -> np.ndarray:
    """A mask, one bool a sector of payload: does it hold zeros only?"""
    words = np.frombuffer(payload, dtype="<u8").reshape(-1, WORDS_A_SECTOR)
    mask = words[:, 0] == 0
    candidates = np.flatnonzero(mask)
    if len(candidates) == len(mask):
        return ~words.any(axis=1)
    mask[candidates] = ~words[candidates].any(axis=1)
    return mask


def split_zero_blocks(
    extents: SectorTable, payload: Buffer, granule_bytes: int
) -> tuple[SectorTable, list[memoryview]]:
    """Turn runs of zeros of at least ``granule_bytes`` inside DATA extents into ZERO extents, merging neighbours.

    ``payload`` is the table's payload in one piece; what is returned are views of it, in order. Rows keep their
    order and their sequence, so a STREAM table may be split as well as a BLOCKS table.
    """
    view = memoryview(payload).cast("B")
    rows = np.flatnonzero(extents["kind"] == ExtentKind.DATA)
    if not len(view):
        return merge_adjacent(extents), []
    zero = zero_sectors(view)
    if not zero.any():
        return merge_adjacent(extents), [view]
    counts = extents["sectors"][rows].astype(np.int64)
    firsts = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(len(rows)), counts)
    starts, is_zero = _runs(zero, owner, max(granule_bytes // SECTOR_BYTES, 1))
    lengths = np.diff(np.append(starts, len(zero)))
    owners = owner[starts]
    split = extents[rows[owners]].copy()
    split["sector"] += (starts - firsts[owners]).astype(np.uint64)
    split["sectors"] = lengths
    split["kind"] = np.where(is_zero, ExtentKind.ZERO, ExtentKind.DATA)
    others = np.flatnonzero(extents["kind"] != ExtentKind.DATA)
    order = np.argsort(np.concatenate((rows[owners], others)), kind="stable")
    table = np.concatenate((split, extents[others]))[order]
    return merge_adjacent(table), _pieces(view, starts[~is_zero], lengths[~is_zero])


def _runs(zero: np.ndarray, owner: np.ndarray, granule_sectors: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts of runs of equal kind within one owner; zero runs shorter than a granule count as data."""
    change = np.ones(len(zero), dtype=bool)
    change[1:] = (zero[1:] != zero[:-1]) | (owner[1:] != owner[:-1])
    starts = np.flatnonzero(change)
    lengths = np.diff(np.append(starts, len(zero)))
    is_zero = zero[starts] & (lengths >= granule_sectors)
    keep = np.ones(len(starts), dtype=bool)
    keep[1:] = (is_zero[1:] != is_zero[:-1]) | (owner[starts[1:]] != owner[starts[:-1]])
    return starts[keep], is_zero[keep]


def _pieces(view: memoryview, starts: np.ndarray, lengths: np.ndarray) -> list[memoryview]:
    """The payload's remaining parts, neighbours joined. Units of both arrays: sectors of payload."""
    if not len(starts):
        return []
    fresh = np.ones(len(starts), dtype=bool)
    fresh[1:] = starts[:-1] + lengths[:-1] != starts[1:]
    firsts = np.flatnonzero(fresh)
    totals = np.add.reduceat(lengths, firsts)
    begins = (starts[firsts] * SECTOR_BYTES).tolist()
    ends = ((starts[firsts] + totals) * SECTOR_BYTES).tolist()
    return [view[begin:end] for begin, end in zip(begins, ends, strict=True)]
