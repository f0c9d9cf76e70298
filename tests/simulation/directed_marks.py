"""Stories of marks for mutants that worlds drawn at random show too rarely; see ``directed``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pydbt.core.primary import events as ev
from pydbt.core.primary.mark_events import AnswerMark, MarkAsked, MarkOutcome
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.secondary import events as e
from pydbt.core.volume.fanout import Addressed
from tests.core.secondary.test_brain import EPOCH, HELLO, Play, stream
from tests.core.volume.test_fanout_marks import WANTED, captured, frames, volume


def outcomes(effects: list[Addressed]) -> list[MarkOutcome]:
    return [effect.outcome for _, effect in effects if isinstance(effect, AnswerMark)]


def a_mark_has_one_place_for_all_secondaries() -> None:
    """A write is captured right behind it."""
    made = volume()
    captured(made, 3, position=64)
    effects = [*made.handle(MarkAsked(1, WANTED), 0.0), *captured(made, 4, position=128)]
    found = frames(effects)
    assert found[1] == found[2] == [2, ("write", 3)], f"the mark is at other places: {found}"


def a_mark_waits_for_uncertain_blocks_and_counts_those_that_are_left() -> None:
    """Two writes raced, and nobody knows yet which of them the disk has."""
    made = volume()
    for brain in made.brains.values():
        brain.state.unsettled.add(np.array([3]), 0, 0.0)
    assert not frames(made.handle(MarkAsked(1, WANTED), 0.0)), "it is set while a block is uncertain"
    marks = [
        effect.frame for _, effect in made.handle(ev.Tick(), 5.0)
        if isinstance(effect, ev.SendFrame) and hasattr(effect.frame, "uncertain_bytes")
    ]  # fmt: skip
    assert [mark.uncertain_bytes for mark in marks] == [4096, 4096]


def a_mark_that_was_not_acknowledged_is_not_called_held() -> None:
    """The connection is lost while it is on its way."""
    made = volume()
    made.handle(MarkAsked(1, WANTED), 0.0)
    told = [*made.handle(ev.Disconnected("cable"), 0.0, 1), *made.handle(ev.Disconnected("cable"), 0.0, 2)]
    assert outcomes(told) == [MarkOutcome.DOUBTFUL]


def an_image_of_another_run_is_not_said_to_have_everything_before_a_mark() -> None:
    """The primary lost power behind a mark, with what it had not flushed; its next run resynchronizes the secondary."""
    play = Play()
    (append,) = play.frame(stream(11, 12), e.Append)
    play(e.JournalDurable((append.ticket,), (5000,)))
    (append,) = play.frame(NamedMark(13, 9, "before migration 14", 0, 0, synced=True), e.Append)
    play(e.JournalDurable((append.ticket,), (5200,)))
    keeper = play.brain.keeper
    (told,) = keeper.marks.report(keeper.epoch)
    assert not told.resynchronized
    later = Play(keeper.record, hello=replace(HELLO, epoch=EPOCH + 1))
    later.brain.keeper.marks = keeper.marks
    later(e.RoomMeasured(1 << 40))
    (begin,) = later.frame(f.Begin(1, EPOCH + 1, 0), e.Append)
    later(e.JournalDurable((begin.ticket,), (300,)))
    (commit,) = later.frame(f.Commit(1, 5), e.Append)
    later(e.JournalDurable((commit.ticket,), (400,)))
    keeper = later.brain.keeper
    (told,) = keeper.marks.report(keeper.epoch)
    assert keeper.epoch == EPOCH + 1 and told.resynchronized, "what was lost may have been written before the mark"


STORIES = {
    "a mark from before a loss of power is told as held": an_image_of_another_run_is_not_said_to_have_everything_before_a_mark,
    "a mark is set for one secondary after the other": a_mark_has_one_place_for_all_secondaries,
    "blocks that are uncertain at a mark do not count": a_mark_waits_for_uncertain_blocks_and_counts_those_that_are_left,
    "a mark whose acknowledgement was lost counts as held": a_mark_that_was_not_acknowledged_is_not_called_held,
}
