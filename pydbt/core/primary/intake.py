"""Capture records taken in (Fig. 4, 410-418): numbers for write requests, and whether the log can have all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.events import Captured
from pydbt.core.primary.state import State
from pydbt.core.tracking.capture_record import RecordFlag, RecordKind, Records
from pydbt.core.tracking.in_flight import InFlightReport
from pydbt.core.tracking.replica_queue import Segment, updates_of

# The clock of the records is that of the events: CLOCK_MONOTONIC.
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Taken:
    """One batch of records. ``segment``: its write requests, with their numbers; ``is_write``: which records these are;
    ``newly_lost``: records that found no room. ``since``: when the first record of all was made."""

    segment: Segment
    report: InFlightReport
    newly_lost: int
    is_write: npt.NDArray[np.bool_]
    since: float

    def written(self, state: State) -> Runs:
        """The blocks of each write request, as a run."""
        records = self.segment.records
        return Runs.of_sectors(records["sector"], records["sectors"], state.geometry)


def take_in(state: State, event: Captured, now: float) -> Taken:
    """Number the write requests of a batch, and count what is in flight."""
    records = event.records
    state.position = event.position
    newly_lost = event.lost - state.lost
    state.lost = event.lost
    report = state.in_flight.apply(records)
    is_write = (records["kind"] == RecordKind.SUBMIT) & (records["sectors"] > 0)
    writes = records[is_write]
    first_sequence = state.sequence + 1
    last_sequences = state.sequence + np.cumsum(updates_of(writes)) if len(writes) else np.empty(0, np.int64)
    if state.config.completed_first:
        firsts = np.concatenate(([first_sequence], last_sequences[:-1] + 1))[: len(writes)]
        state.uncompleted.apply(records, is_write, firsts)
    state.left_out.written(writes)
    if len(writes):
        state.sequence = int(last_sequences[-1])
        state.statistics.captured(writes)
    segment = Segment(writes, last_sequences, first_sequence, _made_at(writes, now))
    return Taken(segment, report, newly_lost, is_write, _made_at(records, now))


def _made_at(records: Records, now: float) -> float:
    """When the first of them was made: the ring may have lain unread for a while."""
    stamped_ns = records["time_ns"][records["time_ns"] > 0]
    return min(now, float(stamped_ns.min()) / NANOSECONDS) if len(stamped_ns) else now


def unloggable(state: State, taken: Taken, too_many_unsettled: bool) -> str:
    """Why the log cannot have all of a batch; empty when it can, as far as the records tell."""
    writes = taken.segment.records
    if taken.newly_lost:
        return f"{taken.newly_lost} records are missing: the ring had no room, or the kernel did not run the program"
    if len(writes) and bool((writes["flags"] & RecordFlag.NO_PAYLOAD).any()):
        return "a write's data found no room in the ring"
    if taken.report.unmatched.total() and state.in_flight.certain:
        return "a write completed that capture had not seen submitted"
    if state.config.completed_first and taken.report.failed.total():
        return "a write failed, and the secondary is not to have it before the disk has"
    if too_many_unsettled:
        return "more blocks have an uncertain content than are worth reading singly"
    return ""
