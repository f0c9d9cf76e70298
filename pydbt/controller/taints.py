"""What makes a volume tainted: writes that capture itself says it cannot vouch for."""

from __future__ import annotations

from pydbt.kernel.capture import Counters


def taints_of(counters: Counters) -> list[str]:
    """What capture itself says it cannot vouch for, one sentence each."""
    found = []
    if counters.unknown_ops:
        found.append("a write of a kind whose blocks capture does not know")
    if counters.passthrough:
        found.append("a command that went to the disk past the block layer")
    if counters.recursion_misses:
        found.append("a write that the kernel did not show, because a program interrupted itself")
    return found
