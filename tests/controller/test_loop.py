"""A turn of the primary's loop, its ending, and what it writes down, around a capture that is simulated."""

from __future__ import annotations

import socket
import threading
from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.controller.primary import below_watch, state_save, use_watch
from pydbt.controller.primary import ending as primary_ending
from pydbt.controller.primary import peer as primary_peer
from pydbt.controller.primary.below_watch import BelowWatch
from pydbt.controller.primary.block_reader import THREADS
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.ending import finish, run_to_the_end
from pydbt.controller.primary.handshake import Welcomed
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.primary.peer_connection import Attempt
from pydbt.controller.requests import Request
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import DeviceError, StateError
from pydbt.core.primary import events as ev
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.handover import Step
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.quiet_bitmap import TakingBitmap
from pydbt.core.protocol.frames import Welcome
from pydbt.core.protocol.generations import NO_GENERATIONS, Generations
from pydbt.core.tracking.below import Below, mapping
from pydbt.network.connection import FramedConnection
from pydbt.store import map_keeper
from pydbt.store.map_file import load_map
from pydbt.store.secondary_record import MAP_FILE_NAME, SecondaryRecord, SyncPhase
from pydbt.store.volume_state import load_state
from tests.controller.volumes import GEOMETRY, give_up, written
from tests.lab.patience import until


def test_writes_reach_the_stream_in_the_order_in_which_they_were_made_whoever_waits(loop):
    loop.volume.capture.write(1)
    loop.volume.drain()
    loop.volume.capture.write(2)
    loop.commands.carry_out(Request("wait", threading.Event()))  # as between two looks at the inbox
    loop.volume.brains[0].next_retire = 0.0  # the bitmaps are to be flipped now
    loop.volume.capture.graces = [3]
    loop.feed.process()
    assert loop.volume.capture.order == [1, 2, 3]


def test_the_bits_of_what_is_on_the_secondary_go_before_the_end_also_when_nothing_more_is_heard_of_it(monkeypatch):
    """Between two heartbeats there may be a second in which the brain hears nothing, but of the time."""
    now, dirty, events = [100.0], [1], deque()
    monkeypatch.setattr(primary_ending.time, "monotonic", lambda: now[0])
    state = SimpleNamespace(position=8, acknowledged=3, sequence=3, unsettled=())
    brain = SimpleNamespace(snapshot_based=False, mode=Mode.NORMAL, state=state)
    other = SimpleNamespace(snapshot_based=False, mode=Mode.UNSYNCHRONIZED)
    capture = SimpleNamespace(producer_position=lambda: 8, dirty_counts=lambda: (dirty[0], 0))
    peers = {0: SimpleNamespace(brain=other), 1: SimpleNamespace(brain=brain)}
    volume = SimpleNamespace(brains=[other, brain], peers=peers, capture=capture, events=events)

    def turn(timeout_s: float, *, deadlines: bool) -> bool:
        assert not deadlines and all(number == 1 for number, _ in events), "those that do not follow begin nothing new"
        if (1, ev.EveryBitAsked()) in events:
            dirty[0] = 0
        events.clear()
        now[0] += timeout_s
        return False

    assert not primary_ending.drain_streams(SimpleNamespace(volume=volume, turn=turn)), "one does not follow"
    assert not dirty[0] and now[0] < 100.0 + primary_ending.RETIRE_S


def test_a_secondary_that_is_removed_while_the_last_writes_go_out_is_waited_for_no_longer(monkeypatch):
    monkeypatch.setattr(primary_ending.time, "monotonic", lambda: 100.0)
    state = SimpleNamespace(position=8, acknowledged=3, sequence=3, unsettled=())
    brain = SimpleNamespace(snapshot_based=False, mode=Mode.NORMAL, state=state)
    capture = SimpleNamespace(producer_position=lambda: 8, dirty_counts=lambda: (1, 0))
    peers = {0: SimpleNamespace(brain=brain)}
    brains = [brain]
    volume = SimpleNamespace(peers=peers, brains=brains, capture=capture, events=deque())

    def turn(timeout_s: float, *, deadlines: bool) -> bool:
        assert deadlines is False and timeout_s > 0
        peers.clear()
        brains.clear()
        brain.mode = Mode.REMOVED
        return False

    assert not primary_ending.drain_streams(SimpleNamespace(volume=volume, turn=turn)), "nobody is left to have it all"
    assert not volume.events, "an event for a secondary that is not there"


