"""The primary's loop around a capture that is simulated: records keep their order, and going down forgets nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.controller import primary_loop
from pydbt.controller.assurance import FOUND_BY_VERIFY
from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary_loop import PrimaryLoop, Request
from pydbt.core import primary_events as ev
from pydbt.core.capture_record import RECORD, RecordKind
from pydbt.core.errors import StateError
from pydbt.core.modes import Mode
from pydbt.core.primary_config import PrimaryConfig
from pydbt.core.units import Geometry
from pydbt.store.map_file import MAP_FILE_NAME, load_map
from pydbt.store.volume_state import SyncPhase, VolumeState, load_state

BLOCKS = 64
GEOMETRY = Geometry(BLOCKS * 4096, 4096)


class FakeCapture:
    """Bits and records as the programs make them. ``graces``: writes that happen during the next grace periods."""

    def __init__(self) -> None:
        self.maps = np.zeros((2, BLOCKS), bool)
        self.active = 0
        self.ring: list[tuple[int, int]] = []
        self.consumed = 0
        self.graces: list[int] = []
        self.order: list[int] = []
        self.detached = False

    def write(self, block: int) -> None:
        self.maps[self.active][block] = True
        self.ring += [(RecordKind.SUBMIT, block), (RecordKind.COMPLETE, block)]

    def _grace(self) -> None:
        if self.graces:
            self.write(self.graces.pop(0))

    def drain(self, limit: int) -> np.ndarray:
        taken, self.ring = self.ring[:limit], self.ring[limit:]
        self.consumed += len(taken)
        records = np.zeros(len(taken), RECORD)
        for row, (kind, block) in zip(records, taken, strict=True):
            row["kind"], row["sector"], row["sectors"], row["op"] = kind, block * 8, 8, 1
        return records

    def producer_position(self) -> int:
        return self.consumed + len(self.ring)

    def consumer_position(self) -> int:
        return self.consumed

    def counters(self):
        return SimpleNamespace(lost=0, lost_records=0, lost_completions=0, unknown_ops=0, passthrough=0, recursion_misses=0)

    def set_payload(self, on: bool) -> None:
        self._grace()

    def flip(self) -> None:
        self.active ^= 1
        self._grace()

    def quiet_words(self) -> np.ndarray:
        return np.frombuffer(np.packbits(self.maps[1 - self.active], bitorder="little").tobytes(), "<u8")

    def zero_quiet(self) -> None:
        self.maps[1 - self.active][:] = False

    def payload(self, records: np.ndarray) -> list:
        self.order += (records["sector"] // 8).tolist()
        return [bytes(4096)] * len(records)

    def release(self, records: np.ndarray) -> None:
        pass

    def dirty_counts(self) -> tuple[int, int]:
        return 0, 0

    def detach(self) -> None:
        self.detached = True


@pytest.fixture
def loop(tmp_path: Path, monkeypatch):
    """A loop in mode normal, everything acknowledged, on a link that acknowledges nothing by itself."""
    monkeypatch.setattr(primary_loop, "clean_marker", lambda *_: {"boot_id": "now"})
    state = VolumeState("ab" * 16, GEOMETRY.size_bytes, 4096, "/dev/x", {}, "h:1", phase=SyncPhase.REPLICATING)
    options = PrimaryOptions(Path("/dev/x"), "h", 1, tmp_path)
    device = SimpleNamespace(path="/dev/x", in_flight_writes=lambda: 0, logical_block_bytes=512)
    config = PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)
    made = PrimaryLoop(options, device, state, config, FakeCapture(), SimpleNamespace(check=lambda: None), None)
    monkeypatch.setattr(made, "_snapshot", lambda: None)
    monkeypatch.setattr(made.assurance, "look", lambda now: [])
    brain = made.brain
    brain.mode, brain.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(0.0)
    brain.link.connected(primary_loop.time.monotonic())
    yield made
    made.peer.close()


def test_writes_reach_the_stream_in_the_order_in_which_they_were_made_whoever_waits(loop):
    loop.capture.write(1)
    loop._drain()
    loop.capture.write(2)
    loop._command(Request("wait", threading.Event()))  # as between two looks at the inbox
    loop.brain.next_retire = 0.0  # the bitmaps are to be flipped now
    loop.capture.graces = [3]
    loop._process()
    assert loop.capture.order == [1, 2, 3]


def test_a_write_while_the_controller_goes_down_is_in_the_map_it_leaves(loop, monkeypatch):
    loop._down = Request("down", threading.Event())
    monkeypatch.setattr(loop, "_drain_stream", lambda *_: True)  # everything so far is acknowledged
    loop.capture.graces = [5]  # written while payload capture is switched off
    loop._finish()
    _, pending = load_map(loop.options.state_dir / MAP_FILE_NAME)
    assert pending.contains(5)


def test_a_map_that_could_not_be_written_is_not_trusted_at_the_next_start(loop, monkeypatch):
    def fails(*_):
        raise StateError("no space left on device")

    loop._down = Request("down", threading.Event())
    monkeypatch.setattr(loop, "_drain_stream", lambda *_: False)
    monkeypatch.setattr(primary_loop, "save_map", fails)
    loop.capture.write(9)
    loop._finish()
    assert not loop.capture.detached or loop.state.clean is None


def test_what_a_map_could_not_take_stays_in_the_kernel(loop, monkeypatch):
    """``down`` on a full disk: the programs stay, and so must their bits, for the next controller to read."""

    def fails(*_):
        raise StateError("no space left on device")

    loop._down = Request("down", threading.Event())
    monkeypatch.setattr(loop, "_drain_stream", lambda *_: False)
    loop.capture.write(9)
    monkeypatch.setattr(primary_loop, "save_map", fails)
    loop._finish()
    assert not loop.capture.detached
    assert loop.capture.maps[:, 9].any()


def test_a_tainted_volume_is_compared_as_a_whole_at_the_next_start(loop, monkeypatch):
    loop._down = Request("down", threading.Event())
    monkeypatch.setattr(loop, "_drain_stream", lambda *_: True)
    loop.brain.handle(ev.Tainted("a command that went to the disk past the block layer"), 0.0)
    loop._finish()
    assert loop.state.clean is None


def test_what_cancelling_a_verification_asks_for_is_done(loop, monkeypatch):
    read, dropped = [], []
    monkeypatch.setattr(loop.peer.blocks, "submit", lambda request: read.append(request.batch))
    monkeypatch.setattr(loop.peer.blocks, "drop", dropped.append)
    loop.take(ev.VerifyAsked(np.array([0]), np.array([4]), repair=False))
    assert read and not dropped
    handled_at = loop.brain._handled_at
    loop.assurance.verify({"cancel": True})
    assert dropped == read, "what was read for it is kept for ever"
    assert loop.brain._handled_at >= handled_at, "the brain was told of another time"


@pytest.fixture
def full_disk(monkeypatch):
    """The state file cannot be written; calling it makes room."""
    written = primary_loop.save_state

    def fails(*_):
        raise StateError("no space left on device")

    monkeypatch.setattr(primary_loop, "save_state", fails)
    return lambda: monkeypatch.setattr(primary_loop, "save_state", written)


def test_a_taint_that_could_not_be_written_down_is_as_soon_as_there_is_room(loop, full_disk):
    loop.take(ev.Tainted(FOUND_BY_VERIFY))
    full_disk()
    loop._check(0.0)
    assert [entry["reason"] for entry in load_state(loop.options.state_dir).taints] == loop.brain.taints


def test_no_map_is_written_before_what_it_counts_on_is(loop, full_disk):
    """With the map alone, another secondary than the one it was kept for would be taken for that one."""
    loop._carry_out(ev.RememberReplica("cd" * 16, 7, 1, True), [])
    assert loop._persist(False).error
    assert not (loop.options.state_dir / MAP_FILE_NAME).exists()
    full_disk()
    assert not loop._persist(False).error
    assert load_state(loop.options.state_dir).replica == "cd" * 16
