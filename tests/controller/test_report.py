"""The report of `status --json`: its keys, their order and their values stay what programs of other people read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.cli.render import rows, summary
from pydbt.controller.primary import status as primary_status
from pydbt.controller.primary import volume as primary_volume
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.era_recovery import UNTRACKED, Since
from pydbt.controller.primary.feed import Feed
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.primary import events as ev
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.standing import STANDING, UNKNOWN_STANDING, Standing
from pydbt.core.seen.headline import headline
from pydbt.core.seen.view import View
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import BLOCKS, GEOMETRY, volume_of

GOLDEN = Path(__file__).parent / "golden"
GENERATIONS = Generations(5, (4,), (3,), shared=True)
LAST = {
    "ended": "2026-01-02T03:04:05+00:00",
    "repaired": True,
    "compared_bytes": 262144,
    "differing_bytes": 4096,
    "places": [{"offset_bytes": 8192, "length_bytes": 4096}],
}
CONFIG = PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False, generations=GENERATIONS)


def record(slot: int, **changes: object) -> SecondaryRecord:
    return SecondaryRecord(slot, f"h:{slot}", SyncPhase.REPLICATING, generations=GENERATIONS, **changes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A time that stands still unless a test moves it."""
    made = SimpleNamespace(now=1000.0, sleep=lambda _: None)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(primary_volume, "time", made)
    monkeypatch.setattr(primary_status, "time", made)
    monkeypatch.setattr(primary_status, "moment_ago", lambda ago_s, wall=None: f"{ago_s:.3f} s ago")
    return made


def same_as_golden(name: str, report: dict[str, object]) -> None:
    path = GOLDEN / name
    assert json.dumps(report, indent=2) + "\n" == path.read_text()


def test_a_volume_with_one_secondary_that_follows(tmp_path: Path, clock: SimpleNamespace) -> None:
    volume = volume_of(tmp_path, record(1, verify=LAST, compared_whole=True))
    volume.join(1, Joining(CONFIG))
    (brain,) = volume.brains
    brain.state.mode, brain.state.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(clock.now)
    clock.now += 3
    volume.peers[1].note_in_sync(clock.now - 0.5)
    same_as_golden("one.json", PrimaryLoop(volume).report().to_json())
    volume.peers[1].close()


