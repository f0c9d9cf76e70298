"""From extents in their order to the fewest writes that leave the same content: the last writer of a sector wins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pydbt.core.blocks.runs import Integers
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.units import MIB, SECTOR_BYTES

WIDE_ZERO_SECTORS = MIB // SECTOR_BYTES
"""Zero and discard extents from here on are written one by one, in their place, instead of sector by sector."""

ZEROS = -1
"""Source of a run that is to read as zeros."""


@dataclass(frozen=True, slots=True)
class PlannedWrites:
    """Disjoint runs of sectors in ascending order; ``sources`` are byte offsets into the buffer, ZEROS for zeros."""

    sectors: Integers
    lengths_sectors: Integers
    sources: Integers


def sources_of(extents: SectorTable, payload_offset_bytes: int) -> Integers:
    """Byte offset of each extent's payload, where the table's payload begins at ``payload_offset_bytes``."""
    data = extents.is_data
    lengths = np.where(data, extents.lengths_sectors.astype(np.int64) * SECTOR_BYTES, 0)
    return np.where(data, payload_offset_bytes + np.cumsum(lengths) - lengths, ZEROS)


def plan(extents: SectorTable, sources: Integers) -> Iterator[PlannedWrites]:
    """Writes that have the effect of all extents in order; each must be done before the next one is taken."""
    sectors, lengths = extents.first_sectors.astype(np.int64), extents.lengths_sectors.astype(np.int64)
    wide = np.flatnonzero((sources == ZEROS) & (lengths >= WIDE_ZERO_SECTORS))
    begin = 0
    for index in wide.tolist():
        if index > begin:
            yield _resolve(sectors[begin:index], lengths[begin:index], sources[begin:index])
        yield PlannedWrites(sectors[index : index + 1], lengths[index : index + 1], sources[index : index + 1])
        begin = index + 1
    if begin < len(extents):
        yield _resolve(sectors[begin:], lengths[begin:], sources[begin:])


def _resolve(sectors: Integers, lengths: Integers, sources: Integers) -> PlannedWrites:
    order = np.argsort(sectors, kind="stable")
    sorted_sectors, sorted_lengths, sorted_sources = sectors[order], lengths[order], sources[order]
    if len(sectors) == 1 or (sorted_sectors[1:] >= sorted_sectors[:-1] + sorted_lengths[:-1]).all():
        return _join(sorted_sectors, sorted_lengths, sorted_sources)
    return _join(*_last_writers(sectors, lengths, sources))


def _last_writers(sectors: Integers, lengths: Integers, sources: Integers) -> tuple[Integers, Integers, Integers]:
    """One row per sector: bounded, because data comes in chunks and wide zeros apart."""
    before = np.cumsum(lengths) - lengths
    within = np.arange(int(lengths.sum())) - np.repeat(before, lengths)
    each_sector = np.repeat(sectors, lengths) + within
    each_source = np.repeat(sources, lengths)
    each_source = np.where(each_source == ZEROS, ZEROS, each_source + within * SECTOR_BYTES)
    order = np.argsort(each_sector, kind="stable")
    each_sector, each_source = each_sector[order], each_source[order]
    last = np.append(each_sector[1:] != each_sector[:-1], True)
    each_sector, each_source = each_sector[last], each_source[last]
    return each_sector, np.ones(len(each_sector), dtype=np.int64), each_source


def _join(sectors: Integers, lengths: Integers, sources: Integers) -> PlannedWrites:
    """Rows that continue the row before them, on the target and in the buffer, become part of it."""
    ends = sectors[:-1] + lengths[:-1]
    source_ends = sources[:-1] + lengths[:-1] * SECTOR_BYTES
    zeros = sources == ZEROS
    goes_on = np.where(zeros[1:], zeros[:-1], ~zeros[:-1] & (source_ends == sources[1:])) & (ends == sectors[1:])
    firsts = np.flatnonzero(np.append(True, ~goes_on))
    return PlannedWrites(sectors[firsts], np.add.reduceat(lengths, firsts), sources[firsts])
