"""Maps go to disk in a thread of their own: the loop drains the ring meanwhile, and goes on by the answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.controller.primary import peer_maps, use_watch
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.primary.peer import Peer
from pydbt.core.errors import StateError
from pydbt.core.primary import events as ev
from pydbt.core.primary.config import PrimaryConfig
from pydbt.posix import atomic
from pydbt.posix import files as posix_files
from pydbt.store import map_keeper
from pydbt.store.map_file import load_map
from pydbt.store.map_keeper import MapKeeper
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import GEOMETRY, FakeCapture, give_up, volume_of


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrimaryLoop]:
    """Its one secondary is away."""
    monkeypatch.setattr(use_watch, "maps_memory", lambda _: False)
    monkeypatch.setattr(use_watch, "swap_paths", lambda: [])
    volume = volume_of(tmp_path, SecondaryRecord(1, "h:1", phase=SyncPhase.REPLICATING))
    peer = volume.join(1, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
    peer.brain.link._retry_at = float("inf")
    made = PrimaryLoop(volume)
    made._next_check = float("inf")
    yield made
    volume.map_writer.wait()
    volume.map_writer.close()
    peer.close()


def only(loop: PrimaryLoop) -> Peer:
    return loop.volume.peers[1]


def persist(loop: PrimaryLoop, number: int) -> None:
    assert only(loop).maps.persist(ev.Persist(zero_quiet=False, number=number)) is None, "it was written in the loop"


class SlowDisk:
    """Syncs that wait until ``go_on`` is set; ``reached`` when one waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on, self.reached = threading.Event(), threading.Event()
        self.threads: set[str] = set()
        for module in (posix_files, atomic, map_keeper):
            real = module.os  # type: ignore[attr-defined]
            slow = SimpleNamespace(**{name: getattr(real, name) for name in dir(real)})
            slow.fsync = slow.fdatasync = self._sync
            monkeypatch.setattr(module, "os", slow)

    def _sync(self, descriptor: int) -> None:
        self.threads.add(threading.current_thread().name)
        self.reached.set()
        assert self.go_on.wait(30)


