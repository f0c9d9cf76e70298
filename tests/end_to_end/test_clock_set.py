"""A clock that is set years ahead, and back, while a pair runs: no status, history or check is wrong by it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pydbt.controller import control
from pydbt.core.seen.plugin import Limits, PluginState, judged
from pydbt.core.seen.view import View
from tests.lab import set_clock
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device
from tests.lab.load import load
from tests.lab.patience import until
from tests.lab.raw import DirectWriter

MIB = 1 << 20
YEAR_S = 365 * 86_400
NEAR_S = 60.0
"""Figures of a busy machine are not told to the second; a wrong one is wrong by years."""


def since(moment: str, offset_s: float) -> float:
    """By the clock that was set."""
    return (datetime.now(UTC) + timedelta(seconds=offset_s) - datetime.fromisoformat(moment)).total_seconds()


def look(both: Cluster, offset_s: float, began: float) -> None:
    now = datetime.now(UTC) + timedelta(seconds=offset_s)
    status, replica = both.status(), both.secondary_status()
    assert status is not None and replica is not None
    assert status["mode"] == "normal" and replica["connected"]
    assert abs(since(status["mode_since"], offset_s) - (time.monotonic() - began)) < NEAR_S
    assert 0 <= status["lag_seconds"] < NEAR_S and abs(since(status["last_in_sync"], offset_s)) < NEAR_S
    assert 0 <= replica["silent_seconds"] < NEAR_S
    for name, told in (("volume", status), ("replica", replica)):
        found = judged(name, View({**told, "running": True}), now, Limits(NEAR_S, 2 * NEAR_S))
        assert found.state is PluginState.OK, found
    history = control.call(both.primary_state, {"command": "history", "from": now.timestamp() - 30}, 60)
    rates = [row[history["columns"].index("wire_rate_bytes")] for row in history["rows"]]
    assert rates and all(rate is None or rate < 64 * MIB for rate in rates), history["rows"]


@pytest.mark.variant
def test_figures_and_history_are_unchanged_while_a_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = tmp_path / "offset"
    set_clock.put(offset, 0)
    monkeypatch.setenv("PYTHONPATH", f"{set_clock.FOLDER}:{Path.cwd()}")
    monkeypatch.setenv("TEST_CLOCK_OFFSET", str(offset))
    options = ("--whole-device", "--verify-every", "1d")
    with (
        loop_device(tmp_path, 16 * MIB) as device,
        cluster(tmp_path / "c", device, primary_options=options) as both,
        DirectWriter(device.path, private=True) as writer,
        load() as writes,
    ):
        both.start()
        both.wait()
        until(lambda: both.status()["verify"]["last"] is not None, "the first verification has ended")
        began = time.monotonic() - since(both.status()["mode_since"], 0)
        verified = both.status()["verify"]["last"]
        blocks = iter(range(1_000_000))
        writes.add(lambda: writer.put(next(blocks) % 4000 * 4096, b"x" * 4096), 0.05)
        for offset_s in (0.0, 10.0 * YEAR_S, 0.0, -20.0 * YEAR_S, -50.0, 0.0):
            set_clock.put(offset, offset_s)
            time.sleep(3)
            look(both, offset_s, began)
            assert both.status()["verify"]["last"] == verified, "it began again because of the clock"
        both.secondary.freeze()
        both.until_mode("unsynchronized")
        for offset_s in (10.0 * YEAR_S, -10.0 * YEAR_S):
            set_clock.put(offset, offset_s)
            time.sleep(1)
            status = both.status()
            assert status["replica_state"] != "up-to-date" and 0 < status["lag_seconds"] < 10 * NEAR_S, status
            assert abs(since(status["last_in_sync"], offset_s) - status["lag_seconds"]) < NEAR_S
        both.secondary.thaw()
        both.until_mode("normal")
    assert "Traceback" not in both.tails()
