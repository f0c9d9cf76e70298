"""A loop that follows its one secondary, for tests of its turns and of its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.controller.primary import ending as primary_ending
from pydbt.controller.primary import use_watch
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import GEOMETRY, volume_of


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrimaryLoop]:
    """A loop in mode normal, everything acknowledged, on a link that acknowledges nothing by itself."""
    monkeypatch.setattr(primary_ending, "clean_marker", lambda *_: {"boot_id": "now"})
    monkeypatch.setattr(use_watch, "maps_memory", lambda _: False)
    monkeypatch.setattr(use_watch, "swap_paths", lambda: [])
    volume = volume_of(tmp_path, SecondaryRecord(1, "h:1", phase=SyncPhase.REPLICATING))
    volume.join(1, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
    made = PrimaryLoop(volume)
    monkeypatch.setattr(made, "save_status", lambda _: None)
    monkeypatch.setattr(volume.auditor, "look", lambda brains, now: [])
    (brain,) = volume.brains
    brain.state.mode, brain.state.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(0.0)
    brain.link.connected(time.monotonic())
    yield made
    volume.peers[1].close()
