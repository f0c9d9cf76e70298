"""When the primary may trust its count of writes in flight, and what it does about completions that never show.

The count comes from capture records. It is unknown after an attach and after lost records, until the device
was seen idle. And a completion may never show: on one machine no program ran while an interrupt ended
requests on top of a certain task, uncounted by the kernel. Such a write would seem in flight for ever, and a
block that was read before it ended would seem in sync. So what stays in flight on an idle device, or for longer than any
request may last, is taken to have ended unseen, and its blocks are read again.
"""

from __future__ import annotations

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.state import State

# Requests of the block layer time out after 30 s: nothing older is in flight. A request that does complete later is
# noticed all the same, because its completion matches no submission. A bio is not: unknown bios also complete as parts of others.
LONGEST_FLIGHT_S = 35.0
# Records that were on their way to the ring when the count was lost have arrived after this long.
UNCERTAIN_AT_LEAST_S = 0.05
# What was in flight, and is gone by the kernel's count this long after, has ended unseen. Not sooner: a request that waits for
# room in its queue is not counted yet, nor is one whose task lost the processor between the trace and the queue, which on one
# busy processor takes longer than a tenth of a second. (To trust the count again after lost records one look is enough: a
# completion of a request that was not counted then matches no submission, and is noticed.)
IDLE_AGAIN_S = 1.0


class FlightWatch:
    """Keeps ``state.in_flight`` true. What it returns are blocks whose writes ended unseen: they must be read again."""

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self._uncertain_since = now
        self._idle_position: int | None = None
        self._waiting_since: float | None = None
        self._waiting_for = 0  # the last sequence number when that began

    def lose_sight(self, now: float) -> None:
        """Records were lost: nobody knows what is in flight, and which of what was has completed."""
        self._state.mark_in_flight_pending()
        self._state.in_flight.reset()
        self._state.uncompleted.clear()  # the log is full with this: nothing stays in the queue
        self._uncertain_since, self._idle_position, self._waiting_since = now, None, None

    def disk_idle(self, position: int, now: float) -> Runs:
        """The kernel counted no write in flight when ``position`` was the ring's end."""
        if not self._state.in_flight.certain:
            if now - self._uncertain_since > UNCERTAIN_AT_LEAST_S:
                self._idle_position = position
        elif self._waiting_since is None:
            self.begin_waiting(now)
        elif now - self._waiting_since > IDLE_AGAIN_S and self._state.position_reached(position):
            return self._forget_unseen()
        return Runs.none()

    def begin_waiting(self, now: float) -> None:
        """From here on, everything in flight now is waited for."""
        self._state.in_flight.begin_wait()
        self._waiting_since, self._waiting_for = now, self._state.sequence

    def advance(self, now: float) -> Runs:
        """Trust the count again after an idle instant; give up on completions that do not show."""
        in_flight = self._state.in_flight
        if not in_flight.certain:
            idle = self._idle_position is not None and self._state.position_reached(self._idle_position)
            if idle or now - self._uncertain_since > LONGEST_FLIGHT_S:
                in_flight.trust()
                self._idle_position = None
        elif self._waiting_since is None:
            if not in_flight.empty:
                self.begin_waiting(now)
        elif in_flight.wait_done:
            self._waiting_since = None
        elif now - self._waiting_since > LONGEST_FLIGHT_S:
            return self._forget_unseen()
        return Runs.none()

    def _forget_unseen(self) -> Runs:
        self._waiting_since = None
        unseen = self._state.in_flight.forget_waited()
        self._state.uncompleted.forget(self._waiting_for)
        return unseen
