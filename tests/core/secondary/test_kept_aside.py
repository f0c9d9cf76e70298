"""Single blocks that the target does not take: everything else goes on, and neither side calls the replica usable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.secondary import events as e
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import AppliedPoint, ReplicaRecord, ReplicaState
from pydbt.core.secondary.status import KeptPlace, KeptPlaces
from tests.core.secondary.test_brain import ADOPTED, EPOCH, HELLO, SIZE, Play, blocks, stream

KNOWS = replace(HELLO, features=(*HELLO.features, f.UNWRITABLE))
BAD = Runs(np.array([3]), np.array([1]))


def sent(effects: list) -> list:
    return [effect.frame for effect in effects if isinstance(effect, e.Send)]


def applied(play: Play, first: int) -> list:
    """An update is journalled and applied; the effects of its end."""
    (append,) = play.frame(stream(first, first), e.Append)
    return play(e.JournalDurable((append.ticket,), (5000 * (first - 10),)))


def test_the_primary_is_told_and_the_stream_goes_on() -> None:
    play = Play(hello=KNOWS)
    assert isinstance(play.welcome, f.Welcome) and f.UNWRITABLE in play.welcome.features
    applied(play, 11)
    told, ack = sent(play(e.KeptAside(BAD)))
    assert told == f.Unwritable(BAD, 4096)
    assert ack.replica_state == ReplicaState.INCONSISTENT.code and ack.sequence == 11
    assert play.brain.replica_state is ReplicaState.INCONSISTENT and play.brain.record.consistent
    assert [frame.sequence for frame in sent(applied(play, 12))] == [12]
    status = play.brain.status(0.0)
    assert "cannot be written at byte 12288" in status.target_problem
    assert status.unwritable == KeptPlaces(4096, (KeptPlace(12288, 4096),))
    told, ack = sent(play(e.KeptAside(Runs.none())))
    assert told == f.Unwritable(Runs.none(), 4096) and ack.replica_state == ReplicaState.UP_TO_DATE.code
    assert play.brain.status(0.0).target_problem == ""


def test_the_state_file_says_that_blocks_are_kept_before_the_journal_is_freed() -> None:
    play = Play(hello=KNOWS)
    applied(play, 11)
    assert not play(e.KeptAside(BAD), e.Persist), "they are not saved yet"
    play(e.Applied(AppliedPoint(5000, EPOCH, 11)))
    (sync,) = play(e.Tick(), e.Sync, now=play.brain.config.checkpoint_seconds + 1)
    effects = play(e.Synced(sync.ticket, AppliedPoint(5000, EPOCH, 11)))
    kinds = [type(effect) for effect in effects]
    assert kinds.index(e.Persist) < kinds.index(e.FreeJournal)
    assert all(effect.record.kept_aside for effect in effects if isinstance(effect, e.Persist))
    (persist,) = play(e.KeptAside(Runs.none()), e.Persist)
    assert not persist.record.kept_aside


def test_direct_writes_are_acknowledged_only_after_the_state_file_tells_of_kept_blocks() -> None:
    play = Play(hello=KNOWS)
    play(e.RoomMeasured(0))
    play.frame(f.Begin(1, EPOCH, 0))
    (write,) = play.frame(blocks(1), e.Write)
    play(e.KeptAside(BAD))
    (sync,) = play(e.Written(write.ticket), e.Sync)
    effects = play(e.Synced(sync.ticket, AppliedPoint(0, EPOCH, 10)))
    kinds = [type(effect) for effect in effects]
    assert play.brain.record.kept_aside and kinds.index(e.Persist) < kinds.index(e.Send)


def test_a_primary_that_cannot_be_told_of_single_blocks_is_refused_until_there_are_none() -> None:
    play = Play()
    effects = play(e.KeptAside(BAD))
    (refuse,) = sent(effects)
    assert refuse.code == f.TARGET_ERROR and "at byte 12288" in refuse.message
    assert any(isinstance(effect, e.CloseConnection) for effect in effects) and play.brain.session is None
    (refuse,) = sent(play(e.Connected(2, HELLO, bytes(32), proven=False)))
    assert refuse.code == f.TARGET_ERROR and "at byte 12288" in refuse.message
    assert [frame.code for frame in sent(play(e.Connected(3, replace(HELLO, volume="ef" * 16), bytes(32))))] == [
        "other-volume"
    ]
    play(e.KeptAside(Runs.none()))
    assert [type(frame) for frame in sent(play(e.Connected(4, HELLO, bytes(32))))] == [f.Welcome]


def test_a_primary_that_waits_to_be_welcomed_meanwhile_is_refused_as_well() -> None:
    play = Play(hello=KNOWS)
    (append,) = play.frame(stream(11, 11), e.Append)
    assert not sent(play(e.Connected(2, HELLO, bytes(32)))), "the journal is not settled"
    play(e.KeptAside(BAD))
    (refuse,) = sent(play(e.JournalDurable((append.ticket,), (5000,))))
    assert refuse.code == f.TARGET_ERROR


def begun(record: ReplicaRecord, trouble: str) -> Secondary:
    recovery = Recovery(record)
    recovery.tail = recovery.limit = 5000
    return Secondary(SecondaryConfig(SIZE * 2), record, recovery, StagedBlocks(), 0.0, None, trouble, BAD)


def test_after_a_restart_it_is_as_bad_as_before_and_the_primary_is_told_at_once() -> None:
    brain = begun(replace(ADOPTED, kept_aside=True), "")
    assert brain.replica_state is ReplicaState.INCONSISTENT
    welcome, told, *_ = sent(brain.handle(e.Connected(1, KNOWS, bytes(32)), 0.0))
    assert welcome.state == "inconsistent" and told == f.Unwritable(BAD, 4096)


def test_a_failure_of_the_whole_target_comes_first_and_leaves_the_single_blocks() -> None:
    brain = begun(ADOPTED, "TARGET t cannot be synced")
    assert brain.status(0.0).target_problem == "TARGET t cannot be synced"
    assert [frame.code for frame in sent(brain.handle(e.Connected(1, KNOWS, bytes(32)), 0.0))] == [f.TARGET_ERROR]
    effects = brain.handle(e.Applied(AppliedPoint(5000, EPOCH, 10)), 0.0)
    (sync,) = [effect for effect in effects if isinstance(effect, e.Sync)]
    effects = brain.handle(e.Synced(sync.ticket, AppliedPoint(5000, EPOCH, 10)), 0.0)
    assert any(isinstance(effect, e.Log) and "but for 4096 bytes" in effect.message for effect in effects)
    assert not brain.trouble and brain.replica_state is ReplicaState.INCONSISTENT
    assert f.Welcome in [type(frame) for frame in sent(brain.handle(e.Connected(2, KNOWS, bytes(32)), 0.0))]


def test_a_secondary_with_kept_blocks_does_not_take_the_place_of_its_primary() -> None:
    play = Play(hello=KNOWS)
    play.brain.config = replace(play.brain.config, unable="", target_bytes=SIZE, sector_bytes=512)
    assert sent(play.frame(f.Handover(False, "h:1"))) == [f.Takeover(False, "")]
    play(e.KeptAside(BAD))
    (answer,) = [frame for frame in sent(play.frame(f.Handover(False, "h:1"))) if isinstance(frame, f.Takeover)]
    assert "at byte 12288" in answer.refusal
