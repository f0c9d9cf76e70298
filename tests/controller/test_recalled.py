"""How far behind a secondary is does not begin anew with each start of the controller, and is never told too small."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller.control import write_saved_status
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.recalled import recall_in_sync
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import GEOMETRY, volume_of


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    """Its secondary, which was in sync once, is away."""
    made = volume_of(tmp_path, SecondaryRecord(1, "h:1", SyncPhase.REPLICATING))
    made.join(1, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
    yield made
    made.peers[1].close()


def saved(of: Volume, last: datetime | str | None, **more: Any) -> None:
    moment = last.isoformat() if isinstance(last, datetime) else last
    told = {"role": "primary", "volume": of.metadata.state.volume, **more}
    write_saved_status(of.options.state_dir, {**told, "secondaries": [{"secondary": "h:1", "last_in_sync": moment}]})


def recalled(volume: Volume) -> float | None:
    """Seconds since it was in sync."""
    volume.peers[1].in_sync_at = None
    recall_in_sync(volume)
    peer = volume.peers[1]
    peer.note_in_sync(time.monotonic())
    return None if peer.in_sync_at is None else time.monotonic() - peer.in_sync_at


def test_the_last_moment_in_sync_outlives_the_controller(volume: Volume) -> None:
    saved(volume, datetime.now(UTC) - timedelta(hours=2))
    age_s = recalled(volume)
    assert age_s is not None and 7200 <= age_s < 7260


@pytest.mark.parametrize("last", [None, "", "yesterday", 5, datetime.now(UTC) + timedelta(days=400)])
def test_a_saved_moment_that_is_none_or_of_a_clock_that_was_ahead_is_unknown(volume: Volume, last: Any) -> None:
    saved(volume, last)
    assert recalled(volume) is None


def test_nothing_is_recalled_of_another_volume_or_of_a_secondary_that_was_never_in_sync(volume: Volume) -> None:
    assert recalled(volume) is None, "nothing is written down"
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    saved(volume, hour_ago, volume="another")
    assert recalled(volume) is None
    saved(volume, hour_ago)
    volume.metadata.change_record(1, phase=SyncPhase.INITIAL)
    assert recalled(volume) is None


def test_a_taint_and_a_replica_that_was_put_back_take_it_away(volume: Volume) -> None:
    saved(volume, datetime.now(UTC) - timedelta(hours=1))
    state = volume.peers[1].brain.state
    state.taints = {"something was missed": 1}
    assert recalled(volume) is None
    state.taints = {}
    assert recalled(volume) is not None
    state.replica.initial = True
    assert recalled(volume) is None


def test_while_it_follows_it_is_in_sync_now_also_where_nobody_has_compared_it(volume: Volume) -> None:
    peer: Peer = volume.peers[1]
    peer.brain.state.mode, peer.brain.state.replica.initial = Mode.NORMAL, True
    peer.note_in_sync(5.0)
    assert peer.in_sync_at == 5.0
