"""An era is remembered by a thread, and what is forgotten meanwhile stays forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pydbt.controller.primary import era_checkpoints
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.era_checkpoints import STANDS_S, EraCheckpoints
from pydbt.controller.primary.feed import Feed
from pydbt.controller.primary.volume import Volume
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.primary.config import PrimaryConfig
from pydbt.store import intent_file
from pydbt.store.intent_file import load_intent
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import BLOCKS, GEOMETRY, volume_of

LAYER = SimpleNamespace(checkpoint=lambda: 5, metadata="cd" * 16, region_bytes=65536)


class TakenIn:
    """In the place of a Checkpoint: every write is known."""

    def __init__(self, era: int, position: int) -> None:
        self.era = era

    def taken_in(self, brains: object) -> bool:
        return True

    def map_of(self, number: int, brain: object, words: object) -> DirtyMap:
        dirty = DirtyMap(BLOCKS)
        dirty.set_range(3, 1)
        return dirty


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Volume]:
    made = volume_of(tmp_path, SecondaryRecord(1, "h:1", SyncPhase.REPLICATING, replica="ab" * 16))
    peer = made.join(1, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False, replica="ab" * 16)))
    peer.brain.link._retry_at = float("inf")
    monkeypatch.setattr(made, "audit", lambda now: None)
    counters = SimpleNamespace(**vars(made.capture.counters()), submitted_sectors=8)
    monkeypatch.setattr(made.capture, "counters", lambda: counters)
    monkeypatch.setattr(made.capture, "active_words", made.capture.quiet_words, raising=False)
    monkeypatch.setattr(era_checkpoints, "Checkpoint", TakenIn)
    monkeypatch.setattr(era_checkpoints, "flush", lambda path: None)
    yield made
    peer.close()


def advanced(checkpoints: EraCheckpoints, until: Callable[[], bool]) -> None:
    """Until this is true; what a thread has done then is not heard of yet."""
    for _ in range(10):
        checkpoints.advance(0.0)
        if checkpoints._job is not None:
            checkpoints._job.join(10)
        if until():
            return
    raise AssertionError("it takes no more steps")


def remembered(checkpoints: EraCheckpoints, volume: Volume) -> int | None:
    report = checkpoints.report(volume.peers[1])
    assert report is not None
    return report.era


def test_an_era_is_remembered_once_its_map_is_on_disk(volume: Volume) -> None:
    checkpoints = EraCheckpoints(volume, Feed(volume), LAYER, "")  # type: ignore[arg-type]
    advanced(checkpoints, lambda: remembered(checkpoints, volume) is not None)
    loaded = load_intent(volume.metadata.state_dir / "era.map")
    assert loaded is not None and loaded[0].era == 5 == remembered(checkpoints, volume)
    assert loaded[2].extents().blocks().tolist() == [3]


def test_an_era_that_is_forgotten_while_its_map_is_written_is_not_remembered(volume: Volume) -> None:
    checkpoints, path = EraCheckpoints(volume, Feed(volume), LAYER, ""), volume.metadata.state_dir / "era.map"  # type: ignore[arg-type]
    advanced(checkpoints, path.exists)
    volume.peers[1].forget_era()
    checkpoints.advance(0.0)
    assert remembered(checkpoints, volume) is None and not path.exists()


def test_a_step_that_does_not_end_is_a_problem_of_the_report_until_it_has_ended(volume: Volume) -> None:
    answers = threading.Event()

    def checkpoint() -> int:
        assert answers.wait(60)
        return 5

    layer = SimpleNamespace(**{**vars(LAYER), "checkpoint": checkpoint})
    checkpoints = EraCheckpoints(volume, Feed(volume), layer, "")  # type: ignore[arg-type]

    def problem() -> str:
        report = checkpoints.report(volume.peers[1])
        assert report is not None
        return report.problem

    for now in (0.0, STANDS_S / 2):
        checkpoints.advance(now)
        assert not problem()
    checkpoints.advance(STANDS_S + 1)
    assert "has not ended" in problem()
    answers.set()
    advanced(checkpoints, lambda: remembered(checkpoints, volume) == 5)
    assert not problem()


def test_a_map_that_cannot_be_written_is_a_problem_of_the_report(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StateError("no space left on device")

    monkeypatch.setattr(intent_file, "save_intent", fails)
    checkpoints = EraCheckpoints(volume, Feed(volume), LAYER, "")  # type: ignore[arg-type]

    def told() -> bool:
        report = checkpoints.report(volume.peers[1])
        return report is not None and "no space" in report.problem

    advanced(checkpoints, told)
    assert remembered(checkpoints, volume) is None
