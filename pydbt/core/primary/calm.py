"""Whether a secondary's brain has nothing going on, so that the loop may sleep."""

from __future__ import annotations

from math import inf

from pydbt.core.primary.brain import Primary
from pydbt.core.primary.modes import Mode, Phase


def calm_until(brain: Primary) -> float:
    """When something is due although nothing happens; until then records, frames and answers alone bring something new.

    Minus infinity while something goes on that has to be looked at. ``Primary.deadline`` may lie in the past for long; this
    does not without a reason.
    """
    state, link = brain.state, brain.link
    if brain.resync is not None or brain.verifier.current is not None or brain.phase is not Phase.IDLE:
        return -inf
    if not (state.in_flight.certain and state.in_flight.empty):
        return -inf
    due = [brain.settler.deadline(), brain.landing.deadline()]
    if link.up or brain.mode is Mode.UNSYNCHRONIZED:
        due.append(link.deadline())
    if brain.mode not in (Mode.NORMAL, Mode.SNAPSHOTS) and state.replica.scanned:
        due.append(brain.next_merge)
    return min(due)  # in mode normal the heartbeat is due sooner than a flip of the bitmaps
