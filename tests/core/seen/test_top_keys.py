"""Intervals in steps; and what is on the screen gets older when no picture comes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydbt.core.seen.sight import Asked, sight_of
from pydbt.core.seen.top_keys import INTERVALS_S, grown_older, next_interval_s

NOW = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)


def test_intervals_go_in_steps_and_stop_at_their_ends() -> None:
    assert next_interval_s(1.0, longer=True) == 2.0 and next_interval_s(1.0, longer=False) == 0.5
    assert next_interval_s(3.0, longer=True) == 5.0 and next_interval_s(3.0, longer=False) == 2.0
    assert next_interval_s(INTERVALS_S[-1], longer=True) == INTERVALS_S[-1]
    assert next_interval_s(0.2, longer=False) == 0.2


def sight_after(seconds: float, age_seconds: float = 1.0, **status: Any) -> dict[str, Any]:
    well = {"running": True, "role": "primary", "mode": "normal", "replica_state": "up-to-date", "connected": True}
    seen = sight_of(Asked({**well, **status}, age_seconds), "0" * 16, "alpha", "data", NOW).to_json()
    (made,) = grown_older([{"name": "alpha", "volumes": [seen]}], seconds, NOW)[0]["volumes"]
    return dict(made)


def test_without_a_new_picture_nothing_stays_good() -> None:
    assert sight_after(0.0)["level"] == "good" and sight_after(2.0)["level"] == "good"
    late = sight_after(30.0)
    assert (late["level"], late["stale"], late["age_seconds"], late["name"]) == ("unknown", True, 31.0, "data")
    assert late["words"].startswith("STALE: no newer picture came; 31 s ago: up to date")


def test_a_bad_or_stopped_volume_stays_bad_or_stopped_when_its_picture_gets_older() -> None:
    assert sight_after(30.0, tainted=True)["level"] == "bad"
    stopped = sight_after(30.0, running=False, mode="stopped", problem="no controller is running")
    assert (stopped["level"], stopped["words"]) == ("stopped", "no controller is running")


def test_nonsense_is_unknown() -> None:
    (machine,) = grown_older([{"name": "alpha", "volumes": ["x", None, {"status": 7}]}], 9.0, NOW)
    assert [one["level"] for one in machine["volumes"]] == ["unknown"] * 3
