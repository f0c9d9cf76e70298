"""What the secondary's brain must be told once."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.units import MIB


@dataclass(frozen=True, slots=True)
class SecondaryConfig:
    """Sizes and times that bound what a crash costs and what memory is used.

    A checkpoint every ``checkpoint_bytes`` of journal or ``checkpoint_seconds`` bounds the replay after a crash;
    ``sync_bytes`` is what may be written directly before it is made durable and acknowledged; less than a quarter of it
    only ``sync_seconds`` after the last time, for each time costs a state file as well;
    ``stage_margin_bytes`` must stay free beside a stage, for the stream that goes into it.
    """

    target_bytes: int
    stage: bool = True
    checkpoint_bytes: int = 512 * MIB
    checkpoint_seconds: float = 5.0
    sync_bytes: int = 32 * MIB
    sync_seconds: float = 0.1
    stage_margin_bytes: int = 64 * MIB
    software: str = "pydbt"
