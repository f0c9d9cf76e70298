"""Stories of the state file that is still on its way to the disk, while its primary has something to tell of it."""

from __future__ import annotations

import contextlib
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from pydbt.controller.primary import state_save
from pydbt.controller.primary.configuring import Joining, begun
from pydbt.controller.primary.effects import EffectRunner
from pydbt.controller.primary.era_checkpoints import EraCheckpoints
from pydbt.controller.primary.feed import Feed
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.report import SecondaryReport
from pydbt.controller.primary.state_save import SaveEnded
from pydbt.controller.primary.status import volume_report
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary import events as ev
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.reported_state import told_position
from pydbt.core.protocol.frames import Frame, Generation
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.heartbeat import OUT_OF_SYNC
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VolumeState, load_state, save_state
from tests.controller.volumes import GEOMETRY, volume_of
from tests.core.primary.test_quiet_bitmap import left_out_and_written, taken_effects, write
from tests.simulation.cluster.kernel import Odds
from tests.simulation.cluster.schedule import Op, Plan, Shape
from tests.simulation.cluster.world import World

SHORT_CALM = Shape(
    block_bytes=1024, size_bytes=24 << 10, ring_records=400, data_bytes=32 << 10, log_slots=1024, journal_bytes=512 << 10,
    stage=True, digests=True, compress=False, odds=Odds(breath=0, slow=0), delay=0.001,
)  # fmt: skip
MISSED = "writes were missed"


@dataclass
class Telling:
    """A primary in mode normal. Its state disk is busy as long as ``disk`` is not set; ``sent`` goes to the secondary."""

    volume: Volume
    peer: Peer
    feed: Feed
    disk: threading.Event
    sent: list[Frame]

    def told(self) -> SecondaryReport:
        """To people, of the secondary."""
        return volume_report(self.volume, EraCheckpoints(self.volume, self.feed, None, "")).secondaries[0]

    def on_disk(self) -> SecondaryRecord:
        """What the next controller finds, if this one is killed now."""
        state = load_state(self.volume.options.state_dir)
        assert state is not None
        return state.record(1)

    def let_it_end(self) -> None:
        """The disk answers, and the loop hears of that."""
        self.disk.set()
        self.volume.map_writer.wait()
        while (ended := self.volume.inbox.take(0.0)) is not None:
            assert isinstance(ended, SaveEnded)
            self.feed.saved(ended)
        self.feed.process()


@contextlib.contextmanager
def telling(*taints: str) -> Iterator[Telling]:
    """The state is on the disk as it is at first, with these taints; then that disk is busy."""
    entries = [{"reason": reason, "since": ""} for reason in taints]
    record = SecondaryRecord(1, "h:1", SyncPhase.REPLICATING, taints=entries)
    config = PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False, taints=taints)
    sent, disk = list[Frame](), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        volume = volume_of(Path(folder), record)
        save_state(Path(folder), volume.metadata.state)
        peer = volume.join(1, Joining(config))
        peer.brain.state.mode = Mode.NORMAL
        peer.brain.state.in_flight.trust()
        peer.brain.link.connected(time.monotonic())
        peer.connection._outbox = SimpleNamespace(  # type: ignore[assignment]
            put=lambda frames, _=0: sent.extend(frames), queued_bytes=0, sent_bytes=0
        )
        volume.auditor = SimpleNamespace(  # type: ignore[assignment]
            look=lambda *_: [], record={}, report=lambda: None
        )
        volume.map_writer.submit(lambda: disk.wait(60) and None)
        try:
            yield Telling(volume, peer, Feed(volume), disk, sent)
        finally:
            disk.set()
            volume.map_writer.wait()
            volume.map_writer.close()
            peer.connection._outbox = None
            peer.close()


def a_name_that_is_not_on_the_disk_is_not_told() -> None:
    """The disk is busy when the content gets another name: a crash now would take that away."""
    name = Generations(5, (4,), (3,), shared=True)
    with telling() as story:
        EffectRunner(story.volume).carry_out(
            [(None, ev.KeepAllGenerations({1: name})), (1, ev.SendFrame(Generation(name)))]
        )
        assert not story.sent, "a secondary knows a name that its primary forgets in a crash"
        story.let_it_end()
        assert story.sent == [Generation(name)]


def a_name_or_a_verification_that_is_not_on_the_disk_is_not_shown() -> None:
    """The same: who looks at the status after a crash would find another one."""
    name = Generations(5, (4,), (3,), shared=True)
    with telling() as story:
        before = story.told()
        EffectRunner(story.volume).carry_out([(None, ev.KeepAllGenerations({1: name})), (1, ev.VerifyEnded(64, 0, ()))])
        told = story.told()
        assert told.generations == before.generations == story.on_disk().generations, "a name is shown, and forgotten"
        assert told.verify.last is None and told.verify.running is not None, "it has not ended for the next controller"
        story.let_it_end()
        told = story.told()
        assert told.generations == name and told.verify.last is not None and told.verify.running is None


