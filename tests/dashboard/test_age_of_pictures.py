"""A picture is as old as the question that it answers: an answer may be long on its way, or lie there unread."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from pydbt.core.seen.sight import STALE_S, Level
from pydbt.core.units import MIB
from pydbt.dashboard import watched_volume
from pydbt.dashboard.panorama import Panorama
from pydbt.dashboard.places import VolumePlace
from pydbt.dashboard.remote import RemoteDashboard
from pydbt.dashboard.watched_volume import WatchedVolume
from tests.core.seen.test_sight import WELL
from tests.dashboard.test_remote_telling import volume

NOTHING = cast(Any, None)


class Conversation:
    """With a controller that has answered by the time at which it is looked."""

    wire = None

    def __init__(self, where: Path) -> None:
        pass

    def ask_status(self) -> None:
        pass

    def take(self) -> dict[str, Any]:
        return WELL

    def close(self) -> None:
        pass


def test_an_answer_that_lay_there_unread_is_not_of_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(watched_volume, "Conversation", Conversation)
    watched = WatchedVolume(VolumePlace("id", "data", tmp_path, "source", "/dev/vda3"))
    watched.ask(100.0)
    watched.take(100.1)
    assert watched.sight("here", 100.2).level is Level.GOOD
    watched.ask(101.0)
    watched.take(102.0 + STALE_S)
    sight = watched.sight("here", 102.0 + STALE_S)
    assert sight.level is Level.UNKNOWN and sight.age_seconds == STALE_S + 1


def test_a_stream_whose_backlog_grows_for_long_has_a_forecast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = 100.0

    class Behind(Conversation):
        def take(self) -> dict[str, Any]:
            return {**WELL, "replica_state": "consistent", "lag_bytes": 5 * MIB * (now - 100.0)}

    monkeypatch.setattr(watched_volume, "Conversation", Behind)
    watched = WatchedVolume(VolumePlace("id", "data", tmp_path, "source", "/dev/vda3"))
    forecasts = []
    for step in range(22):
        now = 100.0 + step
        watched.ask(now)
        watched.take(now)
        forecasts.append(watched.sight("here", now).forecast)
    assert forecasts[14].converges is None and "falls behind by 5.0 MiB/s" in forecasts[-1].words
    watched._failed(OSError("it hangs"))
    assert watched.sight("here", now).forecast.converges is None


def test_an_overview_of_another_machine_is_as_old_as_the_question() -> None:
    asked = list[float]()

    class Slow(RemoteDashboard):
        async def fetch(self, path: str, timeout_s: float) -> Any:
            asked.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.05)
            return {"machines": [{"name": "far", "reachable": True, "problem": "", "volumes": [volume("a")]}]}

    async def look() -> float:
        panorama = Panorama()
        task = asyncio.ensure_future(Slow(("192.0.2.1", 7780), NOTHING, NOTHING, NOTHING, panorama).run())
        with panorama.waiting(lambda: None) as all_there:
            while not all_there():
                await asyncio.sleep(0.01)
        task.cancel()
        return panorama.machines()[0].taken

    with ThreadPoolExecutor(1) as own:  # Playwright keeps a loop in this thread
        taken = own.submit(lambda: asyncio.run(look())).result()
    assert taken <= asked[0]