def test_a_change_of_places_in_which_nobody_follows_any_more_does_not_spin_until_it_is_given_up(monkeypatch):
    now, turns = [100.0], []
    steps = SimpleNamespace(step=Step.DRAINING)
    change = SimpleNamespace(ready=True, steps=steps, request=None)
    commands = SimpleNamespace(handing_over=change, down=None)

    def turn(timeout_s: float) -> None:
        turns.append(timeout_s)
        assert len(turns) < 10_000, "no time passes"
        now[0] += timeout_s

    def drained(reached: bool, at: float) -> None:
        assert not reached
        change.ready = at < 101.0

    change.drained = drained
    monkeypatch.setattr(primary_ending.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(primary_ending, "drain_streams", lambda _: False)
    monkeypatch.setattr(primary_ending, "finish", lambda _: None)
    loop = SimpleNamespace(commands=commands, asked_to_end=False, fatal=None, turn=turn, run=lambda: None)
    assert run_to_the_end(loop) == 0 and now[0] >= 101.0


def test_a_write_while_the_controller_goes_down_is_in_the_map_it_leaves(loop, monkeypatch):
    loop.commands.down = Request("down", threading.Event())
    monkeypatch.setattr(primary_ending, "drain_streams", lambda *_: True)  # everything so far is acknowledged
    loop.volume.brains[0].state.payload_on = True
    loop.volume.capture.graces = [5]  # written while payload capture is switched off
    finish(loop)
    _, pending = load_map(loop.volume.options.state_dir / MAP_FILE_NAME)
    assert pending.contains(5)


def test_a_file_system_that_is_mounted_with_dax_meanwhile_ends_the_run_and_nothing_after_it_is_trusted(
    loop, monkeypatch
):
    loop.check(0.0)
    assert loop.fatal is None
    monkeypatch.setattr(use_watch, "maps_memory", lambda _: True)
    monkeypatch.setattr(use_watch, "swap_on", lambda _: [])
    monkeypatch.setattr(use_watch, "unseen_stores", lambda *_, **__: "it can be mapped with DAX")
    loop.check(2.0)
    until(lambda: loop.turn(0.01, deadlines=False) and loop.fatal is not None, "it is seen")
    assert isinstance(loop.fatal, DeviceError) and "DAX" in str(loop.fatal)
    finish(loop)
    assert loop.volume.detached and load_state(loop.volume.options.state_dir).clean is None


def test_swap_on_the_volume_is_told_once_in_the_log_and_in_every_report(loop, monkeypatch, caplog):
    monkeypatch.setattr(use_watch, "swap_paths", lambda: ["/dev/x"])
    monkeypatch.setattr(use_watch, "unseen_stores", lambda *_, **__: "")
    monkeypatch.setattr(use_watch, "swap_on", lambda _: ["/dev/x"])
    for now in (10.0, 11.0, 20.0):
        loop.check_all(now)
        until(lambda: loop.turn(0.01, deadlines=False) or loop.volume.notices, "it is seen")
    assert [record.levelname for record in caplog.records if "is swap" in record.message] == ["WARNING"]
    assert "/dev/x is swap" in loop.volume.notices[0]
    monkeypatch.setattr(use_watch, "swap_paths", lambda: [])
    until(lambda: loop.check_all(30.0) or not loop.volume.notices, "there is none any more")


def test_the_loop_does_not_wait_for_a_table_of_mounts_and_says_when_it_does_not_know(loop, monkeypatch):
    read = threading.Event()
    monkeypatch.setattr(use_watch, "maps_memory", lambda _: True)
    monkeypatch.setattr(use_watch, "unseen_stores", lambda *_, **__: read.wait() and "")
    monkeypatch.setattr(use_watch, "swap_on", lambda _: [])
    loop.check_all(10.0)
    loop.check_all(11.0)
    assert loop.fatal is None and loop.volume.notices == ()
    loop.check_all(31.0)
    assert "it is unknown whether /dev/x is used as swap or mapped with DAX" in loop.volume.notices[0]
    read.set()
    until(lambda: loop.check_all(32.0) or not loop.volume.notices, "it is known")


def test_a_look_that_fails_is_told_until_one_does_not(loop, monkeypatch):
    def fails(*_: object) -> list[str]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(use_watch, "swap_paths", lambda: ["/dev/y"])
    monkeypatch.setattr(use_watch, "unseen_stores", lambda *_, **__: "")
    monkeypatch.setattr(use_watch, "swap_on", fails)
    until(lambda: loop.check_all(10.0) or loop.volume.notices, "it is told")
    assert "Input/output error" in loop.volume.notices[0]
    monkeypatch.setattr(use_watch, "swap_on", lambda _: [])
    until(lambda: loop.check_all(20.0) or not loop.volume.notices, "it is known")


def test_one_look_makes_one_report_for_the_file_and_for_whoever_follows_it(loop, monkeypatch):
    shown, saved = [], []
    monkeypatch.setattr(loop, "save_status", saved.append)
    loop.volume.options = replace(loop.volume.options, report=shown.append)
    loop.check_all(10.0)
    assert len(shown) == len(saved) == 1 and shown[0] is saved[0]
    loop.check_all(11.0)
    assert len(shown) == 2 and len(saved) == 1


def test_between_two_saves_no_maps_of_several_secondaries_are_put_together(loop, monkeypatch):
    volume, united, looked = loop.volume, [], []
    record = SecondaryRecord(2, "127.0.0.1:9", phase=SyncPhase.REPLICATING)
    volume.metadata.state = volume.metadata.on_disk = volume.metadata.state.with_record(record)
    volume.join(2, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
    right = volume.fanout.lacking_bytes
    monkeypatch.setattr(volume.fanout, "lacking_bytes", lambda: (united.append(1), right())[1])
    monkeypatch.setattr(
        loop.event_log, "look", lambda told, now, *, exact: looked.append((told().together.out_of_sync_bytes, exact))
    )
    for brain in volume.brains:
        brain.state.tracker.pending.set_blocks(np.array([1, 2]))
    for now in (10.0, 11.0, 12.0):
        loop.check_all(now)
    assert len(united) == 1 and looked == [(2 * 4096, True), (4 * 4096, False), (4 * 4096, False)]
    assert loop.report().together.out_of_sync_bytes == 2 * 4096, "who asks is told exactly"
    volume.peers[2].close()


def below_x(kind: str) -> Below:
    return Below("boot", {"253:0": mapping("vg-x", [["0", "8", kind, "253:1", "253:2", "P", "8"]])}, groups={})


def test_a_look_below_is_taken_in_a_thread_and_the_loop_heeds_it_when_it_is_there(loop, monkeypatch):
    answers, (brain,) = threading.Event(), loop.volume.brains
    monkeypatch.setattr(below_watch, "look_below", lambda *_, **__: below_x("linear"))
    watched = PrimaryLoop(loop.volume, below=BelowWatch(loop.volume.device, loop.volume.metadata.state))
    monkeypatch.setattr(below_watch, "look_below", lambda *_, **__: answers.wait() and below_x("snapshot-merge"))
    monkeypatch.setattr(below_watch, "ANSWER_S", 0.0)
    watched.look_below()
    for _ in range(3):
        watched.look_below()
        watched.turn(0.0)
    assert "it is unknown whether the content" in watched.report().notices[0] and not brain.state.taints
    answers.set()
    until(lambda: watched.turn(0.1) and brain.state.taints, "the look is heeded")
    assert brain.state.taints and watched.report().notices == ()
    assert "snapshot-merge" in str(watched.volume.metadata.state.more["below"])


def test_a_map_that_could_not_be_written_is_not_trusted_at_the_next_start(loop, monkeypatch):
    def fails(*_):
        raise StateError("no space left on device")

    loop.commands.down = Request("down", threading.Event())
    monkeypatch.setattr(primary_ending, "drain_streams", lambda *_: False)
    monkeypatch.setattr(map_keeper, "save_map", fails)
    loop.volume.capture.write(9)
    finish(loop)
    assert not loop.volume.capture.detached or loop.volume.metadata.state.clean is None


def test_bits_that_could_not_be_saved_in_a_map_stay_in_the_kernel(loop, monkeypatch):
    """``down`` on a full disk: the programs stay, and so must their bits, for the next controller to read."""

    def fails(*_):
        raise StateError("no space left on device")

    loop.commands.down = Request("down", threading.Event())
    monkeypatch.setattr(primary_ending, "drain_streams", lambda *_: False)
    loop.volume.capture.write(9)
    monkeypatch.setattr(map_keeper, "save_map", fails)
    finish(loop)
    assert not loop.volume.capture.detached
    assert loop.volume.capture.maps[:, 9].any()


def test_a_tainted_volume_is_compared_as_a_whole_at_the_next_start(loop, monkeypatch):
    loop.commands.down = Request("down", threading.Event())
    monkeypatch.setattr(primary_ending, "drain_streams", lambda *_: True)
    loop.volume.brains[0].handle(ev.Tainted("a command that went to the disk past the block layer"), 0.0)
    finish(loop)
    assert loop.volume.metadata.state.clean is None


@pytest.mark.parametrize("looked_at", [False, True])
def test_a_secondary_that_never_connected_costs_the_others_no_comparison_after_a_clean_stop(
    loop, monkeypatch, looked_at
):
    """Of such a one there is no map, which tells all there is to tell; a map of another replica tells nothing of this one."""
    record = SecondaryRecord(2, "127.0.0.1:9")
    loop.volume.metadata.state = loop.volume.metadata.on_disk = loop.volume.metadata.state.with_record(record)
    peer = loop.volume.join(2, Joining(PrimaryConfig(GEOMETRY, epoch=7, replica="cd" * 16, scan_used=not looked_at)))
    peer.brain.link._retry_at = float("inf")
    if looked_at:
        peer.brain.handle(ev.Connected("ef" * 16, "consistent", 1, 1, False, False), 0.0)
    loop.commands.down = Request("down", threading.Event())
    monkeypatch.setattr(primary_ending, "drain_streams", lambda *_: True)
    finish(loop)
    assert loop.volume.detached and bool(loop.volume.metadata.state.clean) != looked_at
    assert (loop.volume.options.state_dir / record.map_name).exists() == looked_at


def test_a_cancelled_verification_drops_its_readings(loop, monkeypatch):
    read, dropped = [], []
    monkeypatch.setattr(loop.volume.peers[1].blocks, "submit", lambda request: read.append(request.reading))
    monkeypatch.setattr(loop.volume.peers[1].blocks, "drop", dropped.append)
    loop.feed.take(ev.VerifyAsked(Runs(np.array([0]), np.array([4])), repair=False), 1)
    assert read and not dropped
    handled_at = loop.volume.brains[0].state.now
    loop.commands.verify({"cancel": True})
    assert dropped == read, "what was read for it is kept for ever"
    assert loop.volume.brains[0].state.now >= handled_at, "the brain was told of another time"


def test_a_flip_that_waited_for_a_secondary_is_made_when_that_is_removed(loop):
    """Its answer was lost, and the one that had asked never went on again."""
    other = SecondaryRecord(2, "h:2", phase=SyncPhase.REPLICATING)
    loop.volume.metadata.state = loop.volume.metadata.on_disk = replace(
        loop.volume.metadata.state, secondaries=(*loop.volume.metadata.state.secondaries, other)
    )
    config = PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False, quiet_held=True)
    peer = loop.volume.join(2, Joining(config))
    peer.brain.quiet._retry_at = float("inf")  # the disk for its map is full, so that it needs the quiet bitmap
    loop.volume.fanout.bitmaps.held = True
    stays = loop.volume.brains[0]
    stays.quiet.next_retire = 0.0
    loop.volume.capture.write(1)
    loop.volume.drain()
    loop.feed.process()
    assert stays.quiet.request == TakingBitmap() and stays.quiet.bits is None
    give_up(loop, peer)
    assert stays.quiet.idle and stays.quiet.bits.retire_at == stays.state.sequence


def test_two_secondaries_that_one_write_removes_are_reported_until_each_is_forgotten(loop):
    metadata, peers = loop.volume.metadata, []
    for slot in (2, 3):
        record = SecondaryRecord(slot, f"127.0.0.1:{slot}", phase=SyncPhase.REPLICATING)
        metadata.state = metadata.on_disk = metadata.state.with_record(record)
        config = PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)
        peers.append(loop.volume.join(slot, Joining(config)))
    busy = threading.Event()
    loop.volume.map_writer.submit(busy.wait)  # so that one write has both
    told: list[tuple[str, ...]] = []
    for peer in peers:
        loop.feed.part(peer, lambda error: told.append(tuple(one.secondary for one in loop.report().secondaries)))
    busy.set()
    loop.volume.map_writer.wait()
    loop.take_inbox(0.0)
    assert told == [("h:1", "127.0.0.1:3"), ("h:1",)]