def test_no_moment_is_told_too_late_by_a_process_that_does_not_get_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at a clock takes a second; both clocks agree."""
    began, passed = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), [0.0]

    def look() -> float:
        passed[0] += 1.0
        return passed[0]

    clocks = SimpleNamespace(monotonic=lambda: 1000.0 + look(), sleep=lambda _: None)
    monkeypatch.setattr(primary_volume, "time", clocks)
    monkeypatch.setattr(primary_status, "time", clocks)
    wall = SimpleNamespace(now=lambda _: began + timedelta(seconds=look()))
    monkeypatch.setattr(primary_status, "datetime", wall)
    volume = volume_of(tmp_path, record(1))
    peer = volume.join(1, Joining(CONFIG))
    peer.brain.state.mode = Mode.NORMAL
    peer.note_in_sync(1000.0)
    told = PrimaryLoop(volume).report().to_json()["last_in_sync"]
    assert datetime.fromisoformat(str(told)) <= began
    peer.close()


def test_a_record_that_may_lie_in_the_ring_is_not_promised_to_be_in_sync(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    volume = volume_of(tmp_path, record(1))
    peer = volume.join(1, Joining(CONFIG))
    peer.brain.state.mode = Mode.NORMAL
    volume.drained_at = clock.now - 0.7
    Feed(volume).process()
    assert peer.in_sync_at == volume.drained_at
    peer.brain.state.unsettled.add(np.array([3]), 1, clock.now - 0.2)
    peer.note_in_sync(volume.drained_at)
    assert peer.in_sync_at == volume.drained_at, "what lies in the ring may be older than what is in doubt since then"
    peer.brain.state.unsettled.add(np.array([4]), 1, clock.now - 0.9)
    peer.note_in_sync(volume.drained_at)
    assert peer.in_sync_at == clock.now - 0.9
    peer.brain.state.unsettled.clear()
    for heard_until in (volume.drained_at, clock.now - 5):
        peer.note_in_sync(heard_until)
        assert peer.in_sync_at == volume.drained_at, "what was true of a moment stays true"
    peer.close()


def test_blocks_that_cannot_be_read_are_named_and_the_replica_is_not_up_to_date(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    volume = volume_of(tmp_path, record(1))
    peer = volume.join(1, Joining(CONFIG))
    peer.brain.state.mode, peer.brain.state.in_flight.certain, peer.brain.state.replica.state = (
        Mode.NORMAL, True, "up-to-date",
    )  # fmt: skip
    peer.note_in_sync(clock.now)
    assert PrimaryLoop(volume).report().to_json()["replica_state"] == "up-to-date"
    peer.brain.state.unreadable.add(np.array([3, 4, 9]), 0.0)
    report = PrimaryLoop(volume).report().to_json()
    assert report["unreadable"] == {
        "bytes": 3 * 4096,
        "places": [
            {"offset_bytes": 3 * 4096, "length_bytes": 2 * 4096}, {"offset_bytes": 9 * 4096, "length_bytes": 4096},
        ],
    }  # fmt: skip
    assert report["replica_state"] == "consistent" and report["out_of_sync_bytes"] == 3 * 4096
    peer.close()


@pytest.mark.parametrize("why", ["not scanned", "tainted"])
def test_where_everything_may_differ_the_amount_is_unknown_and_not_0(
    tmp_path: Path, clock: SimpleNamespace, why: str
) -> None:
    volume = volume_of(tmp_path, record(1))
    config = replace(CONFIG, scan_used=True, scan_whole=True) if why == "not scanned" else CONFIG
    peer = volume.join(1, Joining(config))
    if why == "tainted":
        peer.brain.state.mode = Mode.NORMAL
        peer.note_in_sync(clock.now)
        peer.brain.handle(ev.Tainted("an unknown operation wrote"), clock.now)
        peer.note_in_sync(clock.now)
    sent: list[Standing] = []
    peer.connection = SimpleNamespace(
        features=(STANDING,), send=sent.append, sent_bytes=0, secure=None, close=lambda **_: None
    )
    loop = PrimaryLoop(volume)
    report = loop.report().to_json()
    for words in (report, report["secondaries"][0]):
        known = {
            key: words[key]
            for key in ("out_of_sync_bytes", "unacknowledged_bytes", "lag_bytes", "lag_seconds", "last_in_sync")
        }
        assert set(known.values()) == {None}, known
    assert "behind by an unknown amount" in headline(View(report), datetime.now(UTC))
    assert "out of sync an unknown amount" in summary(View(report))
    shown = dict(rows(View(report)))
    assert (shown["out of sync"], shown["lag"], shown["last in sync"]) == (*["an unknown amount"] * 2, "unknown")
    loop.standings.tell(clock.now)
    assert sent[-1].behind_bytes == volume.geometry.size_bytes, "an earlier version has no other word for it"
    peer.connection.features = (STANDING, UNKNOWN_STANDING)
    loop.standings.tell(clock.now)
    assert sent[-1].behind_bytes is None and not sent[-1].followed
    peer.close()


def test_a_volume_whose_writes_are_replicated_in_epochs(tmp_path: Path, clock: SimpleNamespace) -> None:
    volume = volume_of(tmp_path, record(1))
    volume.join(1, Joining(replace(CONFIG, snapshot_interval_s=10.0, taints=("an unknown operation wrote",))))
    clock.now += 3
    same_as_golden("epochs.json", PrimaryLoop(volume).report().to_json())
    volume.peers[1].close()


def test_a_volume_with_several_secondaries(tmp_path: Path, clock: SimpleNamespace) -> None:
    volume = volume_of(tmp_path, record(1, verify=LAST, compared_whole=True), record(2), record(3))
    pending = DirtyMap(BLOCKS)
    pending.set_range(3, 5)
    volume.join(1, Joining(CONFIG))
    volume.join(2, Joining(replace(CONFIG, initial=True, assumed_in_sync=True), pending))
    volume.join(
        3, Joining(replace(CONFIG, taints=(UNTRACKED,), answered=(UNTRACKED,)), since=Since(17, pending, 20480))
    )
    first, second, third = volume.brains
    first.state.mode, first.state.in_flight.certain = Mode.NORMAL, True
    first.link.connected(clock.now)
    volume.peers[1].note_in_sync(clock.now)
    clock.now += 3
    third.handle(ev.PauseAsked(), clock.now)
    second.handle(ev.Disconnected("no route to host"), clock.now)
    loop = PrimaryLoop(volume, layer_problem="dmsetup failed")
    same_as_golden("several.json", loop.report().to_json())
    for peer in volume.peers.values():
        peer.close()


def test_a_kernel_on_which_data_cannot_be_captured_is_told_in_the_status(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, record(1))
    volume.capture.payload_available, volume.capture.payload_reason = False, "struct page has compound_info"
    volume.join(1, Joining(replace(CONFIG, snapshot_interval_s=10.0)))
    report = PrimaryLoop(volume).report().to_json()
    assert report["capture"] == {"kind": "addresses", "reason": "struct page has compound_info"}
    words = dict(rows(View(report)))["capture"]
    assert words.startswith("addresses only") and "compound_info" in words
    volume.peers[1].close()


def test_losses_are_reported_by_reason(tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = volume_of(tmp_path, record(1))
    peer = volume.join(1, Joining(CONFIG))
    counters = SimpleNamespace(
        lost=3, lost_records=1, lost_completions=2, no_payload=3, unknown_ops=4, passthrough=5, recursion_misses=6
    )
    monkeypatch.setattr(volume.capture, "counters", lambda: counters)
    report = PrimaryLoop(volume).report().to_json()
    assert report["losses"] == {
        "submissions": 1, "completions": 2, "data": 3, "unknown_kinds": 4, "passthrough": 5, "missed": 6,
    }  # fmt: skip
    assert report["lost_records"] == report["losses"]["submissions"] + report["losses"]["completions"]
    peer.close()


def test_the_kernel_s_bitmaps_are_counted_only_where_they_name_blocks_that_no_brain_knows(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    """Those of 16 TiB take some tenths of a second, each time."""
    volume = volume_of(tmp_path, record(1))
    peer = volume.join(1, Joining(CONFIG))
    counted: list[int] = []

    def dirty_counts(*, with_quiet: bool) -> tuple[int, int]:
        counted.append(1)
        return 5, 0

    volume.capture.dirty_counts = dirty_counts
    loop = PrimaryLoop(volume)
    peer.brain.state.mode = Mode.NORMAL
    assert loop.report().to_json()["out_of_sync_bytes"] == 0 and not counted
    peer.brain.handle(ev.PauseAsked(), clock.now)
    assert loop.report().to_json()["out_of_sync_bytes"] == 5 * 4096 and counted
    peer.close()
