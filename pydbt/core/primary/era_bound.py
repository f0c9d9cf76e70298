"""What must be compared after writes that no program saw, where the kernel keeps write-intent under the volume (dm-era).

dm-era numbers spans of time (*eras*) and records durably, before a write goes through, that its region was written in the
present one. So a map and an era say everything about a replica:

    *blocks that differ* ⊆ the map ∪ regions written in that era or later.

That has to hold after a power loss, which takes from the primary what its disk had only in its cache, and from this program
all it knew. Hence the order of a ``Checkpoint``:

1. a new era begins, and is durable: what comes to the device from now on is of this era, or of a later one;
2. every write submitted before that moment has been taken in (its record was drained); what of it has not completed is noted;
3. the source is flushed: what had completed by 2 survives. A secondary may have it already; now both have it for good;
4. the map is made: what the secondary has not acknowledged, what is unsettled, and what was noted in 2;
5. map and era replace the last ones, in one file and at once. A crash before that finds those, which are as true as ever.

A replica may be ahead as well: it may not hold a write that dm-era has not recorded, or nobody would compare there. So no write
is sent to it before it has completed; see ``core/tracking/uncompleted``.

Only regions are recorded, and only the first one of a discard: a device that lets discards through tells too little.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Integers, Runs
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.state import State
from pydbt.core.units import Geometry

# The kernel counts eras in 32 bits.
MAX_ERA = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Intent:
    """What is remembered beside a map. ``replica`` is whom it was kept for, ``metadata`` which record of eras ``era`` is one of,
    each as 32 hexadecimal digits; ``region_bytes`` is what the kernel records as one."""

    replica: str
    metadata: str
    region_bytes: int
    era: int

    def __post_init__(self) -> None:
        if not 0 < self.era <= MAX_ERA:
            raise ValueError(f"era {self.era} is none of 1 to {MAX_ERA}")
        if self.region_bytes <= 0 or self.region_bytes % 512:
            raise ValueError(f"a region of {self.region_bytes} bytes is no number of sectors")


@dataclass(frozen=True, slots=True)
class Eras:
    """What the device says now: which record of eras it keeps, in regions of ``region_bytes``, and the present era."""

    metadata: str
    region_bytes: int
    era: int


def why_everything(kept: Intent | None, present: Eras, replica: str, other_taints: Collection[str]) -> str:
    """Why the remembered era does not bound what differs from ``replica``, as part of a sentence; empty when it does.

    ``other_taints`` are what the volume is tainted with besides writes that no program saw.
    """
    if other_taints:
        return f"it is tainted besides ({'; '.join(other_taints)})"
    if kept is None:
        return "no era was remembered since the replica was last in sync"
    if kept.replica != replica:
        return "the era that was remembered was that of another replica"
    if kept.metadata != present.metadata:
        return "the era metadata are others than those of the remembered era"
    if kept.region_bytes != present.region_bytes:
        return f"the era metadata are kept in regions of {present.region_bytes} bytes, and were in {kept.region_bytes}"
    if present.era < kept.era:
        return f"the device is at era {present.era} and had come to era {kept.era}: its metadata were set back"
    return ""


def region(written: Integers, region_bytes: int, kept: DirtyMap, geometry: Geometry) -> DirtyMap:
    """The blocks to compare: those of the kept map, and those of the regions that were written.

    ``written`` has a row for each run of regions, its first and the one behind its last. ValueError when one lies outside the
    volume: then it is not this volume's record.
    """
    compared = kept.copy()
    if not len(written):
        return compared
    firsts, ends = written[:, 0].astype(np.int64), written[:, 1].astype(np.int64)
    if (firsts < 0).any() or (ends <= firsts).any() or ends.max() > -(-geometry.size_bytes // region_bytes):
        raise ValueError("regions outside the volume are said to be written")
    first_blocks = firsts * region_bytes // geometry.block_bytes
    end_blocks = np.minimum(-(-(ends * region_bytes) // geometry.block_bytes), geometry.block_count)
    compared.set_extents(first_blocks, end_blocks - first_blocks)
    return compared


class Bounded(Protocol):
    """What a checkpoint asks the brain of a secondary."""

    @property
    def state(self) -> State: ...

    @property
    def quiet(self) -> QuietBitmap: ...

    def out_of_sync_map(self) -> DirtyMap: ...


class Checkpoint:
    """One attempt to remember ``era``, which has just begun. ``position`` is the ring's end at a moment after that.

    Tell it of the brains until ``taken_in``, flush the source, then ask for the maps; all of it in the loop's thread, between
    two events.
    """

    def __init__(self, era: int, position: int) -> None:
        self.era = era
        self._position = position
        self._flying: dict[int, Runs] = {}

    def taken_in(self, brains: Mapping[int, Bounded]) -> bool:
        """Whether every write of earlier eras is known; then those in flight are noted, and the source is to be flushed."""
        if not all(
            brain.state.position_reached(self._position) and brain.state.in_flight.certain for brain in brains.values()
        ):
            return False
        self._flying = {number: brain.state.in_flight.extents() for number, brain in brains.items()}
        return True

    def map_of(self, number: int, brain: Bounded, in_kernel: Sequence[npt.NDArray[np.uint64]]) -> DirtyMap | None:
        """After the flush: the map to keep with the era; None when nothing can be said of this secondary now.

        ``in_kernel`` are the words of the kernel's bitmaps.
        """
        if number not in self._flying or not can_be_remembered(brain):
            return None
        combined = brain.out_of_sync_map()
        combined.set_extents(*self._flying[number])
        if (
            brain.state.mode is not Mode.NORMAL
        ):  # in normal mode the log has all that they name and that is not acknowledged
            for words in in_kernel:
                combined.merge_words(words)
        return combined


def can_be_remembered(brain: Bounded) -> bool:
    """Whether a map tells all that differs from this secondary: it was in sync once, and nothing taints that.

    While blocks are on their way in a resynchronization it is not asked: what was remembered before it began is still true.
    """
    known = (
        bool(brain.state.replica.identifier)
        and brain.state.replica.scanned
        and brain.quiet.mapped
        and not brain.state.replica.initial
    )
    return known and not brain.state.taints and brain.state.phase is Phase.IDLE
