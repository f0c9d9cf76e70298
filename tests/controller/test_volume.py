"""A volume's mechanical moves: records keep their order, senders and an idle disk are told of, changes are written down."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.controller.primary import state_save
from pydbt.controller.primary.configuring import Joining, begun, load_staged
from pydbt.controller.primary.effects import EffectRunner
from pydbt.controller.primary.handshake import Refused
from pydbt.controller.primary.volume import Volume
from pydbt.controller.requests import Request
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import DeviceError, StateError
from pydbt.core.primary import events as ev
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.flight_watch import LONGEST_FLIGHT_S
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.generations import Generations
from pydbt.core.tracking.capture_record import RECORD
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import load_state
from tests.controller.volumes import BLOCKS, GEOMETRY, volume_of, written

CONFIG = PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)


@pytest.fixture
def volume(tmp_path: Path):
    made = volume_of(tmp_path, *(SecondaryRecord(slot, f"h:{slot}", SyncPhase.REPLICATING) for slot in (1, 2)))
    yield made
    for peer in made.peers.values():
        peer.close()


def captured(volume: Volume) -> list[int]:
    """The blocks of the records that wait for the brains."""
    return [
        int(block)
        for _, event in volume.events
        if isinstance(event, ev.Captured)
        for block in event.records["sector"] // 8
    ]


@pytest.mark.parametrize(("asked", "watches"), [("on", (True, True)), ("auto", (False, True)), ("off", (False, False))])
def test_memory_is_watched_as_asked_for_and_the_notices_tell_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, watches: tuple[bool, bool]
) -> None:
    guests = False
    monkeypatch.setattr("pydbt.controller.primary.volume.guests_may_run", lambda: guests)
    volume = volume_of(tmp_path, watch_memory=asked)
    assert volume.capture.watches == (asked != "off"), "until somebody has looked"
    volume.note_use(())
    assert volume.capture.watches == watches[0] and not volume.notices
    guests = True
    volume.note_use(("/dev/swap",))
    assert volume.capture.watches == watches[1]
    told = " ".join(volume.notices)
    assert "/dev/swap is swap on this volume" in told and ("read again" in told) == watches[1]
    assert ("virtual machines may run" in told) == (asked == "off")
    volume.note_use(())
    assert volume.capture.watches == watches[1], "a guest that has ended may come back"


def test_a_loop_device_that_may_lie_is_told_once_and_stays_told(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        volume.note_loops("a file with holes")
    assert volume.notices == ("a file with holes",) and caplog.text.count("a file with holes") == 1


def test_records_that_wait_come_ahead_of_later_ones_and_of_other_events(volume: Volume) -> None:
    volume.capture.write(1)
    volume.drain()
    volume.events.append((None, ev.Tick()))
    volume.capture.write(2)
    ahead = volume.catch_up()
    blocks = [int(b) for _, event in ahead if isinstance(event, ev.Captured) for b in event.records["sector"] // 8]
    assert list(dict.fromkeys(blocks)) == [1, 2]
    assert list(volume.events) == [(None, ev.Tick())]
    assert volume.capture.consumer_position() == volume.capture.producer_position()


def test_an_empty_ring_is_told_of_once_to_a_secondary_that_joins(volume: Volume) -> None:
    volume.join(1, Joining(CONFIG))
    assert not volume.drain()
    assert [event.position for _, event in volume.events] == [0]
    volume.events.clear()
    assert not volume.drain() and not volume.events
    volume.join(2, Joining(CONFIG))
    volume.drain()
    assert len(volume.events) == 1


def test_places_whose_records_were_lost_are_told_of_when_the_ring_passes_over_them(volume: Volume) -> None:
    volume.join(1, Joining(CONFIG))
    volume.capture.write(1)
    volume.capture.lose(3)
    assert volume.drain()
    assert [(len(event.records), event.position, event.lost) for _, event in volume.events] == [(2, 2, 3)]
    volume.events.clear()
    assert not volume.drain(), "no record is behind the hole"
    assert [(len(event.records), event.position, event.lost) for _, event in volume.events] == [(0, 5, 3)]
    volume.events.clear()
    assert not volume.drain() and not volume.events


@pytest.mark.parametrize("sleeps", [False, True])
def test_no_moment_is_promised_behind_which_a_record_may_lie(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, sleeps: bool
) -> None:
    """Writes come at each look at the clock, as while this process does not get to run."""
    clock, writes = [100.0], [1, 2]

    def monotonic() -> float:
        clock[0] += 1.0
        if writes:
            volume.capture.write(writes.pop(0))
        return clock[0]

    monkeypatch.setattr("pydbt.controller.primary.volume.time", SimpleNamespace(monotonic=monotonic))
    volume.sleeps = sleeps
    volume.drain()
    assert volume.drained_at == 101.0, "the second write came after this moment"
    assert volume.capture.producer_position() == 4
    volume.drain()
    assert volume.drained_at > 101.0
    before, volume.capture.ring = volume.drained_at, [None, *volume.capture.ring]
    monkeypatch.setattr(volume.capture, "drain", lambda limit: np.zeros(0, RECORD))
    volume.drain()
    assert volume.drained_at == before, "a record is still being filled in"


def test_a_ring_that_is_never_empty_is_still_read_up_to_some_moment(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("pydbt.controller.primary.volume.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("pydbt.controller.primary.volume.RECORDS_A_LOOK", 2)
    volume.capture.write(1)
    for block in range(10):
        clock[0] += 1.0
        volume.capture.write(block)
        volume.drain()
        assert volume.has_records
    assert 103.0 < volume.drained_at < 110.0


def test_a_drain_has_the_records_in_their_order(volume: Volume) -> None:
    volume.capture.write(5)
    volume.capture.write(3)
    assert volume.drain()
    assert list(dict.fromkeys(captured(volume))) == [5, 3]


def test_blocks_that_are_pending_when_a_secondary_joins_are_in_its_map_alone(volume: Volume) -> None:
    pending = DirtyMap(BLOCKS)
    pending.set_range(3, 2)
    first, second = volume.join(1, Joining(CONFIG, pending)), volume.join(2, Joining(CONFIG))
    assert first.brain.state.tracker.pending.contains(4)
    assert not second.brain.state.tracker.pending.any()
    assert volume.brains == [first.brain, second.brain]


def test_an_idle_disk_is_told_of_only_while_a_brain_is_not_certain(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = volume.join(1, Joining(CONFIG))
    monkeypatch.setattr(peer.brain.state.in_flight, "certain", False)
    volume.look_for_idle_disk()
    assert list(volume.events) == [(None, ev.DiskQuiet(0))]
    volume.look_for_idle_disk()
    assert len(volume.events) == 1, "it is looked at too often"
    volume.events.clear()
    monkeypatch.setattr(volume, "_next_idle_look", 0.0)
    monkeypatch.setattr(peer.brain.state.in_flight, "certain", True)
    volume.look_for_idle_disk()
    assert not volume.events


def test_a_kernel_that_keeps_no_counts_of_the_device_is_not_trusted_that_none_is_in_flight(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``queue/iostats`` is 0: it says 0 whatever is in flight, and does not count later what was submitted then."""
    volume.join(1, Joining(CONFIG)).brain.state.in_flight.certain = False
    monkeypatch.setattr(volume.device, "counts_io", lambda: False)
    volume.look_for_idle_disk()
    monkeypatch.setattr(volume.device, "counts_io", lambda: True)
    volume.look_for_idle_disk()
    assert not volume.events
    monkeypatch.setattr(volume, "_next_idle_look", volume._next_idle_look - LONGEST_FLIGHT_S)
    volume.look_for_idle_disk()
    assert list(volume.events) == [(None, ev.DiskQuiet(0))], "older writes have ended by now"