def test_the_ring_is_drained_while_a_map_s_sync_waits(loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, capture, brain = SlowDisk(monkeypatch), loop.volume.capture, only(loop).brain
    assert isinstance(capture, FakeCapture)
    brain.state.replica.scanned = True
    while not disk.reached.is_set():  # away, its maps are merged and written now and then
        loop.turn(0.01)
    for block in range(40):
        capture.write(block)
        loop.turn(0.0, deadlines=False)
        assert not capture.ring, "the records stay in the ring"
    assert not brain.quiet.idle and load_map(loop.volume.metadata.state_dir / "dirty.map") is None
    assert capture.maps.any(), "the bits of the flip stay in the kernel until the map that has them is on disk"
    disk.go_on.set()
    loop.volume.map_writer.wait()
    loop.turn(0.0, deadlines=False)
    assert brain.quiet.idle and not brain.quiet.error
    assert disk.threads == {"maps"}


def test_blocks_that_are_rewritten_for_ever_are_recorded_once(
    loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a journal's, a superblock's, those of inode tables (¶98.1): each merge finds them, and writes nothing."""
    written: list[int] = []
    keep = MapKeeper.keep
    monkeypatch.setattr(MapKeeper, "keep", lambda *given: written.append(keep(*given)) or written[-1])
    capture, brain = loop.volume.capture, only(loop).brain
    assert isinstance(capture, FakeCapture)
    brain.state.replica.scanned = True

    def merge(*blocks: int) -> int:
        """Writes, and their way to the map's file: the bytes that are written there."""
        for block in blocks:
            capture.write(block)
        asked, brain.next_merge = brain.quiet.writes, 0.0
        while brain.quiet.writes == asked or not brain.quiet.idle:
            loop.turn(0.01)
            loop.volume.map_writer.wait()
        assert not capture.maps[1 - capture.active].any(), "the bits were given up"
        return sum(written[asked - begun :])

    begun = brain.quiet.writes
    assert merge(3, 4) > 0
    assert [merge(3, 4), merge(4), merge(3, 3)] == [0, 0, 0] and len(written) >= 4
    assert merge(3, 5) > 0, "another block is recorded"
    loaded = load_map(loop.volume.metadata.state_dir / "dirty.map")
    assert loaded is not None and loaded[1].extents().blocks().tolist() == [3, 4, 5]


def test_maps_are_written_and_answered_in_their_order_as_they_were_asked_for(loop: PrimaryLoop) -> None:
    pending = only(loop).brain.state.tracker.pending
    for number in (1, 2, 3):
        pending.set_blocks(np.array([number]))
        persist(loop, number)
        pending.clear_blocks(np.array([number]))
    loop.volume.map_writer.wait()
    loop.take_inbox(0.0)
    heard = [event for _, event in loop.volume.events if isinstance(event, ev.Persisted)]
    assert [event.number for event in heard] == [1, 2, 3] and not any(event.error for event in heard)
    loaded = load_map(loop.volume.metadata.state_dir / "dirty.map")
    assert loaded is not None and loaded[1].extents().blocks().tolist() == [3]


def test_blocks_that_left_the_map_count_as_missing_until_the_newest_map_is_on_disk(loop: PrimaryLoop) -> None:
    replica = only(loop).brain.state.replica
    for number, unfinished in ((1, False), (2, True)):
        replica.unfinished = unfinished
        persist(loop, number)
    loop.volume.map_writer.wait()
    loop.take_inbox(0.0)
    assert only(loop).record.unfinished, "the answer to the first write takes back what the second one counts on"
    replica.unfinished = False
    persist(loop, 3)
    assert only(loop).record.unfinished, "it is not on disk yet, as far as the loop has heard"
    loop.volume.map_writer.wait()
    loop.take_inbox(0.0)
    assert not only(loop).record.unfinished


def test_a_fault_of_ours_is_an_answer_too(loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise RuntimeError("a fault")

    monkeypatch.setattr(MapKeeper, "keep", fails)
    persist(loop, 1)
    loop.volume.map_writer.wait()
    loop.take_inbox(0.0)
    assert [(event.error, event.zeroed) for _, event in loop.volume.events] == [("a fault", False)]  # type: ignore[union-attr]


def test_a_job_that_fails_does_not_end_the_thread(loop: PrimaryLoop, caplog: pytest.LogCaptureFixture) -> None:
    done = []
    loop.volume.map_writer.submit(lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    loop.volume.map_writer.submit(lambda: done.append(1))
    loop.volume.map_writer.wait()
    assert done == [1] and "writing a map failed" in caplog.text


def test_the_map_of_left_out_blocks_is_written_behind_the_other_maps_and_again_after_a_failure(
    loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out, path = only(loop).brain.state.left_out, loop.volume.metadata.state_dir / "free.map"
    left_out.blocks.set_range(3, 2)
    left_out.grew = True

    def fails(*_: object) -> None:
        raise StateError("no space left on device")

    with monkeypatch.context() as full:
        full.setattr(peer_maps, "_keep_or_remove", fails)
        loop.volume.keep()
        loop.volume.map_writer.wait()
    assert not path.exists() and not left_out.grew
    loop.volume.keep()
    loop.volume.map_writer.wait()
    loaded = load_map(path)
    assert loaded is not None and loaded[1].extents().blocks().tolist() == [3, 4]
    before = path.stat().st_mtime_ns
    loop.volume.keep()
    loop.volume.map_writer.wait()
    assert path.stat().st_mtime_ns == before


def test_no_file_of_a_secondary_comes_back_after_it_was_removed(
    loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, peer = SlowDisk(monkeypatch), only(loop)
    persist(loop, 1)
    assert disk.reached.wait(10)
    threading.Timer(0.05, disk.go_on.set).start()
    give_up(loop, peer)
    loop.volume.map_writer.wait()
    assert not (loop.volume.metadata.state_dir / "dirty.map").exists()
    loop.volume.peers[1] = peer  # for the end of the test


def test_before_the_blocks_in_use_are_known_there_is_nothing_to_write(loop: PrimaryLoop) -> None:
    only(loop).brain.quiet.mapped = False
    answer = only(loop).maps.persist(ev.Persist(zero_quiet=True, cover=True, number=4))
    assert answer == ev.Persisted(zeroed=True, cover=True, number=4) and answer.number == 4
    assert not (loop.volume.metadata.state_dir / "dirty.map").exists()
