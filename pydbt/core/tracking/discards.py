"""Discarded blocks: what a device returns of them is its own affair, unless it promises zeros.

The replica has zeros there. A device that keeps whole chunks alone (dm-thin) ignores the ragged ends of a discard; others
return what they like. Then only a read tells what the source has, and what nobody reads matters to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.tracking.capture_record import Operation, Records
from pydbt.core.units import SECTOR_BYTES, Geometry


@dataclass(frozen=True, slots=True)
class DiscardPromise:
    """What a device returns of discarded sectors: zeros of whole grains of ``grain_bytes``, or (0) anything at all.

    The volume begins ``offset_bytes`` behind the beginning of a grain.
    """

    grain_bytes: int = SECTOR_BYTES
    offset_bytes: int = 0


ALWAYS_ZEROS = DiscardPromise()
"""Every discarded sector reads as zeros."""


def discarded_in_doubt(records: Records, promise: DiscardPromise, geometry: Geometry) -> Runs:
    """Of a batch of write requests, the blocks that were discarded and may not read as zeros."""
    op = records["op"]
    discards = records[(op == Operation.DISCARD) | (op == Operation.SECURE_ERASE)]
    if not len(discards):
        return Runs.none()
    sectors, lengths = discards["sector"].astype(np.int64), discards["sectors"].astype(np.int64)
    firsts, ends = Runs.of_sectors(discards["sector"], discards["sectors"], geometry)
    ends = firsts + ends
    if not promise.grain_bytes:
        return Runs.of_ranges(firsts, ends)
    grain, offset = promise.grain_bytes // SECTOR_BYTES, promise.offset_bytes // SECTOR_BYTES
    whole_from = -(-(sectors + offset) // grain) * grain - offset
    whole_to = np.maximum((sectors + lengths + offset) // grain * grain - offset, whole_from)
    # Blocks that lie, as far as they were discarded, in whole grains.
    sure_from = np.where(whole_from <= sectors, firsts, -(-whole_from // geometry.block_sectors))
    sure_to = np.where(whole_to >= sectors + lengths, ends, whole_to // geometry.block_sectors)
    sure_from, sure_to = np.minimum(sure_from, ends), np.maximum(sure_to, firsts)
    none_sure = sure_to <= sure_from
    heads = np.where(none_sure, ends, sure_from)
    tails = np.where(none_sure, ends, sure_to)
    return Runs.of_ranges(np.concatenate((firsts, tails)), np.concatenate((heads, ends)))
