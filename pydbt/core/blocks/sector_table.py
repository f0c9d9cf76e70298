"""Tables of sectors: the one shape in which changed sectors travel, are kept and are applied.

A row is an *extent*: a run of sectors and what happened to it. A table is a numpy structured array inside, because a
batch of 4 KiB writes has thousands of rows. Only DATA extents have payload; their bytes follow each other in table order.
Everything here works on whole tables; nothing loops over extents. Sets of blocks are ``runs``, never tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.runs import Integers, Mask
from pydbt.core.units import SECTOR_BYTES, Buffer

EXTENT_DTYPE = np.dtype(
    [("sector", "<u8"), ("sectors", "<u4"), ("kind", "u1"), ("device", "u1"), ("sequence_delta", "<u2")]
)
"""The bytes of a row, on the wire and in the journal (docs/reference/format.md), with the names of the format."""
EXTENT_BYTES = EXTENT_DTYPE.itemsize

MAX_SECTOR = 1 << 54
"""Sectors above this are past the largest offset a file or device can have (2**63 bytes)."""

WORDS_PER_SECTOR = SECTOR_BYTES // 8
MAX_EXTENT_SECTORS = 0xFFFF_FFFF


class ExtentKind(IntEnum):
    """What happened to a run of sectors. ZERO must read as zeros; so must DISCARD, which tells that it was a trim."""

    DATA = 1
    ZERO = 2
    DISCARD = 3


class SectorTable:
    """Extents in the order in which they were written. Columns are arrays with one entry per extent.

    Extents of one table may overlap; the later one wins. Nothing is checked before ``check``.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: npt.NDArray[np.void]) -> None:
        self._rows = rows

    @classmethod
    def of(
        cls,
        first_sectors: npt.ArrayLike,
        lengths_sectors: npt.ArrayLike,
        kinds: npt.ArrayLike = ExtentKind.DATA,
        sequence_deltas: npt.ArrayLike = 0,
    ) -> SectorTable:
        """A table from columns. Columns given as one number hold for every row."""
        rows = np.zeros(np.shape(first_sectors), dtype=EXTENT_DTYPE)
        rows["sector"] = first_sectors
        rows["sectors"] = lengths_sectors
        rows["kind"] = kinds
        rows["sequence_delta"] = sequence_deltas
        return cls(rows)

    @classmethod
    def joined(cls, tables: Sequence[SectorTable]) -> SectorTable:
        """The rows of all tables, one table after the other."""
        return cls(np.concatenate([table._rows for table in tables]))

    @classmethod
    def from_bytes(cls, data: Buffer) -> SectorTable:
        """A view of encoded rows, unchecked."""
        return cls(np.frombuffer(data, dtype=EXTENT_DTYPE))

    def to_bytes(self) -> bytes:
        return self._rows.tobytes()

    # --- columns ------------------------------------------------------------------------------------------
    @property
    def first_sectors(self) -> npt.NDArray[np.uint64]:
        return self._rows["sector"]

    @property
    def lengths_sectors(self) -> npt.NDArray[np.uint32]:
        return self._rows["sectors"]

    @property
    def kinds(self) -> npt.NDArray[np.uint8]:
        """``ExtentKind`` of each extent."""
        return self._rows["kind"]

    @property
    def sequence_deltas(self) -> npt.NDArray[np.uint16]:
        """In a STREAM frame: the sequence number of each extent, minus the first one of the frame."""
        return self._rows["sequence_delta"]

    @property
    def is_data(self) -> Mask:
        """Which extents have payload."""
        return np.asarray(self.kinds == ExtentKind.DATA, dtype=np.bool_)

    # --- rows ---------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | Mask | Integers) -> SectorTable:
        """Some of the rows: a view for a slice, a copy otherwise."""
        return SectorTable(self._rows[rows])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SectorTable) and np.array_equal(self._rows, other._rows)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SectorTable({self._rows.tolist()})"

    # --- sums ---------------------------------------------------------------------------------------------
    @property
    def payload_bytes(self) -> int:
        """Bytes of payload that belong to the table."""
        return int(self.lengths_sectors[self.is_data].sum(dtype=np.uint64)) * SECTOR_BYTES

    @property
    def end_sector(self) -> int:
        """The sector after the last one that is touched; 0 for an empty table."""
        return int((self.first_sectors + self.lengths_sectors).max()) if len(self) else 0

    def check(self) -> None:
        """Raise ValueError unless every row is legal in itself. ``end_sector`` tells whether a volume holds them."""
        rows = self._rows
        if rows.dtype != EXTENT_DTYPE or rows.ndim != 1:
            raise ValueError(f"an extent table is a one-dimensional array of EXTENT_DTYPE, not {rows.dtype}")
        if not len(rows):
            return
        if not rows["sectors"].all():
            raise ValueError("an extent is empty")
        if int(rows["sector"].max()) > MAX_SECTOR:
            raise ValueError(f"an extent begins past sector {MAX_SECTOR}")
        if int(rows["kind"].min()) < ExtentKind.DATA or int(rows["kind"].max()) > ExtentKind.DISCARD:
            raise ValueError("an extent has an unknown kind")
        self.check_device()

    def check_device(self) -> None:
        """Raise ValueError unless every row is of the one device that this version knows: 0."""
        if self._rows["device"].any():
            raise ValueError("an extent is of another device than 0, and this program knows one alone")

    # --- other tables with the same content ---------------------------------------------------------------
    def merge_adjacent(self) -> SectorTable:
        """Rows that continue the row before them (same kind, same sequence, next sector) become part of it.

        The payload stays as it is, because its order does not change.
        """
        if len(self) < 2:
            return self
        before, after = self._rows[:-1], self._rows[1:]
        starts = np.ones(len(self), dtype=np.bool_)
        starts[1:] = (
            (before["sector"] + before["sectors"] != after["sector"])
            | (before["kind"] != after["kind"])
            | (before["sequence_delta"] != after["sequence_delta"])
        )
        firsts = np.flatnonzero(starts)
        if len(firsts) == len(self):
            return self
        lengths = np.add.reduceat(self.lengths_sectors.astype(np.uint64), firsts)
        if int(lengths.max()) > MAX_EXTENT_SECTORS:
            return self  # terabytes in one run: leave them as the rows they came in
        merged = self._rows[firsts].copy()
        merged["sectors"] = lengths
        return SectorTable(merged)

    def split_zeros(self, payload: Buffer, granule_bytes: int) -> tuple[SectorTable, list[memoryview]]:
        """Turn runs of zeros of at least ``granule_bytes`` inside DATA extents into ZERO extents, merging neighbours.

        ``payload`` is the table's payload in one piece; the second result are views of it, in order. Rows keep their
        order and their sequence, so the table of a STREAM frame may be split as well as that of a BLOCKS frame.
        """
        view = memoryview(payload).cast("B")
        if not len(view):
            return self.merge_adjacent(), []
        zero = zero_sectors(view)
        if not zero.any():
            return self.merge_adjacent(), [view]
        data_rows = np.flatnonzero(self.is_data)
        counts = self.lengths_sectors[data_rows].astype(np.int64)
        firsts = np.cumsum(counts) - counts
        owner = np.repeat(np.arange(len(data_rows)), counts)
        starts, is_zero = _runs_of_kind(zero, owner, max(granule_bytes // SECTOR_BYTES, 1))
        lengths = np.diff(np.append(starts, len(zero)))
        owners = owner[starts]
        split = self._rows[data_rows[owners]].copy()
        split["sector"] += (starts - firsts[owners]).astype(np.uint64)
        split["sectors"] = lengths
        split["kind"] = np.where(is_zero, ExtentKind.ZERO, ExtentKind.DATA)
        others = np.flatnonzero(~self.is_data)
        order = np.argsort(np.concatenate((data_rows[owners], others)), kind="stable")
        table = SectorTable(np.concatenate((split, self._rows[others]))[order])
        return table.merge_adjacent(), _pieces(view, starts[~is_zero], lengths[~is_zero])


def zero_sectors(payload: Buffer) -> Mask:
    """A mask, one bool per sector of payload: does it hold zeros only?"""
    words = np.frombuffer(payload, dtype="<u8").reshape(-1, WORDS_PER_SECTOR)
    mask: Mask = words[:, 0] == 0
    candidates = np.flatnonzero(mask)
    if len(candidates) == len(mask):
        return np.logical_not(words.any(axis=1))
    mask[candidates] = np.logical_not(words[candidates].any(axis=1))
    return mask


def _runs_of_kind(zero: Mask, owner: Integers, granule_sectors: int) -> tuple[Integers, Mask]:
    """Starts of runs of equal kind within one owner; zero runs shorter than a granule count as data."""
    change = np.ones(len(zero), dtype=np.bool_)
    change[1:] = (zero[1:] != zero[:-1]) | (owner[1:] != owner[:-1])
    starts = np.flatnonzero(change)
    lengths = np.diff(np.append(starts, len(zero)))
    is_zero = zero[starts] & (lengths >= granule_sectors)
    keep = np.ones(len(starts), dtype=np.bool_)
    keep[1:] = (is_zero[1:] != is_zero[:-1]) | (owner[starts[1:]] != owner[starts[:-1]])
    return starts[keep], is_zero[keep]


def _pieces(view: memoryview, starts: Integers, lengths: Integers) -> list[memoryview]:
    """The payload's remaining parts, neighbours joined. Units of both arrays: sectors of payload."""
    if not len(starts):
        return []
    fresh = np.ones(len(starts), dtype=np.bool_)
    fresh[1:] = starts[:-1] + lengths[:-1] != starts[1:]
    firsts = np.flatnonzero(fresh)
    totals = np.add.reduceat(lengths, firsts)
    begins = (starts[firsts] * SECTOR_BYTES).tolist()
    ends = ((starts[firsts] + totals) * SECTOR_BYTES).tolist()
    return [view[begin:end] for begin, end in zip(begins, ends, strict=True)]
