"""From extents in their order to the fewest writes that leave the same content: the last writer of a sector wins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pydbt.core.blocks.sector_table import ExtentKind, SectorTable
from pydbt.core.units import MIB, SECTOR_BYTES

WIDE_ZERO_SECTORS = MIB // SECTOR_BYTES
"""Zero and discard extents from here on are written one by one, in their place, instead of sector by sector."""

ZEROS = -1
"""Source of a run that is to read as zeros."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Disjoint runs in ascending order; ``sources`` are byte offsets into the buffer, ZEROS for zeros."""

    sectors: np.ndarray
    counts: np.ndarray
    sources: np.ndarray


def sources_of(extents: SectorTable, payload_offset_bytes: int) -> np.ndarray:
    """Byte offset of each extent's payload, where the table's payload begins at ``payload_offset_bytes``."""
    data = extents["kind"] == ExtentKind.DATA
    lengths = np.where(data, extents["sectors"].astype(np.int64) * SECTOR_BYTES, 0)
    return np.where(data, payload_offset_bytes + np.cumsum(lengths) - lengths, ZEROS)


def plan(extents: SectorTable, sources: np.ndarray) -> Iterator[Runs]:
    """Writes that have the effect of all extents in order; what one yields is to be done before the next."""
    wide = np.flatnonzero((sources == ZEROS) & (extents["sectors"] >= WIDE_ZERO_SECTORS))
    begin = 0
    for index in wide.tolist():
        if index > begin:
            yield _resolve(extents[begin:index], sources[begin:index])
        yield Runs(
            extents["sector"][index : index + 1].astype(np.int64),
            extents["sectors"][index : index + 1].astype(np.int64),
            sources[index : index + 1],
        )
        begin = index + 1
    if begin < len(extents):
        yield _resolve(extents[begin:], sources[begin:])


def _resolve(extents: SectorTable, sources: np.ndarray) -> Runs:
    sectors = extents["sector"].astype(np.int64)
    counts = extents["sectors"].astype(np.int64)
    order = np.argsort(sectors, kind="stable")
    sorted_sectors, sorted_counts, sorted_sources = sectors[order], counts[order], sources[order]
    if len(extents) == 1 or (sorted_sectors[1:] >= sorted_sectors[:-1] + sorted_counts[:-1]).all():
        return _join(sorted_sectors, sorted_counts, sorted_sources)
    return _join(*_last_writers(sectors, counts, sources))


def _last_writers(sectors: np.ndarray, counts: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, ...]:
    """One row a sector: bounded, because data comes in chunks and wide zeros apart."""
    before = np.cumsum(counts) - counts
    within = np.arange(int(counts.sum())) - np.repeat(before, counts)
    each_sector = np.repeat(sectors, counts) + within
    each_source = np.repeat(sources, counts)
    each_source = np.where(each_source == ZEROS, ZEROS, each_source + within * SECTOR_BYTES)
    order = np.argsort(each_sector, kind="stable")
    each_sector, each_source = each_sector[order], each_source[order]
    last = np.append(each_sector[1:] != each_sector[:-1], True)
    each_sector, each_source = each_sector[last], each_source[last]
    return each_sector, np.ones(len(each_sector), dtype=np.int64), each_source


def _join(sectors: np.ndarray, counts: np.ndarray, sources: np.ndarray) -> Runs:
    """Rows that continue the row before them, on the target and in the buffer, become part of it."""
    ends = sectors[:-1] + counts[:-1]
    source_ends = sources[:-1] + counts[:-1] * SECTOR_BYTES
    zeros = sources == ZEROS
    goes_on = np.where(zeros[1:], zeros[:-1], ~zeros[:-1] & (source_ends == sources[1:])) & (ends == sectors[1:])
    firsts = np.flatnonzero(np.append(True, ~goes_on))
    return Runs(sectors[firsts], np.add.reduceat(counts, firsts), sources[firsts])
