"""The settings of the secondary's brain."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.units import MIB


@dataclass(frozen=True, slots=True)
class SecondaryConfig:
    """Sizes and times that bound the cost of a crash and the use of memory.

    A checkpoint every ``checkpoint_bytes`` of journal or ``checkpoint_seconds`` bounds the replay after a crash;
    ``sync_bytes`` is the most that is written directly before it is made durable and acknowledged. Less than a quarter of
    it is made durable only ``sync_seconds`` after the last sync, because each sync costs a state file as well.
    ``stage_margin_bytes`` must stay free beside a stage, for the stream that goes into it. ``unable``: why this side could not
    become the primary; empty when it could. ``sector_bytes``: the logical block of a target that is a device; 0 for an image
    file. ``accept_sectors``: it may be larger than the source's.
    """

    target_bytes: int
    stage: bool = True
    checkpoint_bytes: int = 512 * MIB
    checkpoint_seconds: float = 5.0
    sync_bytes: int = 32 * MIB
    sync_seconds: float = 0.1
    stage_margin_bytes: int = 64 * MIB
    software: str = "pydbt"
    unable: str = "this secondary cannot become a primary"
    sector_bytes: int = 0
    accept_sectors: bool = False
