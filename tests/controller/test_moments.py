"""The moments in a status of a machine that was suspended: none is told as later than it was."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from pydbt.controller import clocks
from pydbt.controller.options import SecondaryOptions
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.secondary.service import SecondaryService
from pydbt.core.errors import BusyError
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode
from pydbt.core.secondary.primary_watch import SIGN_OF_LIFE_S
from pydbt.core.suspensions import Suspensions
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import GEOMETRY, volume_of

SUSPENDED_S = 8 * 3600.0


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long this machine has been suspended since its boot."""
    slept = [0.0]
    read = {1: time.monotonic, 7: lambda: time.monotonic() + slept[0]}
    fake = SimpleNamespace(clock_gettime=lambda which: read[which](), CLOCK_MONOTONIC=1, CLOCK_BOOTTIME=7)
    monkeypatch.setattr(clocks, "time", fake)
    monkeypatch.setattr(clocks, "_suspensions", Suspensions())
    return slept


def test_a_replica_that_was_suspended_does_not_tell_of_its_primary_as_if_it_had_not_slept(
    tmp_path: Path, asleep: list[float]
) -> None:
    options = SecondaryOptions(tmp_path / "image", "127.0.0.1", 0, tmp_path / "state", create_bytes=1 << 20)
    service = SecondaryService(options)
    assert service.report().primary.heard_seconds is None
    service._watch.heard(time.monotonic())
    assert (service.report().primary.heard_seconds or 0) < SUSPENDED_S
    asleep[0] = SUSPENDED_S
    assert (service.report().primary.heard_seconds or 0) >= SUSPENDED_S
    service._watch.heard(time.monotonic())
    assert (service.report().primary.heard_seconds or 0) < SUSPENDED_S
    service._lock.close()


def test_a_replica_that_was_suspended_is_not_promoted_before_its_primary_could_be_heard_again(
    tmp_path: Path, asleep: list[float]
) -> None:
    options = SecondaryOptions(tmp_path / "image", "127.0.0.1", 0, tmp_path / "state", create_bytes=1 << 20)
    service = SecondaryService(options)
    brain = service._engine.brain
    brain.keeper.record = replace(brain.record, volume="ab" * 16, consistent=True)
    service._watch.heard(time.monotonic() - SIGN_OF_LIFE_S + 0.5)
    service.report()
    asleep[0] = SUSPENDED_S
    with pytest.raises(BusyError, match="was suspended"):
        service._command({"command": "promote"}, lambda: False)
    service._watch.heard(time.monotonic() - SIGN_OF_LIFE_S - 0.5)
    assert service._command({"command": "promote"}, lambda: False)["role"] == "secondary", "it was silent before"
    service._lock.close()


def test_after_a_suspension_the_last_moment_in_sync_is_from_before_it(tmp_path: Path, asleep: list[float]) -> None:
    volume = volume_of(tmp_path, SecondaryRecord(1, "h:1", phase=SyncPhase.REPLICATING))
    volume.join(1, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
    loop = PrimaryLoop(volume)
    (brain,) = volume.brains
    brain.state.mode, brain.state.in_flight.certain = Mode.NORMAL, True
    brain.link.connected(time.monotonic())
    volume.peers[1].in_sync_at = volume.written_at = time.monotonic()
    loop.divergences.note(time.monotonic())
    assert (loop.report().together.lag_seconds or 0) < SUSPENDED_S

    asleep[0] = SUSPENDED_S
    report = loop.report().together
    assert report.lag_seconds is not None and report.lag_seconds >= SUSPENDED_S
    assert report.last_in_sync is not None and report.mode_since is not None
    for told in (report.last_in_sync, report.mode_since):
        assert (datetime.now(UTC) - datetime.fromisoformat(told)).total_seconds() >= SUSPENDED_S - 1
    volume.written_at += 1e-6
    loop.divergences.note(time.monotonic(), final=True)
    last = datetime.fromisoformat(volume.metadata.state.last_written)
    assert (datetime.now(UTC) - last).total_seconds() >= SUSPENDED_S - 1
    volume.peers[1].close()
