"""Whether the secondary that answers is the one the maps were kept for."""

from __future__ import annotations

from collections.abc import Collection

from pydbt.core.primary_events import Connected


def doubt_about(
    replica: str,
    position: tuple[int, int],
    said: Connected,
    assumed: bool,
    later_epochs: Collection[int] = (),
    unfinished: bool = False,
) -> str:
    """Why the maps do not tell what differs from this replica, as a sentence; empty when they do.

    ``position`` is (epoch, sequence) of what it acknowledged last; ``assumed`` that the operator vouched for it.
    ``later_epochs`` are those of runs since then: it may have got further in one than its primary lived to know.
    ``unfinished``: it had got blocks of a resynchronization that has not come to its end.
    """
    epoch, sequence = position
    if not replica:
        return ""
    if said.replica != replica:
        return "this secondary is another replica than the one this volume was replicated to"
    if said.fresh and not assumed:
        return "the secondary starts anew"
    if said.epoch == epoch and said.sequence < sequence:
        return "the secondary went back behind what it had acknowledged"
    if unfinished and (said.epoch, said.sequence) == position and said.state == "consistent" and not said.staged:
        return "the secondary has nothing of what it had got of a resynchronization"
    if epoch and said.epoch not in (epoch, *later_epochs):
        return "the secondary stands at another time than the one it had come to"
    return ""