def a_taint_that_is_answered_stands_until_that_is_on_the_disk() -> None:
    """A kill between the two finds the volume tainted: nobody was told anything else, and no wait has ended well."""
    with telling(MISSED) as story:
        brain, now = story.peer.brain, 0.0
        brain._taints.answered_by_landing(brain.state.taint_numbers)
        brain._taints.landed()
        story.feed.take(ev.WaitAsked(1, 0), 1)
        asked = brain.state.unwritten
        assert [entry["reason"] for entry in story.on_disk().taints] == [MISSED]
        told = story.told()
        assert told.tainted and told.taints == (MISSED,) and told.replica_state == "inconsistent", (
            "it is answered for people alone"
        )
        assert told_position(brain.state, repairing=False, answered_at=now, now=now) == OUT_OF_SYNC, (
            "the secondary is told more"
        )
        assert brain._waits._patient, "a wait has ended well"
        story.let_it_end()
        assert not asked.waits and not story.on_disk().taints
        assert not story.told().tainted and not brain._waits._patient


def a_first_time_in_sync_counts_when_it_is_on_the_disk() -> None:
    """By the state on the disk the replica was never in sync: a kill now would have a wait that has ended well forgotten."""
    with telling() as story:
        brain = story.peer.brain
        brain.state.replica.initial = True
        brain._recognition.landed("up-to-date")
        story.feed.take(ev.WaitAsked(1, 0), 1)
        assert story.told().replica_state == "consistent" and brain._waits._patient, "it is told already"
        story.let_it_end()
        assert story.told().replica_state == "up-to-date" and not brain._waits._patient


def what_the_audit_has_told_is_on_no_disk_without_its_taint() -> None:
    """Its record says what was told: with that alone on the disk, a kill forgets the taint, and nothing shows it again."""
    kept = list[VolumeState]()
    with telling() as story, patch.object(state_save, "save_state", lambda _, state: kept.append(state)):
        loop = PrimaryLoop(story.volume)

        def look(*_: object) -> list[ev.Event]:
            story.volume.auditor.record = {"told": 1}  # type: ignore[misc]
            return [ev.Tainted(MISSED)]

        story.volume.auditor.look = look  # type: ignore[method-assign,assignment]
        with (
            patch.object(loop, "_use", SimpleNamespace(begin=lambda *_: None)),
            patch.object(loop, "_take_use", lambda now: None),
            patch.object(loop, "save_status", lambda report: None),
            patch.object(story.peer.verification, "advance", lambda now: None),
        ):
            loop.check_all(time.monotonic())
        story.disk.set()
        story.volume.map_writer.wait()  # and now it is killed, or is not
        loop.take_inbox(0.0)
        loop.feed.process()
        story.let_it_end()
    for state in kept:
        told = bool(state.audit and state.audit.get("told"))
        assert not told or state.record(1).taints, "the audit has told of it, and the taint is not there"
    assert kept and kept[-1].record(1).taints


def a_start_has_its_taints_on_the_disk_before_it_attaches() -> None:
    """After a power loss: programs that are attached before would look as if they had tracked everything, or killed with the
    marks of before gone nobody would know why the volume is tainted."""
    rng = random.Random(1)
    kinds = ["work"] * 30 + ["power_primary"] + ["flush"] * 30
    World(Plan(1, SHORT_CALM, tuple(Op(kind, rng.getrandbits(32), 0.1) for kind in kinds))).play()


def secondaries_that_a_kill_left_with_two_names_are_brought_to_one() -> None:
    """It came just as a secondary was added and the volume took a new name."""
    records = (
        SecondaryRecord(1, "a:1", SyncPhase.REPLICATING, "11" * 16, generations=Generations(6, (5,))),
        SecondaryRecord(2, "b:1", SyncPhase.REPLICATING, "22" * 16, generations=Generations(5)),
    )
    state = VolumeState("ab" * 16, 1 << 20, 4096, "/dev/x", {}, records, generations=Generations(6, (), (5,)))
    started = begun(state, (), assumed=False, disk_sequence=None)
    assert [record.generations.current for record in started.secondaries] == [6, 6]


def what_was_left_out_is_kept_once_more_for_the_flip_of_another() -> None:
    """Bits that come meanwhile are not in what is on its way to the disk."""
    state, quiet = left_out_and_written(3)
    quiet.retire(0.1)
    taken_effects(state)
    write(state, 4)
    quiet.taken(asked=False, in_log=True)
    state.acknowledged = state.sequence
    quiet.left_out_kept("", 0.2)
    quiet.retire(0.2)
    assert taken_effects(state) == [ev.KeepLeftOut()], "block 4 is left out on the disk"


STORIES = {
    "one that is written down and not replicated to keeps an older name of the volume": (
        secondaries_that_a_kill_left_with_two_names_are_brought_to_one
    ),
    "what is kept of one flip counts for the flip of another": (
        what_was_left_out_is_kept_once_more_for_the_flip_of_another
    ),
    "a secondary hears of a name before that is on the disk of its primary": a_name_that_is_not_on_the_disk_is_not_told,
    "people are shown what is still on its way to the disk": a_name_or_a_verification_that_is_not_on_the_disk_is_not_shown,
    "a taint that is answered is gone before that is on the disk": (
        a_taint_that_is_answered_stands_until_that_is_on_the_disk
    ),
    "what was asked to be written counts as written": a_first_time_in_sync_counts_when_it_is_on_the_disk,
    "a wait ends well before it is on the disk that the secondary is in sync": (
        a_first_time_in_sync_counts_when_it_is_on_the_disk
    ),
    "what the audit has told is written down before its taint": (
        what_the_audit_has_told_is_on_no_disk_without_its_taint
    ),
    "a start takes marks and programs away before its taint is on the disk": (
        a_start_has_its_taints_on_the_disk_before_it_attaches
    ),
}
"""For each mutant of ``mutants_of_saves`` the story that catches it."""
