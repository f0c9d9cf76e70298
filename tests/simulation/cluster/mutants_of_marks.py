"""Ways to break marks, and transactions for a history: each has to be caught by some seed, as those of ``mutants``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pydbt.controller.primary.feed import Feed
from pydbt.controller.secondary.engine import Engine
from pydbt.core.primary.completed_transactions import CompletedTransactions
from pydbt.core.primary.history_events import PlaceMark
from pydbt.core.primary.marks import Marks
from pydbt.core.secondary.replica import Recovery
from pydbt.core.volume import marking


def _held_when_sent(right: Callable, self: Marks) -> None:
    acknowledged, self._state.acknowledged = self._state.acknowledged, self._state.queue.sent_through
    right(self)
    self._state.acknowledged = acknowledged


def _ahead_of_the_last_write(right: Callable, self: Marks, event: object) -> None:
    """It gets its number, and goes out before what was queued before it: as another secondary's place would be."""
    right(self, event)
    unsent = self._state.queue._unsent
    if isinstance(event, PlaceMark) and len(unsent) > 1 and unsent[-2].reading is None and unsent[-2].mark is None:
        mark, last = unsent.pop(), unsent.pop()
        numbers = len(last.records)
        first = replace(
            mark, first_sequence=last.first_sequence, last_sequences=mark.last_sequences * 0 + last.first_sequence,
            mark=replace(mark.mark, sequence=last.first_sequence),
        )  # fmt: skip
        later = replace(last, first_sequence=last.first_sequence + 1, last_sequences=last.last_sequences + 1)
        unsent.extend((first, later) if numbers else (last, mark))


def add(instead: Callable, around: Callable) -> None:
    """To the known ones."""
    around("a mark is held when it is sent", Marks, "advance", _held_when_sent)
    instead("a mark does not wait for the writes before it", Feed, "catch_up", lambda self: self.process())
    around("a mark overtakes the writes before it", Marks, "told", _ahead_of_the_last_write)
    instead("a checkpoint passes marks that are not kept", Engine, "_keep_marks", lambda self, marks: None)
    around(
        "a start passes over the marks in the journal", Recovery, "add",
        lambda right, self, header, epoch, mark=None: right(self, header, epoch),
    )  # fmt: skip
    instead("blocks that are uncertain at a mark do not count", Marks, "uncertain_bytes", 0)
    around(
        "a transaction is whole where it ended, whatever was uncertain", CompletedTransactions, "advance",
        lambda right, self: (setattr(self, "_last", 0), right(self))[1],
    )  # fmt: skip
    instead(
        "a mark whose acknowledgement was lost counts as held",
        marking,
        "_after_a_loss",
        lambda one: marking.Holding.HELD,
    )
