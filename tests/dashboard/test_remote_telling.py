"""What another machine's dashboard tells is taken for no better than it says itself, and breaks no overview."""

from __future__ import annotations

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from pydbt.dashboard.panorama import MachinePicture, Panorama
from pydbt.dashboard.remote import RemoteDashboard
from pydbt.dashboard.stream import overview_json
from tests.core.seen.test_sight import WELL

NOTHING = cast(Any, None)


def volume(identity: str, **changes: Any) -> dict[str, Any]:
    return {"id": identity, "name": identity, "stale": False, "age_seconds": 0.1, "status": WELL, **changes}


def seen(*volumes: dict[str, Any], **machine: Any) -> MachinePicture:
    """The picture of a machine that answers this."""

    class Other(RemoteDashboard):
        async def fetch(self, path: str, timeout_s: float) -> Any:
            return {"machines": [{"name": "far", "reachable": True, "problem": "", "volumes": volumes, **machine}]}

    async def look() -> MachinePicture:
        panorama = Panorama()
        task = asyncio.ensure_future(Other(("192.0.2.1", 7780), NOTHING, NOTHING, NOTHING, panorama).run())
        with panorama.waiting(lambda: None) as all_there:
            while not all_there():
                await asyncio.sleep(0.01)
        task.cancel()
        return panorama.machines()[0]

    with ThreadPoolExecutor(1) as own:  # Playwright keeps a loop in this thread
        return own.submit(lambda: asyncio.run(look())).result()


def test_a_machine_that_does_not_see_its_own_volumes_is_shown_as_one() -> None:
    assert (seen(volume("a")).reachable, seen(volume("a")).problem) == (True, "")
    lost = seen(reachable=False, problem="its folder cannot be read\n")
    assert (lost.reachable, lost.problem) == (False, "its folder cannot be read\\x0a")
    assert seen(problem="slow").reachable and seen(problem="slow").problem == "slow"
    for told in (False, None, "yes"):
        assert not seen(reachable=told).reachable and seen(reachable=told).problem


def test_of_several_volumes_of_one_id_there_is_the_first() -> None:
    assert [sight.name for sight in seen(volume("a"), volume("b"), volume("a", name="x")).sights] == ["a", "b"]


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_none_hides_no_other_volume(number: float) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    hostile = {**WELL, "queue": {"used": [number]}}
    text = overview_json([seen(volume("a", status=hostile), volume("b"))])
    first, second = json.loads(text, parse_constant=refuse)["machines"][0]["volumes"]
    assert first["queue"] == {"used": [None]} and second["status"]["mode"] == "normal"


def test_a_rate_that_makes_a_time_without_end_makes_no_forecast() -> None:
    behind = {**WELL, "replica_state": "consistent", "lag_bytes": 1 << 40, "write_rate_bytes": 0.0}
    (sight,) = seen(volume("a", status=behind, wire_rate_bytes=1e-320)).sights
    assert sight.forecast.seconds is None and sight.forecast.converges is None


def test_a_stream_of_another_machine_falls_behind_as_that_one_tells() -> None:
    behind = {**WELL, "replica_state": "consistent"}
    (sight,) = seen(volume("a", status=behind, backlog_growth_bytes=2 << 20)).sights
    assert sight.forecast.converges is False and "falls behind by 2.0 MiB/s" in sight.forecast.words
