"""The brain decides mode, phase, taints and the halt: its whole way, with a shell and a secondary that answer at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.primary import settler
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig, SavedMaps
from pydbt.core.primary.link import STALL_S
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.protocol.frames import Ack, Commit, Ping, Pong, Want
from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.units import Geometry
from tests.core.primary.parts import records

CONFIG = PrimaryConfig(Geometry(64 * 4096, 4096), epoch=7)


class Shell:
    """Carries effects out, and lets a secondary answer that holds something else of the blocks in ``differs``."""

    def __init__(self, **settings: object) -> None:
        self.brain = Primary(replace(CONFIG, **settings), 0.0)
        self.brain.state.in_flight.trust()
        self.now = 0.0
        self.done: list[ev.Effect] = []
        self.differs: set[int] = set()
        self.answers = True
        self.batch = self.committed = self.sequence = self.position = self.lost = 0

    def feed(self, event: ev.Event) -> list[ev.Effect]:
        """The effects of an event, and of all answers to it."""
        first, waiting = len(self.done), [event]
        while waiting:
            for effect in self.brain.handle(waiting.pop(0), self.now):
                self.done.append(effect)
                waiting += self.answer(effect)
        return self.done[first:]

    def answer(self, effect: ev.Effect) -> list[ev.Event]:
        match effect:
            case ev.TakeQuiet(flip=flip):
                return [ev.QuietTaken(np.zeros(1, np.uint64), self.position, flip)]
            case ev.Persist(zero_quiet=zero, cover=cover, number=number):
                return [ev.Persisted(zero, cover=cover, number=number)]
            case ev.KeepLeftOut():
                return [ev.LeftOutKept()]
            case ev.WriteDown(number=number):
                return [ev.WrittenDown(number)]
            case ev.ScanUsed():
                return [ev.UsedBlocks(Runs(np.array([0]), np.array([8])), "8 blocks in use")]
            case ev.SetPayload(on=True):
                return [ev.PayloadArmed(self.position)]
            case ev.ReadBlocks(reading=reading):
                return [ev.BlocksRead(reading, self.position, 4096)]
            case ev.Flush():
                return [ev.Flushed("freeze")]
            case ev.Hold(hold=hold):
                return [ev.Held(hold, "freeze", self.position)]
            case ev.Release(hold=hold):
                return [ev.Released(hold, 1.0)]
        return self.replied(effect) if self.answers else []

    def replied(self, effect: ev.Effect) -> list[ev.Event]:
        match effect:
            case ev.SendDigests(batch=batch, units=units):
                wanted = np.array(sorted(self.differs & set(units.blocks().tolist())), np.int64)
                return [ev.Received(Want(batch=batch, units=Runs.of_blocks(wanted) if len(wanted) else Runs.none()))]
            case ev.SendBlocks(batch=batch):
                self.batch = batch
            case ev.SendFrame(frame=Commit(resync=resync, sequence=sequence)):
                self.committed, self.sequence = resync, sequence
            case ev.SendStream(last_sequences=last):
                self.sequence = int(last[-1])
            case ev.SendSettled(sequence=sequence):
                self.sequence = sequence
            case ev.SendFrame(frame=Ping(token=token)):
                return [ev.Received(Pong(token=token))]
            case _:
                return []
        return [self.ack()]

    def ack(self) -> ev.Received:
        return ev.Received(Ack(self.sequence, self.batch, self.committed, replica_state=2))

    def connect(self, replica: str = "one") -> list[ev.Effect]:
        return self.feed(ev.Connected(replica, "inconsistent", 0, 0, False, True))

    def write(self, *blocks: int, flags: int = 0, completed: bool = True) -> list[ev.Effect]:
        rows = [(RecordKind.SUBMIT, block) for block in blocks]
        rows += [(RecordKind.COMPLETE, block) for block in blocks] if completed else []
        made = records(*rows)
        made["flags"] = flags
        self.position += len(rows)
        return self.feed(ev.Captured(made, self.position, self.lost))

    def tick(self, seconds: float = 0.0) -> list[ev.Effect]:
        self.now += seconds
        return self.feed(ev.Tick())

    def modes(self) -> list[str]:
        told = [effect.message for effect in self.done if isinstance(effect, ev.Log) and " -> " in effect.message]
        return [line.split(":")[0].split(" -> ")[1] for line in told if not line.startswith("phase")]


def in_sync(**settings: object) -> Shell:
    shell = Shell(**settings)
    shell.connect()
    for _ in range(5):
        shell.tick(0.1)
    assert shell.brain.mode in (Mode.NORMAL, Mode.SNAPSHOTS), shell.modes()
    shell.brain.state.left_out.blocks.clear()  # as after a verification
    return shell


def kinds(effects: list[ev.Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def test_a_new_replica_is_scanned_copied_and_then_follows_in_the_stream() -> None:
    shell = in_sync()
    assert shell.modes() == ["initial-sync", "normal"]
    assert shell.brain.status(shell.now).replica_state == "up-to-date" and not shell.brain.state.replica.initial
    names = kinds(shell.done)
    assert names.index("ScanUsed") < names.index("SetPayload") < names.index("ReadBlocks")
    (committed,) = (
        place for place, effect in enumerate(shell.done) if effect == ev.SendFrame(Commit(resync=1, sequence=0))
    )
    assert shell.done.index(ev.RememberReplica("one", 7, 0, 0, in_sync=True)) > committed
    assert "SendStream" in kinds(shell.write(3)) and shell.brain.state.acknowledged == shell.brain.state.sequence


def test_without_a_stream_the_replica_goes_from_snapshot_to_snapshot() -> None:
    shell = in_sync(snapshot_interval_s=10.0)
    assert shell.brain.mode is Mode.SNAPSHOTS and shell.brain.snapshot_based
    shell.write(3)
    shell.feed(ev.WaitAsked(1, shell.position))
    shell.tick(0.1)
    status = shell.brain.status(shell.now)
    assert status.snapshots is not None and status.snapshots.number == 2 and ev.AnswerWait(1) in shell.done
    assert not any(isinstance(effect, ev.SendStream | ev.SetPayload) for effect in shell.done)


def test_a_wait_is_answered_with_the_acknowledgement_unless_somebody_gave_it_up() -> None:
    shell = in_sync()
    shell.answers = False
    shell.write(3)
    for token in (1, 2):
        shell.feed(ev.WaitAsked(token, shell.position))
    shell.feed(ev.WaitGone(2))
    assert "AnswerWait" not in kinds(shell.done)
    shell.sequence = shell.brain.state.sequence
    assert ev.AnswerWait(1) in shell.feed(shell.ack()) and ev.AnswerWait(2) not in shell.done


def test_an_acknowledgement_counts_the_time_that_each_write_had_waited_for_it() -> None:
    shell = in_sync()
    shell.answers = False
    shell.write(3, 4)
    shell.tick(2.0)
    before = shell.brain.status(shell.now).statistics.acknowledgement_latency
    assert sum(before.counts) == 0, "nothing is acknowledged yet"
    shell.sequence = shell.brain.state.sequence
    shell.feed(shell.ack())
    after = shell.brain.status(shell.now).statistics.acknowledgement_latency
    assert dict(zip(after.bounds_seconds, after.counts, strict=False))[2.5] == 2 and sum(after.counts) == 2


@pytest.mark.parametrize("reason", ["lost", "no room", "stranger", "full"])
def test_a_write_that_the_log_cannot_take_halts_replication_and_is_resynchronized(reason: str) -> None:
    shell = in_sync(log_slots=4)
    before = shell.brain.state.statistics.resyncs
    if reason == "lost":
        shell.lost = 2
        shell.write(3)
        shell.brain.state.in_flight.trust()
    elif reason == "no room":
        shell.write(3, flags=RecordFlag.NO_PAYLOAD)
    elif reason == "stranger":
        shell.position += 1
        shell.feed(ev.Captured(records((RecordKind.COMPLETE, 9)), shell.position, 0))
    else:
        shell.write(*range(20))
    assert shell.brain.state.statistics.log_full == 1 and "resynchronizing" in shell.modes()
    for _ in range(5):
        shell.tick(0.1)
    assert shell.brain.mode is Mode.NORMAL and shell.brain.state.statistics.resyncs == before + 1


def test_a_log_that_is_full_again_and_again_is_told() -> None:
    shell = in_sync()
    for _ in range(6):
        shell.write(3, flags=RecordFlag.NO_PAYLOAD)
        for _ in range(5):
            shell.tick(0.1)
    assert any(isinstance(effect, ev.Log) and "the log was full 5 times" in effect.message for effect in shell.done)


def test_a_lack_of_room_ends_the_stream_and_changes_nothing_without_one() -> None:
    shell = in_sync()
    shell.feed(ev.RoomShort("too slow"))
    assert "resynchronizing" in shell.modes()
    other = Shell()
    other.feed(ev.RoomShort("too slow"))
    assert not other.modes()


def test_a_lost_connection_makes_everything_on_its_way_pending_and_it_is_connected_anew() -> None:
    shell = in_sync()
    shell.answers = False
    shell.write(3)
    assert "SetPayload" in kinds(shell.feed(ev.Disconnected("cut")))
    assert shell.brain.state.tracker.pending.contains(3) and shell.brain.status(shell.now).replica_state == "outdated"
    assert "Connect" in kinds(shell.tick(10.0))
    assert shell.brain.mode is Mode.UNSYNCHRONIZED and not shell.brain.status(shell.now).connected


def test_a_connection_lost_before_anything_was_under_way_is_still_logged() -> None:
    shell = Shell(scan_used=False)
    shell.feed(ev.PauseAsked())
    shell.brain.link.connected(0.0)
    effects = shell.feed(ev.Disconnected("cut"))
    assert any(isinstance(effect, ev.Log) and effect.message == "connection closed: cut" for effect in effects)


def test_a_secondary_that_is_silent_is_taken_for_dead_and_this_process_own_pause_is_forgiven() -> None:
    shell = in_sync()
    shell.answers = False
    assert any(
        isinstance(effect, ev.SendFrame) and isinstance(effect.frame, Ping) for effect in shell.tick(STALL_S * 10)
    )
    shell.feed(ev.Received(Pong(token=1)))
    while shell.brain.link.up:
        shell.tick(1.0)
    assert shell.brain.mode is Mode.UNSYNCHRONIZED and "CloseConnection" in kinds(shell.done)


def test_a_pause_says_goodbye_and_tracks_on_and_it_is_resumed_by_a_new_connection() -> None:
    shell = in_sync()
    effects = shell.feed(ev.PauseAsked())
    assert ev.CloseConnection("paused by the operator", farewell=True) in effects
    shell.feed(ev.PauseAsked())
    assert shell.modes()[-2:] == ["unsynchronized", "paused"]
    shell.write(3)
    shell.tick(10.0)
    assert shell.brain.mode is Mode.PAUSED
    shell.feed(ev.ResumeAsked())
    shell.feed(ev.ResumeAsked())
    assert "Connect" in kinds(shell.done[-3:]) or "Connect" in kinds(shell.tick())


def test_each_reason_to_rest_has_a_mode_of_its_own_and_only_a_resume_by_a_person_ends_it() -> None:
    shell = in_sync()
    shell.feed(ev.PauseAsked("split brain", Mode.REFUSED))
    assert shell.brain.mode is Mode.REFUSED and shell.brain.mode.rests
    shell.feed(ev.PauseAsked("the controller ends", Mode.STOPPED))
    assert shell.brain.mode is Mode.STOPPED, "whoever looks later reads why nothing is replicated now"
    assert "Connect" not in kinds(shell.tick(60.0))
    shell.feed(ev.ResumeAsked())
    assert shell.brain.mode is Mode.UNSYNCHRONIZED


def infos(shell: Shell) -> list[str]:
    return [effect.message for effect in shell.done if isinstance(effect, ev.Log) and effect.level != "debug"]


def test_a_burst_that_fills_the_log_is_told_in_one_line_and_counted() -> None:
    shell = in_sync()
    for _ in range(3):
        before = len(infos(shell))
        shell.write(3, flags=RecordFlag.NO_PAYLOAD)
        for _ in range(5):
            shell.tick(0.1)
        assert shell.brain.mode is Mode.NORMAL
        (line,) = infos(shell)[before:]
        assert line.startswith("normal again after 0.") and "log full: a write's data found no room" in line
    assert "3 times out of normal in this run" in line
    assert shell.brain.status(shell.now).statistics.times_out_of_normal == 3


def test_a_removed_secondary_does_not_hear_the_name_of_the_next_writes() -> None:
    shell = in_sync()
    name = shell.brain.state.generations.current
    shell.feed(ev.RemoveAsked())
    assert shell.brain.mode is Mode.REMOVED and shell.brain.state.generations.current != name


def test_another_secondarys_name_is_taken_over() -> None:
    shell = in_sync()
    shell.feed(ev.Renamed(4711))
    assert shell.brain.state.generations.current == 4711


@pytest.mark.parametrize("repair", [False, True])
def test_a_difference_found_by_a_verification_is_copied_and_counts_as_out_of_sync_until_then(repair: bool) -> None:
    shell = in_sync()
    shell.differs = {9}
    everything = Runs(np.array([0]), np.array([64]))
    shell.feed(ev.VerifyAsked(everything, repair=repair))
    known = False
    for _ in range(8):
        shell.tick(1.0)
        if "SendSettled" in kinds(shell.done):
            shell.differs = set()
        found = shell.brain.verifier.progress()
        if found is not None and found.differing_bytes and shell.differs:
            known = True
            assert shell.brain.status(shell.now).out_of_sync_bytes and shell.brain.status(shell.now).repairing
    ended = [effect for effect in shell.done if isinstance(effect, ev.VerifyEnded)]
    assert known and ended == [ev.VerifyEnded(64, 1, ((9, 1),))]
    assert not shell.brain.state.taints and shell.brain.status(shell.now).verify is None
    shell.feed(ev.WaitAsked(1, shell.position))
    assert "AnswerWait" in kinds(shell.done), "a wait hangs although nothing differs any more"


def test_free_space_that_was_never_copied_is_filled_in_by_a_verification_and_is_no_difference() -> None:
    shell = in_sync()
    shell.brain.state.left_out.add(Runs(np.array([8]), np.array([4])))
    shell.differs = {9, 10}
    shell.feed(ev.VerifyAsked(Runs(np.array([0]), np.array([64])), repair=False))
    for _ in range(8):
        shell.tick(1.0)
        assert not shell.brain.status(shell.now).repairing, "inconsistent for free space"
        shell.feed(ev.WaitAsked(1, shell.position))
        assert "AnswerWait" in kinds(shell.done), "a wait is held up by free space"
        if "SendSettled" in kinds(shell.done):
            shell.differs = set()
    ended = [effect for effect in shell.done if isinstance(effect, ev.VerifyEnded)]
    assert ended == [ev.VerifyEnded(64, 0, (), 2)]
    assert not shell.brain.state.left_out.blocks.any() and not shell.brain.state.taints


def test_the_blocks_that_the_first_copy_leaves_out_are_known() -> None:
    shell = Shell()
    shell.feed(ev.UsedBlocks(Runs(np.array([0, 10]), np.array([4, 2])), "some"))
    assert shell.brain.state.left_out.blocks.extents().blocks().tolist() == [*range(4, 10), *range(12, 64)]
    assert shell.brain.state.left_out.grew


def test_a_verification_that_is_cancelled_is_over() -> None:
    shell = in_sync()
    shell.feed(ev.VerifyAsked(Runs(np.array([0]), np.array([64])), repair=True))
    shell.feed(ev.VerifyCancelled())
    assert shell.brain.verifier.current is None


def test_more_differing_blocks_than_are_worth_copying_singly_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "MAX_UNSETTLED_BLOCKS", 2)
    shell = in_sync()
    shell.differs = {9, 10, 11}
    shell.feed(ev.VerifyAsked(Runs(np.array([0]), np.array([64])), repair=True))
    for _ in range(4):
        shell.tick(1.0)
    assert shell.brain.state.statistics.log_full == 1 and "resynchronizing" in shell.modes()


def test_while_tainted_no_wait_is_answered() -> None:
    shell = in_sync()
    shell.feed(ev.Tainted("something was not seen"))
    shell.feed(ev.WaitAsked(1, shell.position))
    assert "AnswerWait" not in kinds(shell.done)


def test_a_write_that_ended_unseen_is_read_again() -> None:
    shell = in_sync()
    shell.write(3, completed=False)
    shell.feed(ev.DiskQuiet(shell.position))
    for _ in range(3):
        shell.tick(1.0)
        shell.feed(ev.DiskQuiet(shell.position))
    assert shell.brain.state.statistics.unsettled_blocks["unseen"] == 1 and shell.brain.state.in_flight.empty


def test_unsynchronized_the_maps_are_written_now_and_then_and_the_deadline_says_when() -> None:
    shell = Shell(scan_used=False)
    shell.tick()
    assert shell.brain.deadline() <= 5.0
    shell.write(3)
    assert "Persist" in kinds(shell.tick(5.0)) and shell.brain.phase is Phase.IDLE


def test_the_sender_tells_how_far_it_is() -> None:
    shell = in_sync()
    shell.feed(ev.Outbound(queued_bytes=1 << 30, sent_bytes=77))
    assert shell.brain.state.statistics.sent_bytes == 77
    assert "SendStream" not in kinds(shell.write(3)), "it takes nothing more"


def test_a_run_begins_with_the_blocks_that_the_last_run_left_behind() -> None:
    def saved(*blocks: int) -> DirtyMap:
        made = DirtyMap(64)
        made.set_extents(*Runs.of_blocks(np.array(blocks)))
        return made

    def of(maps: SavedMaps) -> list[list[int]]:
        state = Primary(CONFIG, 0.0, maps).state
        return [one.extents().blocks().tolist() for one in (state.tracker.pending, state.staged, state.left_out.blocks)]

    assert of(SavedMaps(saved(1), saved(2, 3), saved(4))) == [[1], [2, 3], [4]]
    assert of(SavedMaps(staged=saved(5))) == [[], [5], []]
    assert not Primary(CONFIG, 0.0, SavedMaps(left_out=saved(1))).state.left_out.take_grown(), "it is on disk already"


def test_before_the_end_the_bitmaps_flip_although_nothing_was_written() -> None:
    shell = in_sync()
    shell.now = shell.brain.quiet.next_retire + 0.1
    assert not [effect for effect in shell.feed(ev.Tick()) if isinstance(effect, ev.TakeQuiet)]
    assert [effect for effect in shell.feed(ev.EveryBitAsked()) if isinstance(effect, ev.TakeQuiet)] == [
        ev.TakeQuiet(flip=True)
    ]
