"""The blocks in use are looked for beside the loop, which goes on when that takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pydbt.controller.primary import used_blocks
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.effects import EffectRunner
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.primary.peer_connection import Attempt
from pydbt.core.errors import BusyError, DeviceError
from pydbt.core.primary import events as ev
from pydbt.core.primary.config import PrimaryConfig
from pydbt.device.filesystem import UsedExtents
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import BLOCKS, GEOMETRY, volume_of
from tests.lab.patience import until

FOUND = UsedExtents(np.array([4096]), np.array([8192]), "as the ext4 says", False)


@pytest.fixture
def loop(tmp_path: Path):
    volume = volume_of(tmp_path, SecondaryRecord(1, "h:1", SyncPhase.REPLICATING))
    volume.join(1, Joining(PrimaryConfig(GEOMETRY, epoch=7)))
    made = PrimaryLoop(volume)
    made._next_check = float("inf")
    yield made
    volume.peers[1].close()


def search(loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch, find: Callable[[object], UsedExtents]) -> list:
    monkeypatch.setattr(used_blocks, "used_extents", find)
    return EffectRunner(loop.volume).carry_out([(1, ev.ScanUsed(False))])


def test_a_quick_search_for_used_blocks_is_heard_before_all_that_waits(loop, monkeypatch) -> None:
    monkeypatch.setattr(used_blocks, "AT_ONCE_S", 60.0)
    ((number, answer),) = search(loop, monkeypatch, lambda _: FOUND)
    assert number == 1 and answer.runs.blocks().tolist() == [1, 2] and not answer.whole
    assert loop.volume.peers[1].scanned_whole is False and loop.volume.inbox.empty


def test_the_loop_goes_on_during_a_slow_search_and_hears_of_its_blocks_later(loop, monkeypatch) -> None:
    monkeypatch.setattr(used_blocks, "AT_ONCE_S", 0.0)
    written_out = threading.Event()
    assert search(loop, monkeypatch, lambda _: written_out.wait() and FOUND) == []
    loop.turn(0.0)
    assert loop.volume.peers[1].scanned_whole is None
    written_out.set()
    while not isinstance((heard := loop.volume.inbox.take(60.0)).what, ev.UsedBlocks):
        assert isinstance(heard.what, Attempt), "the secondary's address is looked up meanwhile"
    loop.volume.inbox.post(heard)
    until(lambda: loop.turn(0.01) and loop.volume.brains[0].state.replica.scanned, "they are on the map")
    assert loop.volume.peers[1].scanned_whole is False


def test_a_search_that_fails_is_answered_with_the_whole_device(loop, monkeypatch) -> None:
    def fails(_: object) -> UsedExtents:
        raise DeviceError("/dev/x is gone")

    monkeypatch.setattr(used_blocks, "AT_ONCE_S", 60.0)
    ((_, answer),) = search(loop, monkeypatch, fails)
    assert answer.whole and answer.runs.total() == BLOCKS and "/dev/x is gone" in answer.explanation
    ((_, answer),) = search(loop, monkeypatch, lambda _: 1 / 0)
    assert answer.whole and answer.runs.total() == BLOCKS, "a fault of ours"


def test_free_space_is_looked_for_beside_the_loop_as_well(loop, monkeypatch) -> None:
    """Of a volume whose first copy left it out, and did not write down where it was."""
    monkeypatch.setattr(used_blocks, "AT_ONCE_S", 0.0)
    written_out, searches = threading.Event(), []

    def find(_: object) -> UsedExtents:
        searches.append(1)
        written_out.wait()
        return FOUND

    monkeypatch.setattr(used_blocks, "used_extents", find)
    verification = loop.volume.peers[1].verification
    for _ in range(3):
        with pytest.raises(BusyError, match="try again in a moment"):
            verification.require({})
    written_out.set()
    until(lambda: not verification._space._is_searching, "the search has ended")
    verification.require({})
    assert len(searches) == 1
    monkeypatch.setattr(used_blocks, "KEPT_S", -1.0)
    monkeypatch.setattr(used_blocks, "AT_ONCE_S", 60.0)
    verification.require({})
    assert len(searches) == 2, "what was found long ago is not trusted"


def test_the_used_blocks_are_asked_for_again_at_once_when_nothing_was_mounted(loop, monkeypatch) -> None:
    monkeypatch.setattr(used_blocks, "AT_ONCE_S", 60.0)
    nothing = UsedExtents(np.array([0]), np.array([4096 * BLOCKS]), "no file system is mounted", True)
    found = [nothing, FOUND]
    monkeypatch.setattr(used_blocks, "used_extents", lambda _: found.pop(0))
    space = loop.volume.peers[1].verification._space
    assert space.found() is None
    free = space.found()
    assert free is not None and free.total() == BLOCKS - 2 and space.found() is free, "and this is kept"
