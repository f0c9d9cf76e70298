"""Marks and transactions at the secondary's brain, with primaries of this version and of earlier ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.completed import COMPLETED_DTYPE, Completed
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.protocol.stream_times import StreamTimes
from pydbt.core.secondary import events as e
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.held_marks import HeldMarks
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import AppliedPoint
from tests.core.secondary.test_brain import ADOPTED, EPOCH, HELLO, SIZE, Play, stream

ASKS = replace(HELLO, features=(*HELLO.features, f.MARKS))
KEPT = HeldMarks().with_mark(NamedMark(3, 7, "kept", 0, 0, synced=True), EPOCH)


def mark(sequence: int, number: int = 9) -> NamedMark:
    return NamedMark(sequence, number, "before migration 14", 0, 0, synced=True)


def completed(after: int) -> Completed:
    return Completed(after, 0, np.array([(1, after, after, 0, 0, 0, 1, 0, 0)], COMPLETED_DTYPE))


def timed(first: int, last: int) -> f.Stream:
    return replace(stream(first, last), times=StreamTimes(0, np.zeros(last - first + 1, np.uint64)))


def streaming(hello: f.Hello = HELLO) -> Play:
    play = Play(hello=hello)
    (append,) = play.frame(stream(11, 12), e.Append)
    play(e.JournalDurable((append.ticket,), (5000,)))
    return play


def test_a_mark_is_acknowledged_when_it_is_durable_and_its_number_is_the_next_of_the_stream() -> None:
    play = streaming()
    (append,) = play.frame(mark(13), e.Append)
    assert not play.brain.keeper.marks.numbers
    acks = play.acks(e.JournalDurable((append.ticket,), (5200,)))
    assert [ack.sequence for ack in acks] == [13] and play.brain.keeper.marks.numbers == (9,)
    (append,) = play.frame(stream(14, 14), e.Append)
    assert isinstance(append.entry, f.Stream)


def test_a_mark_behind_another_update_than_it_names_breaks_the_protocol() -> None:
    for frame in (mark(14), completed(13)):
        play = streaming()
        refusal = play.frame(frame, e.Send)[0].frame
        assert isinstance(refusal, f.Refuse) and refusal.code == "protocol"
    play = streaming()
    assert not play.frame(mark(12), e.Append) and not play.frame(completed(11), e.Append), "the image has them"


@pytest.mark.parametrize("frame", [mark(11), completed(10)])
def test_before_the_stream_and_inside_of_a_resynchronization_there_is_no_order_to_mark(
    frame: NamedMark | Completed,
) -> None:
    for begin in (None, f.Begin(1, EPOCH, 0)):
        play = Play()
        if begin is not None:
            play(e.RoomMeasured(1 << 30))
            play.frame(begin)
        refusals = [send.frame for send in play.frame(frame, e.Send) if isinstance(send.frame, f.Refuse)]
        assert [refusal.code for refusal in refusals] == ["protocol"]


def test_a_transaction_is_journalled_and_moves_nothing() -> None:
    play = streaming()
    (append,) = play.frame(completed(12), e.Append)
    effects = play(e.JournalDurable((append.ticket,), (5200,)))
    assert e.Apply(5200) in effects and play.brain.keeper.sequence == 12
    assert not [x for x in effects if isinstance(x, e.Send)], "it is no news for the primary"


def test_the_file_of_marks_is_written_before_the_checkpoint_passes_them() -> None:
    play = streaming()
    (append,) = play.frame(mark(13), e.Append)
    play(e.JournalDurable((append.ticket,), (5200,)))
    play(e.Applied(AppliedPoint(5200, EPOCH, 13)))
    (sync,) = play(e.Tick(), e.Sync, now=10.0)
    kinds = [type(x) for x in play(e.Synced(sync.ticket, AppliedPoint(5200, EPOCH, 13)), now=10.0)]
    assert kinds.index(e.KeepMarks) < kinds.index(e.Persist) < kinds.index(e.FreeJournal)


def test_the_state_file_keeps_earlier_programs_off_a_journal_with_times_marks_or_transactions() -> None:
    for frame in (timed(13, 14), mark(13), completed(12)):
        play = streaming()
        assert play.brain.record.journal_layout == 1, "nothing that they cannot read was journalled"
        kinds = [type(x) for x in play.frame(frame)]
        assert kinds.index(e.Persist) < kinds.index(e.Append) and play.brain.record.journal_layout == 2
        assert e.Persist not in [type(x) for x in play.frame(timed(15 if frame.__class__ is f.Stream else 14, 16))]


def test_an_empty_journal_is_given_back_to_earlier_programs_when_the_primary_has_left() -> None:
    play = streaming()
    (append,) = play.frame(mark(13), e.Append)
    play(e.JournalDurable((append.ticket,), (5200,)))
    play(e.Applied(AppliedPoint(5200, EPOCH, 13)))
    (sync,) = play(e.Disconnected(1, "gone"), e.Sync)
    effects = play(e.Synced(sync.ticket, AppliedPoint(5200, EPOCH, 13)))
    assert play.brain.record.journal_layout == 1 and play.brain.record.checkpoint == 5200
    assert [type(x) for x in effects].count(e.Persist) == 2


@pytest.mark.parametrize("hello", [HELLO, ASKS], ids=["an earlier primary", "one that asks"])
def test_a_primary_that_asks_is_told_the_marks_and_an_earlier_one_what_it_knows(hello: f.Hello) -> None:
    recovery = Recovery(ADOPTED, KEPT)
    brain = Secondary(SecondaryConfig(SIZE * 2), ADOPTED, recovery, StagedBlocks(), 0.0)
    effects = brain.handle(e.Connected(1, hello, bytes(32)), 0.0)
    welcome = next(x.frame for x in effects if isinstance(x, e.Send))
    assert isinstance(welcome, f.Welcome) and f.HISTORY in welcome.features
    assert welcome.marks == ((7,) if hello is ASKS else None)