def test_a_device_that_is_gone_is_no_error_of_a_look_at_it(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> int:
        raise DeviceError("the disk is gone")

    volume.join(1, Joining(CONFIG)).brain.state.in_flight.certain = False
    monkeypatch.setattr(volume.device, "in_flight_writes", gone)
    monkeypatch.setattr(volume, "auditor", SimpleNamespace(look=gone))
    volume.look_for_idle_disk()
    volume.audit(0.0)
    assert not volume.events


def test_a_secondary_is_found_by_its_address_in_whatever_way_that_is_written(volume: Volume) -> None:
    found = volume.record_of(("h", 2))
    assert found is not None and found.slot == 2
    assert volume.record_of(("h", 3)) is None


def a_wait(volume: Volume, **words: object) -> Request:
    """Somebody waits; the volume is in mode normal with all of its secondaries, and has nothing else to do."""
    for brain in volume.brains:
        brain.state.mode = Mode.NORMAL
    request = Request("wait", threading.Event(), arguments=words)
    runner = EffectRunner(volume)
    asked = volume.waits.add(request, 0, None)
    runner.carry_out([one for one in volume.fanout.handle(asked, 0.0) if isinstance(one[1], ev.AnswerWait)])
    return request


def test_a_wait_fails_when_the_source_cannot_give_a_block_to_those_whom_it_is_for(volume: Volume) -> None:
    for number in (1, 2):
        peer = volume.join(number, Joining(CONFIG))
        peer.brain.state.unreadable.add(np.array([3]), 0.0)
    failed = a_wait(volume, timeout=5.0).error
    assert failed is not None and failed.exit_code == 6 and "/dev/x" in str(failed) and "byte 12288" in str(failed)
    volume.peers[2].brain.state.unreadable.remove(np.array([3]))
    assert a_wait(volume).error is not None
    assert a_wait(volume, any=True).result == {"sequence": 0}


def test_a_wait_without_a_limit_fails_when_the_target_of_one_does_not_take_a_block(volume: Volume) -> None:
    peer = volume.join(1, Joining(CONFIG))
    peer.brain.state.replica.unwritable = Runs.of_blocks(np.array([3, 4]))
    failed = a_wait(volume).error
    assert failed is not None and failed.exit_code == 6 and failed.args[0].startswith("8192 bytes of the target of ")
    assert peer.address in str(failed) and "byte 12288" in str(failed) and "--timeout" in str(failed)
    assert not a_wait(volume, timeout=5.0).done.is_set(), "it uses its time"


def test_a_wait_for_a_secondary_that_refuses_the_volume_ends_with_its_refusal(volume: Volume) -> None:
    refusing, _ = volume.join(1, Joining(CONFIG)), volume.join(2, Joining(CONFIG))
    request = a_wait(volume)
    assert request.result is not None
    refusing.refusal = Refused("split-brain", "both sides were written")
    volume.fanout.handle(ev.PauseAsked("refused", Mode.REFUSED), 0.0, 1)
    request = Request("wait", threading.Event(), arguments={"timeout": 5.0})
    asked = volume.waits.add(request, 0, (1,))
    EffectRunner(volume).carry_out([one for one in volume.fanout.handle(asked, 0.0) if one[0] == 1])
    assert request.error is refusing.refusal


def test_changes_are_written_down_and_nothing_is_written_without_one(volume: Volume) -> None:
    peer = volume.join(1, Joining(CONFIG))
    volume.keep()
    written(volume)
    path = next(volume.metadata.state_dir.iterdir())
    before = path.stat().st_mtime_ns, path.stat().st_ino
    volume.keep()
    written(volume)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    peer.brain.state.taints["an unknown operation wrote"] = 1
    assert peer.taints_changed()
    volume.keep()
    assert not peer.taints_changed(), "it is on its way to the disk"
    written(volume)
    state = load_state(volume.metadata.state_dir)
    assert state is not None
    assert [entry["reason"] for entry in state.record(1).taints] == ["an unknown operation wrote"]
    assert not peer.taints_changed()


def test_a_secondary_that_is_only_written_down_has_the_name_of_the_volume_on_the_disk(volume: Volume) -> None:
    """Else a kill in the middle of ``add`` would leave secondaries of two generations, with which no start goes well."""
    volume.metadata.change(generations=Generations(5))
    volume.metadata.change_record(1, generations=Generations(5, shared=True))
    volume.metadata.change_record(2, generations=Generations(5, (), (4,)))
    volume.metadata.keep_generations({1: Generations(6, (5,))})
    written(volume)
    on_disk = load_state(volume.options.state_dir)
    assert [record.generations.current for record in (*on_disk.secondaries, on_disk)] == [6, 6, 6]
    assert on_disk.record(2).generations.past == (5, 4), "what it may have been told is still in its past"


def test_a_start_brings_secondaries_of_two_generations_to_the_newest(volume: Volume) -> None:
    volume.metadata.change(generations=Generations(6, (), (5,)))
    volume.metadata.change_record(1, generations=Generations(6, (5,)))
    volume.metadata.change_record(2, generations=Generations(5))
    state = begun(volume.metadata.state, (), assumed=False, disk_sequence=None)
    assert [record.generations.current for record in state.secondaries] == [6, 6]
    assert state.record(2).generations.past == (5,)


def test_blocks_in_the_stage_of_the_secondary_count_as_out_of_sync_in_the_next_run_too(volume: Volume) -> None:
    peer, state, place = volume.join(1, Joining(CONFIG)), volume.metadata.state, volume.metadata.state_dir
    peer.brain.state.staged.set_range(5, 3)
    peer.brain.state.replica.unfinished = True
    peer.maps.write()
    record = record_on_disk(volume)
    kept = load_staged(place, state, record)
    assert kept is not None and kept.extents().blocks().tolist() == [5, 6, 7]
    again = volume.join(2, Joining(CONFIG, staged=kept))
    assert again.brain.out_of_sync_bytes() == 3 * 4096 and not again.brain.state.tracker.pending.any()
    (place / record.staged_name).write_bytes(b"torn")
    torn = load_staged(place, state, record)
    assert torn is not None and torn.count() == BLOCKS, "it may be any block"
    peer.brain.state.staged.clear()
    peer.maps.write()
    assert not (place / record.staged_name).exists()
    unknown = load_staged(place, state, record)
    assert unknown is not None and unknown.count() == BLOCKS, "as a run of an earlier version leaves it"
    assert load_staged(place, state, replace(record, unfinished=False)) is None


def record_on_disk(volume: Volume) -> SecondaryRecord:
    """As it is on disk."""
    state = load_state(volume.metadata.state_dir)
    assert state is not None
    return state.record(1)


def test_a_state_that_cannot_be_written_is_told_in_every_status_until_it_can(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StateError("/state/volume.json cannot be written: No space left on device")

    volume.keep()
    written(volume)
    assert volume.notices == ()
    with monkeypatch.context() as disk:
        disk.setattr(state_save, "save_state", full)
        volume.metadata.unsaved = True
        volume.keep()
        written(volume)
        (notice,) = volume.notices
        assert "No space left" in notice and "after a kill" in notice
    volume.keep()
    written(volume)
    assert volume.notices == () and load_state(volume.metadata.state_dir) == volume.metadata.state
