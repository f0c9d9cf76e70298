"""Scenarios of the secondary's brain, one decision each: what it promises, said by its effects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.digests import UnitDigest
from pydbt.core.protocol.frame_checks import FORMER_NAMES
from pydbt.core.protocol.generations import Generations
from pydbt.core.secondary import events as e
from pydbt.core.secondary.brain import ACK_INTERVAL_S, Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.journal import entry_bytes
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import AppliedPoint, ReplicaRecord, ReplicaState

VOLUME, SIZE, EPOCH = "ab" * 16, 1 << 20, 7
HELLO = f.Hello(VOLUME, SIZE, 4096, EPOCH, features=(f.KEYED_DIGESTS,))
ASKS = replace(HELLO, features=(f.PROGRESS, f.KEYED_DIGESTS))
OLDER = replace(HELLO, features=(f.PROGRESS,))
ADOPTED = ReplicaRecord(
    replica="cd" * 16, target="t", segment_bytes=1 << 20, volume=VOLUME, size_bytes=SIZE, block_bytes=4096,
    consistent=True, epoch=EPOCH, sequence=10,
)  # fmt: skip


class Play:
    """A brain with a peer; effects of each event."""

    def __init__(self, record: ReplicaRecord = ADOPTED, connect: bool = True, hello: f.Hello = HELLO) -> None:
        self.brain = Secondary(SecondaryConfig(SIZE * 2), record, Recovery(record), StagedBlocks(), 0.0)
        self.connection = 1
        if connect:
            self.welcome = self(e.Connected(1, hello, bytes(32)), kind=e.Send)[0].frame

    def __call__(self, event: e.Event, kind: type | None = None, now: float = 0.0) -> list:
        effects = self.brain.handle(event, now)
        return [effect for effect in effects if kind is None or isinstance(effect, kind)]

    def frame(self, frame: f.Frame, kind: type | None = None, now: float = 0.0) -> list:
        return self(e.FrameReceived(self.connection, frame), kind, now)

    def acks(self, event: e.Event) -> list[f.Ack]:
        return [send.frame for send in self(event, e.Send) if isinstance(send.frame, f.Ack)]


def stream(first: int, last: int) -> f.Stream:
    return f.Stream(first, last, SectorTable.of([0], [8]), (bytes(4096),))


def blocks(batch: int) -> f.Blocks:
    return f.Blocks(batch, SectorTable.of([8], [8]), (bytes(4096),))


def test_an_update_is_acknowledged_when_durable_and_applied_only_then():
    play = Play()
    (append,) = play.frame(stream(11, 12), e.Append)
    assert not play(e.Tick(), e.Apply)
    effects = play(e.JournalDurable((append.ticket,), (5000,)))
    assert e.Apply(5000) in effects
    assert [x.frame.sequence for x in effects if isinstance(x, e.Send)] == [12]
    assert play.brain.replica_state is ReplicaState.UP_TO_DATE


def test_the_report_calls_it_up_to_date_no_longer_than_a_heartbeat_vouches_for_it():
    play = Play(hello=replace(HELLO, features=(f.HEARTBEAT,)))
    (append,) = play.frame(stream(11, 12), e.Append)
    play(e.JournalDurable((append.ticket,), (5000,)))
    assert play.brain.status(0.0).replica_state is ReplicaState.CONSISTENT, "nobody has told where the volume is"
    play.frame(f.Ping(1, 12), now=1.0)
    assert play.brain.status(1.5).replica_state is ReplicaState.UP_TO_DATE
    silent = play.brain.status(9.0)
    assert (silent.replica_state, silent.connected, silent.silent_seconds) == (ReplicaState.CONSISTENT, False, 8.0)
    play.frame(f.Ping(2, 13), now=9.0)
    behind = play.brain.status(9.0)
    assert (behind.replica_state, behind.connected) == (ReplicaState.CONSISTENT, True)


def test_connected_again_it_is_consistent_but_not_up_to_date_before_the_stream_flows():
    assert Play().brain.replica_state is ReplicaState.CONSISTENT


def test_the_journal_is_freed_only_after_a_sync_and_a_saved_checkpoint_in_this_order():
    play = Play()
    (append,) = play.frame(stream(11, 12), e.Append)
    play(e.JournalDurable((append.ticket,), (5000,)))
    assert not play(e.Applied(AppliedPoint(5000, EPOCH, 12)), e.FreeJournal)
    (sync,) = play(e.Tick(), e.Sync, now=play.brain.config.checkpoint_seconds + 1)
    effects = play(e.Synced(sync.ticket, AppliedPoint(5000, EPOCH, 12)))
    kinds = [type(effect) for effect in effects]
    assert kinds.index(e.Persist) < kinds.index(e.FreeJournal)
    assert play.brain.record.checkpoint == 5000 and play.brain.record.sequence == 12


def test_a_begin_waits_until_the_stream_before_it_is_durable_so_that_digests_see_it():
    play = Play()
    play(e.RoomMeasured(1 << 40))
    (append,) = play.frame(stream(11, 11), e.Append)
    assert not play.frame(f.Begin(1, EPOCH, 0), e.Append)
    assert not play.frame(f.Digests(1, Runs(np.array([0]), np.array([1])), bytes(16)), e.Compare)
    kinds = [type(effect) for effect in play(e.JournalDurable((append.ticket,), (5000,)))]
    assert kinds.index(e.Apply) < kinds.index(e.Compare)


def test_a_staged_resync_is_applied_after_its_commit_is_durable():
    play = Play()
    play(e.RoomMeasured(1 << 40))
    (begin,) = play.frame(f.Begin(1, EPOCH, 0), e.Append)
    (append,) = play.frame(blocks(1), e.Append)
    assert not play(e.JournalDurable((begin.ticket, append.ticket), (100, 5000)), e.Apply)
    assert play.brain.replica_state is ReplicaState.OUTDATED
    (commit,) = play.frame(f.Commit(1, 50), e.Append)
    effects = play(e.JournalDurable((commit.ticket,), (5100,)))
    assert e.Apply(5100) in effects
    assert play.brain.replica_state is ReplicaState.UP_TO_DATE


def test_without_room_inconsistent_is_saved_before_the_first_direct_write():
    play = Play()
    play(e.RoomMeasured(0))
    effects = play.frame(f.Begin(1, EPOCH, 0)) + play.frame(blocks(1))
    kinds = [type(effect) for effect in effects]
    assert kinds.index(e.Persist) < kinds.index(e.Write)
    assert play.brain.record.consistent is False


def test_a_direct_batch_is_acknowledged_after_a_sync():
    play = Play()
    play(e.RoomMeasured(0))
    play.frame(f.Begin(1, EPOCH, 0))
    (write,) = play.frame(blocks(1), e.Write)
    effects = play(e.Written(write.ticket))
    assert not [x for x in effects if isinstance(x, e.Send)]
    (sync,) = [x for x in effects if isinstance(x, e.Sync)]
    (ack,) = play.acks(e.Synced(sync.ticket, AppliedPoint(0, EPOCH, 10)))
    assert ack.batch == 1


@pytest.mark.parametrize("kind", [1, 2])
def test_a_direct_write_is_counted_in_the_state_file_before_it_is_acknowledged_and_so_are_zeros(kind):
    play = Play(hello=ASKS)
    play(e.RoomMeasured(0))
    play.frame(f.Begin(1, EPOCH, 0))
    entry = f.Blocks(1, SectorTable.of([8], [8], [kind]), (bytes(4096),) if kind == 1 else ())
    (write,) = play.frame(entry, e.Write)
    (sync,) = play(e.Written(write.ticket), e.Sync)
    assert play.brain.keeper.progress == play.welcome.progress, "it is not durable yet"
    effects = [x for x in play(e.Synced(sync.ticket, AppliedPoint(0, EPOCH, 10))) if isinstance(x, (e.Persist, e.Send))]
    assert [type(x) for x in effects] == [e.Persist, e.Send]
    assert effects[0].record.direct_bytes == effects[1].frame.progress == entry_bytes(entry) > 0


def test_a_stream_that_is_written_directly_is_told_as_progress_though_no_batch_ends():
    play = Play(hello=ASKS)
    play(e.RoomMeasured(0))
    play.frame(f.Begin(1, EPOCH, 0))
    (write,) = play.frame(stream(20, 21), e.Write)
    (sync,) = play(e.Written(write.ticket), e.Sync)
    (ack,) = play.acks(e.Synced(sync.ticket, AppliedPoint(0, EPOCH, 10)))
    assert (ack.sequence, ack.batch, ack.progress) == (10, 0, entry_bytes(stream(20, 21)))


def test_little_that_is_written_directly_is_made_durable_at_once_and_then_ten_times_per_second():
    play = Play(hello=ASKS)
    play(e.RoomMeasured(0))
    play.frame(f.Begin(1, EPOCH, 0))

    def written(batch: int, now: float) -> list[e.Sync]:
        (write,) = play.frame(blocks(batch), e.Write, now)
        return play(e.Written(write.ticket), e.Sync, now)

    (sync,) = written(1, 0.0)
    play(e.Synced(sync.ticket, AppliedPoint(0, EPOCH, 10)), now=0.5)
    assert not written(2, 0.5)
    assert play.brain.deadline() == pytest.approx(0.6)
    (sync,) = play(e.Tick(), e.Sync, 0.61)
    (ack,) = [x.frame for x in play(e.Synced(sync.ticket, AppliedPoint(0, EPOCH, 10)), e.Send, 0.62)]
    assert ack.batch == 2
    play.brain.keeper._writes._config = SecondaryConfig(SIZE * 2, sync_bytes=16384)
    assert written(3, 0.63), "a quarter of what is much, and nothing else on its way"


def test_a_block_is_not_called_equal_before_what_made_it_so_counts_as_progress():
    """Else one that is put back right behind that would lack the block, and not show it."""
    play = Play(hello=ASKS)
    play(e.RoomMeasured(0))
    play.frame(f.Begin(1, EPOCH, 0))
    (write,) = play.frame(blocks(1), e.Write)
    (compare,) = play.frame(f.Digests(2, Runs(np.array([1]), np.array([1])), bytes(16)), e.Compare)
    play(e.Written(write.ticket))
    effects = play(e.Compared(compare.ticket, np.array([], np.int64)))
    told = [x if isinstance(x, e.Persist) else x.frame for x in effects if isinstance(x, (e.Persist, e.Send))]
    assert [type(x) for x in told] == [e.Persist, f.Ack, f.Want, f.Ack]
    assert (told[1].batch, told[1].progress) == (1, entry_bytes(blocks(1)))


def test_progress_is_the_end_of_the_journal_and_what_was_written_past_it():
    play = Play(replace(ADOPTED, checkpoint=4096, direct_bytes=1000), hello=ASKS)
    assert play.welcome.progress == 5096
    (append,) = play.frame(stream(11, 12), e.Append)
    (ack,) = play.acks(e.JournalDurable((append.ticket,), (9000,)))
    assert ack.progress == 10000


def test_progress_is_told_only_to_a_primary_that_asks():
    play = Play(replace(ADOPTED, direct_bytes=1000))
    assert play.welcome.progress is None
    (append,) = play.frame(stream(11, 12), e.Append)
    (ack,) = play.acks(e.JournalDurable((append.ticket,), (5000,)))
    assert ack.progress == 0


def test_a_batch_number_is_not_acknowledged_past_digests_without_an_answer():
    play = Play()
    play(e.RoomMeasured(1 << 40))
    play.frame(f.Begin(1, EPOCH, 0))
    (compare,) = play.frame(f.Digests(1, Runs(np.array([0]), np.array([1])), bytes(16)), e.Compare)
    (append,) = play.frame(blocks(2), e.Append)
    assert all(ack.batch == 0 for ack in play.acks(e.JournalDurable((append.ticket - 2, append.ticket), (100, 5000))))
    sends = [send.frame for send in play(e.Compared(compare.ticket, np.array([0])), e.Send)]
    assert [type(frame) for frame in sends] == [f.Want, f.Ack] and sends[1].batch == 2


def test_a_second_connection_is_welcomed_when_what_the_first_sent_is_durable():
    play = Play()
    (append,) = play.frame(stream(11, 12), e.Append)
    effects = play(e.Connected(2, HELLO, bytes(32)))
    assert [type(x) for x in effects if isinstance(x, (e.Send, e.CloseConnection))] == [e.CloseConnection]
    (send,) = play(e.JournalDurable((append.ticket,), (5000,)), e.Send)
    assert send.connection == 2 and send.frame.sequence == 12


@pytest.mark.parametrize("wrong", [{"volume": "ef" * 16}, {"size_bytes": SIZE * 4}, {"block_bytes": 512}])
def test_a_primary_that_is_refused_does_not_cut_off_the_one_that_is_there(wrong):
    play = Play()
    play.frame(stream(11, 11))
    effects = play(e.Connected(2, replace(HELLO, **wrong), bytes(32)))
    assert [x.connection for x in effects if isinstance(x, e.CloseConnection)] == [2]
    assert isinstance(next(x.frame for x in effects if isinstance(x, e.Send) and x.connection == 2), f.Refuse)
    (append,) = play.frame(stream(12, 12), e.Append)
    assert append.entry.last == 12 and play.brain.replica_state is ReplicaState.UP_TO_DATE


def test_frames_of_a_connection_that_was_replaced_are_not_looked_at():
    play = Play()
    play(e.Connected(2, HELLO, bytes(32)))
    assert not play.frame(stream(11, 12))


def test_a_busy_secondary_sends_an_acknowledgement_in_time_not_to_be_taken_for_dead():
    play = Play()
    play.frame(stream(11, 12))
    assert play.brain.deadline() <= ACK_INTERVAL_S
    assert [type(send.frame) for send in play(e.Tick(), e.Send, now=ACK_INTERVAL_S + 1)] == [f.Ack]


def test_an_acknowledgement_that_is_due_goes_out_with_the_answer_to_a_question():
    play = Play()
    play.frame(stream(11, 12))
    play(e.Tick(), now=10.0)
    asked = [f.Ping(1, 12), f.Ping(2, 12)]
    first, soon = (
        [type(send.frame) for send in play(e.FrameReceived(1, ping, at), e.Send, now=at)]
        for ping, at in zip(asked, (11.0, 11.2), strict=True)
    )
    assert first == [f.Pong, f.Ack] and soon == [f.Pong]
    assert play.brain.deadline() == 11.0 + ACK_INTERVAL_S, "it would be sent without a question too"


@pytest.mark.parametrize("event", [e.TargetFailed("input/output error"), e.JournalRefused(1, 0, False, "i/o error")])
def test_a_failing_disk_is_told_to_the_primary_and_everything_begins_again_from_what_is_on_disk(event):
    play = Play()
    play.frame(stream(11, 12))
    effects = play(event)
    assert any(isinstance(x, e.Send) and isinstance(x.frame, f.Refuse) for x in effects)
    assert isinstance(effects[-1], e.Restart) and effects[-1].trusted == 0
    assert not play.frame(stream(13, 13)), "a brain that gave up does nothing more"


def test_a_generation_in_the_stream_is_written_down_behind_the_updates_before_it_and_ahead_of_later_ones():
    play = Play()
    (append,) = play.frame(stream(11, 11), e.Append)
    assert not play.frame(f.Generation(Generations(9)), e.Persist)
    assert not play.frame(stream(12, 12), e.Append)
    kinds = [type(effect) for effect in play(e.JournalDurable((append.ticket,), (5000,)))]
    assert kinds.index(e.Apply) < kinds.index(e.Persist) < kinds.index(e.Append)
    assert play.brain.record.generations == Generations(9).in_sync()


def test_a_full_journal_that_no_checkpoint_can_empty_is_told_to_the_primary():
    play = Play()
    (append,) = play.frame(stream(11, 11), e.Append)
    effects = play(e.JournalRefused(append.ticket, 0, True, "no space left"))
    (refused,) = [effect.frame for effect in effects if isinstance(effect, e.Send)]
    assert refused.code == "disk-full" and play.brain.session is None


def test_a_full_journal_in_a_stream_waits_for_a_checkpoint_and_then_takes_the_update():
    play = Play()
    (first,) = play.frame(stream(11, 11), e.Append)
    play(e.JournalDurable((first.ticket,), (5000,)))
    (second,) = play.frame(stream(12, 12), e.Append)
    assert not play(e.JournalRefused(second.ticket, 5000, True, "no space left"), e.CloseConnection)
    (sync,) = play(e.Applied(AppliedPoint(5000, EPOCH, 11)), e.Sync)
    effects = play(e.Synced(sync.ticket, AppliedPoint(5000, EPOCH, 11)))
    kinds = [type(effect) for effect in effects]
    assert kinds.index(e.FreeJournal) < kinds.index(e.Resume) < kinds.index(e.Append)


def test_a_stage_for_which_there_is_no_room_goes_directly_when_the_image_was_given_up():
    play = Play()
    play(e.RoomMeasured(1 << 40))
    (begin,) = play.frame(f.Begin(1, EPOCH, 0), e.Append)
    (append,) = play.frame(blocks(1), e.Append)
    play(e.JournalDurable((begin.ticket,), (128,)))
    effects = play(e.JournalRefused(append.ticket, 128, True, "no space left"))
    assert play.brain.record.consistent is False and play.brain.status(0.0).mode == "direct"
    assert e.Apply(128) in effects
    (sync,) = play(e.Applied(AppliedPoint(128, EPOCH, 10)), e.Sync)
    (write,) = play(e.Synced(sync.ticket, AppliedPoint(128, EPOCH, 10)), e.Write)
    assert write.frame == blocks(1)


def test_an_image_whose_journal_is_cut_short_is_not_whole():
    from dataclasses import replace

    assert not Recovery(replace(ADOPTED, must_reach=100)).whole
    assert Recovery(ADOPTED).whole


def test_images_that_follow_each_other_for_ever_are_told_once_per_connection():
    play = Play()
    levels = []
    for number in range(1, 4):
        play(e.RoomMeasured(1 << 40))
        (begin,) = play.frame(f.Begin(number, EPOCH, 0, f.BeginFlag.NO_STREAM), e.Append)
        (commit,) = play.frame(f.Commit(number, 50 + number), e.Append)
        effects = play(e.JournalDurable((begin.ticket, commit.ticket), (1000 * number, 1000 * number + 500)))
        levels += [effect.level for effect in effects if isinstance(effect, e.Log)]
    assert levels == ["info", "debug", "debug"]


def test_the_key_of_the_digests_is_told_to_a_primary_that_asks_and_is_another_one_for_each_connection():
    play = Play()
    assert play.welcome.digest_key == bytes(32).hex()
    again = play(e.Connected(2, HELLO, bytes(range(32))), e.Send)[0].frame
    assert again.digest_key == bytes(range(32)).hex()
    assert Play(hello=OLDER).welcome.digest_key is None
    assert "digest_key" not in repr(play.welcome), "a secret is not for logs"


@pytest.mark.parametrize("resync", [True, False])
def test_every_block_of_a_primary_without_the_key_is_wanted_because_equal_digests_prove_nothing(resync):
    play = Play(hello=OLDER)
    if resync:
        play(e.RoomMeasured(0))
        play.frame(f.Begin(1, EPOCH, 0))
    else:
        (append,) = play.frame(stream(11, 12), e.Append)
        play(e.JournalDurable((append.ticket,), (5000,)))
    effects = play.frame(f.Digests(1, Runs(np.array([5, 1]), np.array([2, 1])), bytes(48)))
    assert not any(isinstance(effect, e.Compare) for effect in effects)
    told = [effect.frame for effect in effects if isinstance(effect, e.Send)]
    assert told[0] == f.Want(1, Runs(np.array([1, 5]), np.array([1, 2])))
    assert told[1].batch == 1, "it is answered"


def test_with_the_key_of_the_connection_the_target_is_compared():
    play = Play()
    play(e.RoomMeasured(0))
    play.frame(f.Begin(1, EPOCH, 0))
    (compare,) = play.frame(f.Digests(1, Runs(np.array([1]), np.array([1])), bytes(16)), e.Compare)
    assert compare.digest.of(b"x") == UnitDigest(bytes(32)).of(b"x")


@pytest.mark.parametrize("proven", [True, False])
def test_a_primary_that_has_proved_nothing_is_refused_by_a_code_alone(proven):
    """The evidence would tell a stranger what it needs to be welcomed; the operator finds it in the log here."""
    play = Play(connect=False)
    effects = play(e.Connected(1, replace(HELLO, volume="ef" * 16), bytes(32), proven))
    (refuse,) = [effect.frame for effect in effects if isinstance(effect, e.Send)]
    assert refuse.code == "other-volume" and bool(refuse.message) is proven
    (closed,) = [effect for effect in effects if isinstance(effect, e.CloseConnection)]
    assert VOLUME in closed.reason, "which is logged with the name of the peer"


def test_the_earlier_names_of_a_replica_are_told_to_a_primary_that_asks():
    record = ADOPTED.renamed("12" * 16)
    assert Play(record, hello=replace(HELLO, features=(f.FORMERLY,))).welcome.formerly == (ADOPTED.replica,)
    assert Play(record).welcome.formerly is None
    for number in range(2 * FORMER_NAMES):
        record = record.renamed(f"{number:032x}")
    assert len(record.formerly) == FORMER_NAMES


def test_a_target_that_could_not_be_written_makes_the_replica_unusable_until_it_has_everything():
    record = replace(ADOPTED, checkpoint=0)
    recovery = Recovery(record)
    recovery.tail = recovery.limit = 5000  # of the journal the target lacks this much
    brain = Secondary(
        SecondaryConfig(SIZE * 2), record, recovery, StagedBlocks(), 0.0, None, "TARGET t fails at byte 7"
    )
    effects = brain.handle(e.Connected(1, HELLO, bytes(32), proven=False), 0.0)
    assert e.Apply(5000) in effects, "it is tried again"
    (refuse,) = [effect.frame for effect in effects if isinstance(effect, e.Send)]
    assert refuse.code == f.TARGET_ERROR and "TARGET t fails at byte 7" in refuse.message
    assert brain.replica_state is ReplicaState.INCONSISTENT and brain.record.consistent
    assert brain.status(0.0).target_problem == "TARGET t fails at byte 7"
    foreign = brain.handle(e.Connected(2, replace(HELLO, volume="ef" * 16), bytes(32)), 0.0)
    assert [effect.frame.code for effect in foreign if isinstance(effect, e.Send)] == ["other-volume"]
    effects = brain.handle(e.Applied(AppliedPoint(5000, EPOCH, 10)), 0.0)
    (sync,) = [effect for effect in effects if isinstance(effect, e.Sync)]
    assert brain.trouble, "it is not known yet whether it is on the disk"
    brain.handle(e.Synced(sync.ticket, AppliedPoint(5000, EPOCH, 10)), 0.0)
    assert not brain.trouble and brain.replica_state is ReplicaState.CONSISTENT
    effects = brain.handle(e.Connected(3, HELLO, bytes(32)), 0.0)
    assert f.Welcome in [type(effect.frame) for effect in effects if isinstance(effect, e.Send)]


def test_a_brain_that_gives_up_for_its_target_names_the_trouble():
    play = Play()
    play(e.TargetFailed("TARGET t cannot be written at byte 7"))
    assert play.brain.status(0.0).target_problem == "TARGET t cannot be written at byte 7"
    assert play.brain.replica_state is ReplicaState.INCONSISTENT
