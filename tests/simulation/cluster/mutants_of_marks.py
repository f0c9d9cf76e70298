"""Ways to break marks, and transactions for a history: each has to be caught by some seed, as those of ``mutants``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pydbt.controller.primary.feed import Feed
from pydbt.controller.secondary.engine import Engine
from pydbt.core.primary.mark_events import PlaceMark
from pydbt.core.primary.marks import Marks
from pydbt.core.secondary.held_marks import HeldMark
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.volume import marking
from pydbt.core.volume.marking import Decision, Marking, Placed


def _held_when_sent(right: Callable, self: Marks) -> None:
    acknowledged, self._state.acknowledged = self._state.acknowledged, self._state.queue.sent_through
    right(self)
    self._state.acknowledged = acknowledged


def _one_after_the_other(right: Callable, self: Marking, brains: object, now: float) -> list[Decision]:
    made, self._late = list(getattr(self, "_late", [])), []
    for decision in right(self, brains, now):
        if isinstance(decision, Placed) and isinstance(decision.event, PlaceMark) and len(decision.peers) > 1:
            self._late.append(replace(decision, peers=decision.peers[1:]))
            decision = replace(decision, peers=decision.peers[:1])
        made.append(decision)
    return made


def add(instead: Callable, around: Callable) -> None:
    """To the known ones."""
    around("a mark is held when it is sent", Marks, "advance", _held_when_sent)
    instead(
        "a mark from before a loss of power is told as held", HeldMark, "in_image_of", lambda self, image_epoch: True,
    )  # fmt: skip
    instead("a mark does not wait for the writes before it", Feed, "catch_up", lambda self: self.process())
    around("a mark is set for one secondary after the other", Marking, "advance", _one_after_the_other)
    instead("a checkpoint passes marks that are not kept", Engine, "_keep_marks", lambda self, marks: None)
    around(
        "a start passes over the marks in the journal", Recovery, "add",
        lambda right, self, header, epoch, mark=None: right(self, header, epoch),
    )  # fmt: skip
    instead("blocks that are uncertain at a mark do not count", Marks, "uncertain_bytes", 0)
    instead(
        "a mark whose acknowledgement was lost counts as held",
        marking,
        "_after_a_loss",
        lambda one: marking.Holding.HELD,
    )
