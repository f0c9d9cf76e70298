"""What a read brought, and what becomes of the blocks that it could not read."""

from __future__ import annotations

from pydbt.core.primary.events import BlocksRead, DropReading
from pydbt.core.primary.state import State


def failed_as_a_whole(state: State, event: BlocksRead) -> bool:
    """Whether nothing of a read is used: it failed, or more blocks cannot be read than a disk has bad sectors."""
    count = event.unreadable.total()
    if not event.error or (count and state.unreadable.has_room(count)):
        return False
    if count:  # the others are in memory
        state.effects.add(DropReading(event.reading))
    return True


def set_apart(state: State, event: BlocksRead, now: float) -> None:
    """Blocks that a read could not read are out of sync from here on; the others were read, and are not."""
    new = state.unreadable.add(event.unreadable.blocks(), now)
    if new:
        size = new * state.geometry.block_bytes
        state.effects.log(
            "error",
            f"{event.error}; {size} bytes of the source cannot be read: they stay out of sync, and everything else goes on",
        )