def test_other_secondaries_do_not_wait_for_the_readings_of_a_removed_one(loop, monkeypatch):
    record = SecondaryRecord(2, "127.0.0.1:9", phase=SyncPhase.REPLICATING)
    loop.volume.metadata.state = loop.volume.metadata.on_disk = loop.volume.metadata.state.with_record(record)
    released, held_up = threading.Event(), threading.Event()
    monkeypatch.setattr(loop.volume.reader, "read_extent", lambda *_: released.wait(), raising=False)
    peer = loop.volume.join(2, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
    for number in range(THREADS):
        peer.blocks.submit(ev.ReadBlocks(1000 + number, Runs(np.array([0]), np.array([1]))))
    watch = threading.Timer(8.0, lambda: (held_up.set(), released.set()))
    watch.start()
    give_up(loop, peer)
    assert not held_up.is_set(), "a disk that does not answer holds the loop up"
    watch.cancel()
    released.set()


def test_late_answers_of_a_removed_secondary_are_not_taken_for_those_of_the_next_one_in_its_place(loop):
    """It may have been frozen, and shake hands, or be read for, when another one has got its slot and its files."""

    def joined() -> primary_peer.Peer:
        record = SecondaryRecord(2, "127.0.0.1:9", phase=SyncPhase.REPLICATING)
        loop.volume.metadata.state = loop.volume.metadata.on_disk = loop.volume.metadata.state.with_record(record)
        peer = loop.volume.join(2, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
        peer.brain.quiet._retry_at = peer.brain.link._retry_at = float("inf")
        return peer

    removed = joined()
    give_up(loop, removed)
    stays = joined()
    near, far = socket.socketpair()
    with far:
        welcome = Welcome(
            volume=None, state="inconsistent", epoch=0, sequence=0, staged=False, size_bytes=GEOMETRY.size_bytes, fresh=False,
            replica="cd" * 16, software="", generations=NO_GENERATIONS,
        )  # fmt: skip
        removed.connection.post(Attempt(stays.connection._attempt, Welcomed(FramedConnection(near), welcome)))
        removed.blocks._done(ev.BlocksRead(1, 0, 4096))
        loop.take_inbox(0.0)
        assert not loop.volume.events, "the brain in its place hears of it"
        loop.feed.process()
        assert not stays.brain.link.up
        assert far.recv(1) == b"", "its connection stays open"
    stays.close()


def persisted(loop):
    """The answer to a write of the first secondary's map, as the loop hears it."""
    volume = loop.volume
    answer = volume.peers[1].maps.persist(ev.Persist(zero_quiet=False))
    if answer is None:
        volume.map_writer.wait()
        loop.take_inbox(0.0)
        (_, answer) = volume.events.pop()
    assert isinstance(answer, ev.Persisted)
    return answer


@pytest.fixture
def full_disk(monkeypatch):
    """The state file cannot be written; calling it makes room."""
    written = state_save.save_state

    def fails(*_):
        raise StateError("no space left on device")

    monkeypatch.setattr(state_save, "save_state", fails)
    return lambda: monkeypatch.setattr(state_save, "save_state", written)


def test_a_taint_that_could_not_be_written_down_is_as_soon_as_there_is_room(loop, full_disk, monkeypatch):
    monkeypatch.setattr(loop.volume.peers[1].verification, "advance", lambda now: None)
    loop.feed.take(ev.Tainted("a write of a kind whose blocks capture does not know"))
    written(loop.volume)
    full_disk()
    loop.check(0.0)
    written(loop.volume)
    kept = load_state(loop.volume.options.state_dir).record(1)
    assert [entry["reason"] for entry in kept.taints] == list(loop.volume.brains[0].state.taints)


def test_no_map_is_written_before_the_progress_that_would_show_that_its_secondary_went_back(loop, full_disk):
    peer = loop.volume.peers[1]
    loop.volume.metadata.change_record(1, replica="cd" * 16, progress=50)
    peer.brain.state.replica.identifier, peer.brain.state.replica.progress = "cd" * 16, 70
    assert persisted(loop).error
    full_disk()
    assert not persisted(loop).error
    assert load_state(loop.volume.options.state_dir).record(1).progress == 70
    peer.brain.state.replica.progress = (
        60  # in doubt: what it says now counts when the map has everything, and not before
    )
    assert not persisted(loop).error
    assert load_state(loop.volume.options.state_dir).record(1).progress == 70
    peer.remember(ev.RememberReplica("cd" * 16, 7, 1, 60, in_sync=True))
    written(loop.volume)
    assert load_state(loop.volume.options.state_dir).record(1).progress == 60


def test_no_map_is_written_before_the_state_that_it_counts_on(loop, full_disk):
    """With the map alone, another secondary than the one it was kept for would be taken for that one."""
    peer = loop.volume.peers[1]
    peer.remember(ev.RememberReplica("cd" * 16, 7, 1, 0, in_sync=True))
    assert persisted(loop).error
    assert not (loop.volume.options.state_dir / MAP_FILE_NAME).exists()
    full_disk()
    assert not persisted(loop).error
    assert load_state(loop.volume.options.state_dir).record(1).replica == "cd" * 16


@pytest.mark.parametrize("down", [False, True])
def test_a_run_that_could_not_save_its_last_state_ends_with_that_error(loop, monkeypatch, down):
    """Not as one that can simply go on: the saved state is older than the known one."""

    def fails(*_):
        raise StateError("no space left on device")

    if down:
        loop.commands.down = Request("down", threading.Event())
        monkeypatch.setattr(primary_ending, "drain_streams", lambda *_: False)
    monkeypatch.setattr(map_keeper, "save_map", fails)
    loop.stop()
    with pytest.raises(StateError, match=r"no space left.*the last state is not saved, and writes are still tracked"):
        run_to_the_end(loop)
    assert not loop.volume.detached


def test_the_programs_are_not_taken_away_before_the_last_state_is_saved(loop, monkeypatch):
    def fails(*_):
        raise StateError("no space left on device")

    loop.commands.down = Request("down", threading.Event())
    monkeypatch.setattr(primary_ending, "drain_streams", lambda *_: False)
    monkeypatch.setattr(state_save, "save_state", fails)
    loop.stop()
    with pytest.raises(StateError, match="the last state is not saved, and writes are still tracked"):
        run_to_the_end(loop)
    assert not loop.volume.detached and not loop.volume.capture.detached


def test_a_state_file_that_could_not_be_written_before_is_tried_once_more_at_the_end(loop, monkeypatch):
    def fails(*_):
        raise StateError("no space left on device")

    loop.volume.metadata.unsaved = True
    loop.stop()
    with monkeypatch.context() as full:
        full.setattr(state_save, "save_state", fails)
        with pytest.raises(StateError, match="not saved"):
            run_to_the_end(loop)


def test_a_secondary_is_forgotten_when_that_is_on_the_disk_and_stays_when_it_cannot_be(loop, full_disk):
    """As long as it is on record, its map must name the blocks that it lacks."""
    volume, told = loop.volume, []
    volume.metadata.state = volume.metadata.on_disk = volume.metadata.state.with_record(
        SecondaryRecord(2, "127.0.0.1:9", phase=SyncPhase.REPLICATING)
    )
    peer = volume.join(2, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
    loop.feed.part(peer, told.append)
    assert volume.peers[2] is peer and 2 in volume.fanout.brains and not told
    volume.map_writer.wait()
    loop.take_inbox(0.0)
    assert told == ["no space left on device"] and volume.peers[2] is peer and peer.brain.mode is Mode.REMOVED
    full_disk()
    give_up(loop, peer)
    assert list(volume.peers) == list(volume.fanout.brains) == [1]
    kept = load_state(volume.options.state_dir)
    assert [record.slot for record in kept.secondaries] == [1] and kept.removed == ["127.0.0.1:9"]


def test_a_secondary_that_cannot_be_written_down_is_not_there(loop, full_disk):
    told = []
    metadata = loop.volume.metadata
    metadata.add("127.0.0.1:9", 7, lambda record, error: told.append((record.slot, error)))
    written(loop.volume)
    assert told == [(2, "no space left on device")] and [record.slot for record in metadata.state.secondaries] == [1]
    full_disk()
    metadata.add("127.0.0.1:9", 7, lambda record, error: told.append((record.slot, error)))
    metadata.change(generations=Generations(9, (), (), shared=False))  # the volume has got another name meanwhile
    written(loop.volume)
    written(loop.volume)
    assert told[1:] == [(2, "")] and metadata.record(2).generations.current == 9
    kept = load_state(loop.volume.options.state_dir)
    assert kept.record(2).generations.current == 9
