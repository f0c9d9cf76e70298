"""The transactions that have completed, on their way into the stream of one secondary: for a history of the replica.

Each is told at its place, behind the updates from which on an image holds it. They go out ahead of the next update, so that they
cost the secondary no sync of their own, or after a while without one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from pydbt.core.primary.intake import NANOSECONDS
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.primary.state import State
from pydbt.core.primary.transaction_events import SendCompleted
from pydbt.core.protocol.completed import COMPLETED_DTYPE, MAX_COMPLETED, LoggedFileSystem
from pydbt.core.tracking.in_flight import InFlightReport
from pydbt.core.transactions.asked_transaction import AskedTransaction

TELL_WITHIN_S = 1.0
_Row = tuple[int, int, int, int, int, int, int, int, int]


class CompletedTransactions:
    """Told what ends and completes, and looked at after every event and when the stream is sent."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._completed: deque[NamedTransaction] = deque()
        self._rows: deque[_Row] = deque()
        self._since = 0.0  # when the first of the rows came
        self._last = self._uncertain_through = 0  # ordinals

    def ended(self, transactions: Sequence[NamedTransaction], report: InFlightReport) -> None:
        """These are in the log, since a batch in which this was found."""
        if transactions:
            self._last = transactions[-1].ordinal
        if any(runs.total() for runs in (report.overlapped, report.failed, report.unstable)):
            self._uncertain_through = self._last

    def completed(self, transactions: Sequence[NamedTransaction]) -> None:
        """Their commits have completed, in this order."""
        if self._state.replica.keeps_history:
            self._completed.extend(transactions)

    def forget(self) -> None:
        """The stream was given up, or the file system is another one."""
        self._completed.clear()
        self._rows.clear()

    def advance(self) -> None:
        """Which of them an image holds, from which update on."""
        state = self._state
        oldest = state.unsettled.oldest_sequence()
        if oldest is not None:
            self._uncertain_through = self._last
        if state.mode is not Mode.NORMAL:
            self.forget()
            return
        waiting = self._completed
        while waiting and (oldest is None or waiting[0].batch_end < oldest):
            one = waiting.popleft()
            # Where a block was uncertain since it ended, its own place may be too early.
            whole_from = state.sequence if one.ordinal <= self._uncertain_through else one.sequence
            if not self._rows:
                self._since = state.now
            self._rows.append(_row(one, whole_from))

    def tell_before(self, sequence: int) -> None:
        """The update of this number is sent next."""
        self._tell(sequence - 1)

    def tell_at_the_end(self) -> None:
        """Nothing more is to be sent now."""
        if self._rows and self._state.now - self._since >= TELL_WITHIN_S and self._state.queue.all_sent:
            self._tell(self._state.queue.sent_through)

    def _tell(self, after: int) -> None:
        rows: list[_Row] = []
        while self._rows and self._rows[0][2] <= after and len(rows) < MAX_COMPLETED:
            rows.append(self._rows.popleft())
        if rows:
            self._state.effects.add(SendCompleted(after, np.array(rows, COMPLETED_DTYPE)))


def _row(one: NamedTransaction, whole_from: int) -> _Row:
    named = AskedTransaction.parse(one.name)
    kind = LoggedFileSystem.XFS if named.file_system == "xfs" else LoggedFileSystem.EXT4
    submitted_ns = 0 if one.submitted_at is None else round(one.submitted_at * NANOSECONDS)
    return (
        one.number,
        one.sequence,
        whole_from,
        submitted_ns,
        max(0, one.committed_ns or 0),
        named.fast or 0,
        kind,
        0,
        0,
    )
