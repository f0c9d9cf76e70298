"""Whether the secondary that answers is the one the maps were kept for."""

from __future__ import annotations

from collections.abc import Collection

from pydbt.core.primary.events import Connected


def doubt_about(
    replica: str,
    position: tuple[int, int],
    said: Connected,
    assumed: bool,
    later_epochs: Collection[int] = (),
    unfinished: bool = False,
    progress: int = 0,
) -> str:
    """Why the maps do not tell what differs from this replica, as a sentence; empty when they do.

    ``position`` is (epoch, sequence) of what it acknowledged last; ``assumed`` that the operator vouched for it.
    ``later_epochs`` are those of runs since then: it may have got further in one than its primary lived to know.
    ``unfinished``: it had got blocks of a resynchronization that has not come to its end. ``progress`` is the most that it
    ever told, of a number that grows with everything that becomes durable there; 0 when it never told any.
    """
    epoch, sequence = position
    if not replica:
        return ""
    if said.replica != replica:
        return "this secondary is another replica than the one this volume was replicated to"
    if said.fresh and not assumed:
        return "the secondary starts anew"
    told = progress > 0 and said.progress is not None
    has_less = said.progress is not None and said.progress < progress
    if (said.epoch == epoch and said.sequence < sequence) or has_less:
        return "the secondary went back behind what it had acknowledged"
    # One that tells its progress would have less of it.
    if (
        unfinished
        and not told
        and (said.epoch, said.sequence) == position
        and said.state == "consistent"
        and not said.staged
    ):
        return "the secondary has lost the blocks of a resynchronization that was cut off"
    if epoch and said.epoch not in (epoch, *later_epochs):
        return "the secondary is at a moment that this primary does not know"
    return ""
