"""The marks of one secondary: each takes the next number of the stream, and is held when that number is acknowledged."""

from __future__ import annotations

from collections import deque

import numpy as np

from pydbt.core.primary.mark_events import MarkComing, MarksLeft, MarksTold, PlaceMark, Unable
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.state import State
from pydbt.core.tracking.capture_record import empty_records
from pydbt.core.tracking.replica_queue import Segment

AWAITED_S = 2.0
"""A mark that waits hurries uncertain blocks for this long: most are read and compared within some tenths of a second."""


class Marks:
    """Told where one is to be set, and looked at after every event."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._waiting: deque[tuple[int, int]] = deque()  # number of the mark, and its sequence number
        self._awaited_until = 0.0

    def problem(self) -> Unable | None:
        """Why no mark can be set now; None when one can."""
        state = self._state
        if state.config.snapshot_interval_s is not None:
            return Unable("only addresses are captured, so that writes have no order there", lasting=True)
        if state.mode is not Mode.NORMAL:
            return Unable(
                f"writes have an order in mode normal alone, and it is in mode {state.mode} (--wait waits for that)"
            )
        if not state.replica.keeps_history:
            return Unable("its secondary is of an earlier version, which knows no marks", lasting=True)
        if state.told_taints:
            taint = state.told_taints[0]
            return Unable(
                f"writes may have been missed ({taint}), until everything in use was compared (--wait waits for that)"
            )
        return None

    @property
    def is_sure(self) -> bool:
        """Whether the secondary's image is what it acknowledged, and that is what the volume had."""
        return not self._state.told_taints and self._state.replica.state != "inconsistent"

    @property
    def certain(self) -> bool:
        """Whether it is known which writes are in flight."""
        return self._state.in_flight.certain

    @property
    def uncertain_bytes(self) -> int:
        """Blocks of which the replica may have another content here than the volume, in bytes."""
        state = self._state
        return (len(state.unsettled) + len(state.unreadable)) * state.geometry.block_bytes

    @property
    def awaited(self) -> bool:
        """Whether a mark waits for blocks that are uncertain."""
        return self._state.now < self._awaited_until

    def told(self, event: PlaceMark | MarkComing) -> None:
        """A mark waits; or it is set behind every update so far, and ahead of all that are still to come."""
        state = self._state
        if isinstance(event, MarkComing):
            self._awaited_until = state.now + AWAITED_S
            return
        state.sequence += 1
        mark = event.mark.at(state.sequence, event.uncertain_bytes)
        numbers = np.array([state.sequence])
        state.queue.append(Segment(empty_records(), numbers, state.sequence, state.now, mark=mark))
        self._waiting.append((mark.number, mark.sequence))

    def advance(self) -> None:
        """After every event: which marks are held."""
        state, waiting = self._state, self._waiting
        if not waiting:
            return
        if state.mode is not Mode.NORMAL:
            waiting.clear()
            state.effects.add(MarksLeft())
            return
        held = []
        while waiting and waiting[0][1] <= state.acknowledged:
            held.append(waiting.popleft()[0])
        if held:
            state.effects.add(MarksTold(tuple(held)))
