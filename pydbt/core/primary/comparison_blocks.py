"""Which blocks a comparison looks at, and in which of them a difference counts.

A taint stands for a write that no program saw, and a file system writes to free space as a rule: to blocks that the first copy
left out, and that nothing has shown to be written since. So what was free then says nothing. What is free now counts for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.events import UsedBlocks


@dataclass(frozen=True, slots=True)
class ComparisonBlocks:
    """``runs`` are compared. ``free`` are counted as left out from now on, and ``in_use`` are no longer."""

    runs: Runs
    free: Runs
    in_use: Runs


def blocks_to_compare(
    within: Runs, left_out: Runs, used: UsedBlocks, *, untold: bool, tainted: bool, free_too: bool
) -> ComparisonBlocks:
    """``within`` bounds the comparison. ``left_out`` was not given to the secondary; ``untold``: an earlier version has left free
    space out, and did not write down where.

    ``used`` are the blocks in use now, found after the taints came up. Where no file system tells, every block is compared, and
    a difference in one that was left out may still be none. ``tainted``: the comparison answers a taint. ``free_too``: free space
    is compared as well.
    """
    if used.whole:
        return ComparisonBlocks(within, Runs.none(), Runs.none())
    in_use = Runs.of_ranges(used.runs.firsts, used.runs.ends())
    free = within.minus(in_use)
    skipped = Runs.none() if free_too else free if untold else left_out.minus(in_use)
    return ComparisonBlocks(within.minus(skipped), free if untold else Runs.none(), in_use if tainted else Runs.none())
