"""Which blocks the last updates of the stream were to, as a secondary remembers it.

A primary that has to compare everything asks for them: after a power loss its disk lacks some of these. Nothing rests on
the answer, which only tells where to look first.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.blocks.runs import Runs
from pydbt.core.protocol.frame_checks import check_u64
from pydbt.core.protocol.unit_rows import COMPARED_UNITS_BYTES, check_units, same_units

RECENT_WRITES = "recent-writes"
"""In WELCOME's features: the secondary understands a RECALL frame, and answers it with RECENT."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Asks for the blocks that were written last, of at most this length together. Answered by RECENT."""

    limit_bytes: int

    def __post_init__(self) -> None:
        check_u64("limit_bytes", self.limit_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class Recent:
    """Units that the last updates of the stream were to, the latest first, each once. Not all of them, and perhaps none."""

    units: Runs
    unit_bytes: int

    def __post_init__(self) -> None:
        if self.unit_bytes not in COMPARED_UNITS_BYTES:
            raise ValueError(f"units of {self.unit_bytes} bytes are told to be written last")
        check_units(self.units)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recent) and self.unit_bytes == other.unit_bytes and same_units(self.units, other.units)
