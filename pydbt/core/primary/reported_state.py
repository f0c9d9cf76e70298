"""What a replica may be called at this moment, and what a heartbeat tells its secondary: never more than is acknowledged.

*Up to date* means: everything that was written is durable on the secondary, but for what is no older than a heartbeat that
was answered (``FRESH_S``). A write that is older, or that is younger than the last answer, makes it *consistent*.
"""

from __future__ import annotations

from pydbt.core.primary.link import Link
from pydbt.core.primary.modes import FOLLOWING_MODES, Mode
from pydbt.core.primary.state import State
from pydbt.core.primary.status import PrimaryStatus
from pydbt.core.protocol.frames import Ping
from pydbt.core.protocol.heartbeat import FRESH_S, OUT_OF_SYNC


def behind_since(state: State) -> float | None:
    """Since when there is something that is not on the secondary, or may be something else there; None: there is nothing."""
    times = (state.queue.oldest_arrival(), state.unsettled.oldest_time())
    return min((time for time in times if time is not None), default=None)


def is_fresh(behind_since: float | None, answered_at: float | None, now: float) -> bool:
    """Whether nothing is missing but what a heartbeat allows. ``answered_at``: when the last answered one was sent; None without
    a connection that works."""
    if behind_since is None:
        return True
    return answered_at is not None and now - min(behind_since, answered_at) <= FRESH_S


def told_position(state: State, *, repairing: bool, answered_at: float | None, now: float) -> int:
    """For a PING: the number of the last write that the replica needs to be what the volume is; or ``OUT_OF_SYNC``.

    Behind a queue that stands the PING arrives late, so that nothing is told then. ``answered_at``: as of ``is_fresh``.
    """
    unsettled = state.unsettled.oldest_time()
    doubtful = bool(state.taints) or state.unwritten.waits
    doubtful |= repairing or (unsettled is not None and now - unsettled > FRESH_S)
    doubtful |= len(state.unreadable) > 0 or not is_fresh(behind_since(state), answered_at, now)
    return state.sequence if state.mode is Mode.NORMAL and not doubtful else OUT_OF_SYNC


def heartbeat(state: State, link: Link, *, repairing: bool, now: float) -> Ping:
    """The next question, which tells the secondary what it needs to call itself up to date, and when that was so."""
    answered_at = None if link.silence(now) else link.answered_at
    position = told_position(state, repairing=repairing, answered_at=answered_at, now=now)
    return Ping(link.next_token(now), position, *(link.since_answer(now) or ()))


def reported_state(status: PrimaryStatus, lag_seconds: float | None, out_of_sync_bytes: int) -> str:
    """``inconsistent``, ``outdated``, ``consistent`` or ``up-to-date``. ``out_of_sync_bytes``: with the kernel's bitmaps."""
    normal = status.mode is Mode.NORMAL
    if (status.taints and status.mode in FOLLOWING_MODES) or (normal and status.repairing):
        return "inconsistent"
    if status.unwritable.total():
        return "inconsistent"
    if status.mode is Mode.SNAPSHOTS and status.replica_state == "consistent":
        return "up-to-date" if status.fresh and not out_of_sync_bytes and not lag_seconds else "consistent"
    if not normal or status.replica_state == "inconsistent":
        return status.replica_state
    return "up-to-date" if status.fresh and not status.unreadable.total() else "consistent"
